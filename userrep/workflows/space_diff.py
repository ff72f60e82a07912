"""``userrep spaces diff``: what consumers lose if a new space is mapped into the coordinates of an old one."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date

from pyspark.ml import PipelineModel
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.errors import UsageError
from userrep.joins.embedding_join import EmbeddingJoin
from userrep.joins.options import column
from userrep.spaces.agreement import Agreement, agreement
from userrep.spaces.mapping import common_dates, fit_map, load_map, save_map, vector_pairs
from userrep.spaces.registry import Space, find_space
from userrep.store.filesystem import absolute, exists
from userrep.store.tables import Tables

logger = logging.getLogger(__name__)

FITTED_DATES = 4  # the newest as-of dates that both spaces have


@dataclass(frozen=True)
class ModelLoss:
    """AUC of a saved model on the vectors of its own space, and on mapped vectors of a newer space."""

    consumer: str
    since: date
    num_labels: int
    auc_own: float
    auc_mapped: float
    auc_loss: float


@dataclass(frozen=True)
class SpaceDiff:
    """The result of ``userrep spaces diff``. ``models``: one entry if a saved model was given."""

    old: str
    new: str
    as_ofs: list[date]
    agreement: Agreement
    models: list[ModelLoss]


@dataclass(frozen=True)
class SavedModel:
    """A saved pipeline with an ``EmbeddingJoin``, and its labels: Parquet, the columns of the join and ``label``."""

    folder: str
    labels: str

    def check(self) -> None:
        """Check that both paths exist. Raises UsageError."""
        faults = [
            f"--{name} {path}: not found."
            for name, path in (("model", self.folder), ("labels", self.labels))
            if not exists(absolute(path))
        ]
        if faults:
            raise UsageError(faults)


def diff_spaces(tables: Tables, *, old: Space, new: Space, model: SavedModel | None = None) -> SpaceDiff:
    """Compare two spaces by their vectors of the same users, and by the AUC that a model of the old space loses.

    The map from ``new`` to ``old`` is fitted on their newest ``FITTED_DATES`` common as-of dates and saved with the
    artifact of the new space. An existing map is evaluated, not fitted again, since consumers may use it. ``model``: a
    model trained on the old space.

    Cost: a join of the snapshots of both spaces on these dates, for a sample of at most a million rows; with a model,
    also two vector look-ups and predictions.

    Raises
    ------
    UsageError
        If both are the same space or have no common as-of date, or if the model or its labels are missing or unusable.
    """
    if model is not None:
        model.check()
    if old.space_id == new.space_id:
        raise UsageError(f"space {old.space_id} cannot be compared with itself. Name two spaces.")
    as_ofs = common_dates(tables, new, old)[-FITTED_DATES:]
    vector_agreement = _map_agreement(tables, old, new, as_ofs)
    models = []
    if model is not None:
        labels = tables.spark.read.parquet(absolute(model.labels))
        since = max(old.trained_until, new.trained_until)
        loaded = PipelineModel.load(absolute(model.folder))
        models.append(model_loss(loaded, labels, since=since, consumer=model.folder, new=new))
    return SpaceDiff(old.space_id, new.space_id, as_ofs, vector_agreement, models)


def _map_agreement(tables: Tables, old: Space, new: Space, as_ofs: Sequence[date]) -> Agreement:
    """Evaluate the map from ``new`` to ``old`` on held-out users; fit and save it first if there is none."""
    pairs = vector_pairs(tables, new, old, as_ofs).cache()
    try:
        new = find_space(tables, new.space_id)  # the caller may have read the registry before the map was saved
        is_saved = old.space_id in dict(new.maps)
        linear_map = load_map(tables, new, old) if is_saved else fit_map(pairs)
        vector_agreement = agreement(pairs, linear_map)
    finally:
        pairs.unpersist()
    if not is_saved:
        save_map(tables, new, old, linear_map, agreement=asdict(vector_agreement), as_ofs=as_ofs)
        logger.info(f"fitted the map from space {new.space_id} to {old.space_id} on {len(as_ofs)} as-of dates")
    return vector_agreement


def diff_lines(diff: SpaceDiff) -> list[str]:
    """Format a comparison for the terminal."""
    vectors, dates = diff.agreement, f"{len(diff.as_ofs)} as-of dates up to {diff.as_ofs[-1]}"
    lines = [
        f"{diff.new} mapped into the coordinates of {diff.old}, {vectors.num_rows:,} held-out vectors of {dates}:",
        f"  mean cosine               {vectors.mean_cosine:.4f}",
        f"  residual                  {vectors.residual:.4f} of the variance",
        f"  same ten neighbors        {vectors.overlap_at_10:.1%} (among {vectors.num_neighbours:,} users)",
    ]
    lines += [
        f"model of {m.consumer}, {m.num_labels:,} labels since {m.since}: AUC {m.auc_own:.4f} on {diff.old}, "
        f"{m.auc_mapped:.4f} on {diff.new} mapped, loss {m.auc_loss:+.4f}"
        for m in diff.models
    ]
    return lines


def model_loss(model: PipelineModel, labels: DataFrame, *, since: date, consumer: str, new: Space) -> ModelLoss:
    """Compare the AUC of a saved pipeline on the vectors of its own space and on mapped vectors of ``new``.

    Parameters
    ----------
    model : pipeline with an ``EmbeddingJoin`` and a binary classifier; it is not changed.
    labels : the input columns of the model, and ``label`` (0.0 or 1.0).
    since : labels before this date are ignored.
    consumer : name used in the result and in messages.
    new : space whose vectors are mapped.

    Cost: two passes of the join and the model over the labels.

    Raises
    ------
    UsageError
        If the model has no ``EmbeddingJoin``, there is no map, or the labels do not have both values.
    """
    join = next((stage for stage in model.stages if isinstance(stage, EmbeddingJoin)), None)
    if join is None:
        raise UsageError(f"{consumer}: the model has no EmbeddingJoin stage, so its space is unknown. Add one.")
    labels = labels.where(column(join.getOrDefault(join.timeCol)) >= F.lit(since)).where("label IS NOT NULL")
    label = F.col("label")
    count = labels.agg(
        *(F.count_if(label == value).alias(f"of_{value}") for value in (0, 1)),
        F.count_if(~label.isin(0, 1)).alias("others"), F.first(F.when(~label.isin(0, 1), label), True).alias("example"),
    ).first()  # fmt: skip
    assert count is not None
    if count.others or not (count.of_0 and count.of_1):
        got = f"also {count.example}" if count.others else f"{count.of_0} and {count.of_1} of them"
        raise UsageError(f"{consumer}: labels since {since} must have the values 0.0 and 1.0, got {got}. Add labels.")
    stages = [s.copy().setMappedFrom(new.space_id) if isinstance(s, EmbeddingJoin) else s for s in model.stages]
    evaluator = BinaryClassificationEvaluator(labelCol="label", rawPredictionCol="rawPrediction")
    own, mapped = (float(evaluator.evaluate(m.transform(labels))) for m in (model, PipelineModel(stages)))
    return ModelLoss(consumer, since, count.of_0 + count.of_1, own, mapped, own - mapped)
