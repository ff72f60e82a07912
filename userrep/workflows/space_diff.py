"""How far two spaces agree: what a map between them loses, by vectors and by the models that read through it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from pyspark.ml import PipelineModel
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import Config
from userrep.errors import UsageError
from userrep.examples.return_propensity import CONSUMER, LabelDates, model_folder, return_labels
from userrep.features.build import stored_features
from userrep.joins.embedding_join import EmbeddingJoin
from userrep.joins.resolution import column
from userrep.spaces.agreement import Agreement, agreement
from userrep.spaces.map_artifact import has_map, load_map, save_map
from userrep.spaces.mapping import common_dates, fit_map, vector_pairs
from userrep.spaces.registry import Space, find_space
from userrep.store.schemas import TILE_DAYS
from userrep.store.storage import absolute, exists
from userrep.store.tables import Tables

FITTED_DATES = 4  # the newest that both spaces have


@dataclass(frozen=True)
class ModelLoss:
    """AUC of a saved model on a space's own vectors, and on a newer space's mapped into its coordinates."""

    consumer: str
    since: date
    num_labels: int
    auc_own: float
    auc_mapped: float
    auc_loss: float


@dataclass(frozen=True)
class SpaceDiff:
    """What ``userrep spaces diff`` tells. ``models``: of consumers whose saved model and labels can be had."""

    old: str
    new: str
    as_ofs: list[date]
    agreement: Agreement
    models: list[ModelLoss]


@dataclass(frozen=True)
class SavedModel:
    """A pipeline on disk, with an ``EmbeddingJoin``, and its labels: Parquet, the join's columns and label."""

    folder: str
    labels: str

    def check(self) -> None:
        """Refuse what is not there. Raises UsageError."""
        faults = [
            f"--{name} {path}: nothing is there."
            for name, path in (("model", self.folder), ("labels", self.labels))
            if not exists(absolute(path))
        ]
        if faults:
            raise UsageError(faults)


def diff_spaces(
    tables: Tables,
    config: Config,
    *,
    old: Space,
    new: Space,
    model: SavedModel | None = None,
    report: Callable[[str], None],
) -> SpaceDiff:
    """Compare two spaces by the users that both have embedded, and by what a consumer of the old one would lose.

    The map from ``new`` to ``old`` is fitted on their newest ``FITTED_DATES`` common as-of dates and kept beside the
    new space's artifact; one that is there already is judged, not fitted anew, as consumers may read through it.
    ``model``: one of the old space, judged beside the example consumer's. Cost: a join of both spaces' snapshots of
    these dates, for a sample of a million rows at most; then two look-ups of vectors and passes of each model.

    Raises
    ------
    UsageError
        If the two are one space, or have no as-of date in common; if the model or its labels are not there, or no use.
    """
    if model is not None:
        model.check()
    if old.space_id == new.space_id:
        raise UsageError(f"space {old.space_id} is compared with itself; name two.")
    common = common_dates(tables, new, old)
    as_ofs = common[-FITTED_DATES:]
    pairs = vector_pairs(tables, new, old, as_ofs).cache()
    try:
        new = find_space(tables, new.space_id)  # the caller's may be older than the map
        is_there = has_map(new, old)
        fitted = load_map(tables, new, old)[1] if is_there else fit_map(pairs)
        told = agreement(pairs, fitted)
    finally:
        pairs.unpersist()
    if not is_there:
        save_map(tables, new, old, fitted, told=told, as_ofs=as_ofs)
        report(f"map of {new.space_id} into the coordinates of {old.space_id}: fitted on {len(as_ofs)} as-of dates")
    models = _example(tables, config, old, new, common)
    if model is not None:
        labels = tables.spark.read.parquet(absolute(model.labels))
        since = max(old.trained_until, new.trained_until)
        loaded = PipelineModel.load(absolute(model.folder))
        models.append(model_loss(loaded, labels, since=since, consumer=model.folder, new=new))
    return SpaceDiff(old.space_id, new.space_id, as_ofs, told, models)


def diff_lines(diff: SpaceDiff) -> list[str]:
    """Tell a comparison in words."""
    told, days = diff.agreement, f"{len(diff.as_ofs)} as-of dates up to {diff.as_ofs[-1]}"
    lines = [
        f"{diff.new} mapped into the coordinates of {diff.old}, {told.num_rows:,} held-out vectors of {days}:",
        f"  mean cosine               {told.mean_cosine:.4f}",
        f"  residual                  {told.residual:.4f} of the variance",
        f"  same ten neighbours       {told.overlap_at_10:.1%} (among {told.num_neighbours:,} users)",
    ]
    lines += [
        f"model of {m.consumer}, {m.num_labels:,} labels from {m.since} on: AUC {m.auc_own:.4f} on {diff.old}, "
        f"{m.auc_mapped:.4f} on {diff.new} mapped, loss {m.auc_loss:+.4f}"
        for m in diff.models
    ]
    return lines


def model_loss(model: PipelineModel, labels: DataFrame, *, since: date, consumer: str, new: Space) -> ModelLoss:
    """Compare a saved pipeline's AUC on its own space's vectors and on ``new``'s, mapped into its coordinates.

    Parameters
    ----------
    model : with an ``EmbeddingJoin`` and a binary classifier. labels : its columns, and label (0.0 or 1.0).
    since : labels of earlier times are left out.

    Cost: the join and the model, twice over the labels. The model is left as it was.

    Raises
    ------
    UsageError
        If the model has no such stage, there is no map, or labels are all of one kind.
    """
    join = next((stage for stage in model.stages if isinstance(stage, EmbeddingJoin)), None)
    if join is None:
        raise UsageError(f"{consumer}: the model has no EmbeddingJoin, so nothing says which space it was trained on.")
    labels = labels.where(column(join.getOrDefault(join.timeCol)) >= F.lit(since))
    counts = {row.label: row["count"] for row in labels.groupBy("label").count().collect()}
    if len(counts) != 2:
        raise UsageError(
            f"{consumer}: labels of both kinds are wanted, 0.0 and 1.0, from {since} on; found {sorted(counts)}."
        )
    through = [s.copy().setMappedFrom(new.space_id) if isinstance(s, EmbeddingJoin) else s for s in model.stages]
    evaluator = BinaryClassificationEvaluator(labelCol="label", rawPredictionCol="rawPrediction")
    own, mapped = (float(evaluator.evaluate(m.transform(labels))) for m in (model, PipelineModel(through)))
    return ModelLoss(consumer, since, sum(counts.values()), own, mapped, own - mapped)


def _example(tables: Tables, config: Config, old: Space, new: Space, common: Sequence[date]) -> list[ModelLoss]:
    """Judge the example consumer's model of the old space, on labels of common dates that neither space has seen."""
    folder = model_folder(tables, old)
    if not exists(folder):
        return []
    last_day = max(row.event_date for row in tables.ledger(TILE_DAYS, ("event_date",)) if row.event_date)
    over = last_day + timedelta(days=1 - config.downstream.horizon_days)
    since = max(old.trained_until, new.trained_until)
    dates = [day for day in common if since <= day <= over][-config.downstream.num_dates :]
    if not dates:
        return []
    users = stored_features(tables, config, old.lineage_id, dates).select("as_of", "user_id")
    labels = return_labels(tables, config, users, LabelDates([], dates)).cache()
    try:
        return [model_loss(PipelineModel.load(folder), labels, since=since, consumer=CONSUMER, new=new)]
    finally:
        labels.unpersist()
