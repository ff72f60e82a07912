"""Training of the example consumer, its results, and what it loses on mapped vectors of a newer space."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial

from pyspark import inheritable_thread_target
from pyspark.ml import Pipeline as SparkPipeline
from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.functions import array_to_vector
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from return_propensity.labels import HORIZON_DAYS, NUM_DATES, LabelDates, label_dates, return_labels
from userrep.config import Config
from userrep.errors import UserrepError
from userrep.failpoints import around
from userrep.features.build import read_features, stored_features
from userrep.features.spec import FeatureSpec
from userrep.ids import short_hash
from userrep.joins.embedding_join import EmbeddingJoin
from userrep.joins.options import JoinOptions
from userrep.joins.training_sets import create_training_set, list_training_sets, training_set_id
from userrep.spaces.consumers import declare_ready, register_consumer
from userrep.spaces.mapping import common_dates
from userrep.spaces.registry import READY, SERVING, Space, read_registry
from userrep.spaces.snapshots import list_snapshots
from userrep.store.filesystem import exists
from userrep.store.schemas import CONSUMER_RESULTS, SNAPSHOTS, TILE_DAYS
from userrep.store.tables import Tables
from userrep.tiles.ledger import days_fingerprint
from userrep.utc import utc_now
from userrep.workflows.run_context import RunContext
from userrep.workflows.space_diff import ModelLoss, model_loss

CONSUMER, OWNER = "return_propensity", "userrep"
INPUTS = ("embedding", "recency", "pooled_averages")
_ROWS_PER_TASK = 50_000  # each iteration of a fit is a Spark job, whose start would cost more than its work on fewer


@dataclass(frozen=True)
class Outcome:
    """Test AUC of a model on one input; all inputs use the same rows."""

    input: str
    dims: int
    auc: float


def model_folder(tables: Tables, space: Space) -> str:
    """Return the folder of the model trained on a space."""
    return f"{tables.artifacts_root}/artifacts/consumers/{CONSUMER}/{space.space_id}"


def train_return_propensity(work: RunContext) -> list[Outcome]:
    """Train on the published snapshots of the serving space, or of a new one; write ``consumer_results``.

    Like any consumer, it registers itself and declares itself ready for the space once its model is saved. Returns the
    outcomes, the embedding first; none if there are no labels yet.
    """
    tables, space = work.tables, _space(work)
    published = {s.as_of: s.snapshot_id for s in list_snapshots(tables, space.space_id)}
    dates = label_dates(published, until=space.trained_until, as_of=work.schedule.as_of)
    with work.runs.stage("train_return_propensity", [SNAPSHOTS, TILE_DAYS]) as run:
        if not dates.test:
            run.skip(
                f"no labels yet: needs snapshots of two dates from {space.trained_until} on, at least {HORIZON_DAYS} "
                "days apart, the later one at least as long before the as-of date"
            )
            return []
        register_consumer(tables, CONSUMER, owner=OWNER)
        label_end = dates.all[-1] + timedelta(days=HORIZON_DAYS)
        inputs_hash = short_hash([
            space.content_hash, [published[day] for day in dates.all], HORIZON_DAYS,
            str(work.config.snapshots.publish_delay),
            days_fingerprint(work.tiles.latest, start=dates.all[0], end=label_end),
        ])  # fmt: skip
        outcomes = [Outcome(r.input, r.dims, r.auc) for r in tables.ledger(CONSUMER_RESULTS, inputs_hash=inputs_hash)]
        if outcomes:
            outcomes.sort(key=lambda outcome: INPUTS.index(outcome.input))
            run.skip(f"space {space.space_id}, {len(dates.all)} snapshots; test AUC {_aucs(outcomes)}")
        else:
            outcomes, counts, ids = train_models(tables, work.config, space, dates)
            common = {
                "consumer": CONSUMER, "space_id": space.space_id, "inputs_hash": inputs_hash,
                "num_train": counts["train"], "num_test": counts["test"], "snapshot_ids": ids, "trained_at": utc_now(),
            }  # fmt: skip
            tables.add(CONSUMER_RESULTS, [vars(outcome) | common for outcome in outcomes])
            run.num_rows = sum(counts.values())
            run.reason = f"space {space.space_id}; test AUC {_aucs(outcomes)}"
        run.outputs = {"auc": {o.input: o.auc for o in outcomes}, "model": model_folder(tables, space)}
        declare_ready(tables, CONSUMER, space.space_id)
    return outcomes


def _aucs(outcomes: list[Outcome]) -> str:
    return ", ".join(f"{outcome.input} {outcome.auc:.4f}" for outcome in outcomes)


def _space(work: RunContext) -> Space:
    """Return the newest space if it is ready and has never served, else the serving space.

    So the model for a new space is ready before the space is promoted.
    """
    spaces = [s for s in read_registry(work.tables).spaces if s.lineage_id == work.schedule.lineage_id]
    if spaces and spaces[-1].state == READY and spaces[-1].last_turn == 0:
        return spaces[-1]
    serving = [space for space in spaces if space.state == SERVING]  # the schedule may be older than its promotion
    return serving[0] if serving else work.schedule.space_to_use()


def train_models(
    tables: Tables, config: Config, space: Space, dates: LabelDates
) -> tuple[list[Outcome], dict[str, int], list[str]]:
    """Train a model on embeddings and on two baselines, with the same rows and snapshots; save the first.

    The rows are a recorded training set, which protects its snapshots from expiry. The saved pipeline joins labels with
    embeddings itself and works for this space only. The baselines, recency and the pooled averages of the longest
    window, are features of the resolved snapshot's date.

    Returns
    -------
    Outcomes (embedding first), the number of rows per split, and the snapshot ids of the rows.

    Raises
    ------
    UserrepError
        If a split has labels of only one class.
    """
    users = stored_features(tables, config, space.lineage_id, dates.all).select("as_of", "user_id")
    labels = return_labels(tables, users, dates, publish_delay=config.snapshots.publish_delay)
    options = JoinOptions(handle_invalid="skip", vectors="vector")
    joined = create_training_set(labels, tables=tables, name=CONSUMER, space=space, consumer=CONSUMER, options=options)
    (recorded,) = list_training_sets(tables, training_set_id=training_set_id(joined))
    used = [s.as_of for s in list_snapshots(tables, space.space_id) if s.snapshot_id in recorded.snapshot_ids]
    rows, folder = _with_baseline_inputs(joined, tables, config, space, used).cache(), model_folder(tables, space)
    try:
        counts = {(r.split, r.label): r["count"] for r in rows.groupBy("split", "label").count().collect()}
        _check_labels(counts, dates)
        num_train = sum(num for (split, _), num in counts.items() if split == "train")
        in_thread = inheritable_thread_target(rows.sparkSession)
        fit = in_thread(partial(_outcome, rows, folder=folder, num_train=num_train))
        joins = [_join(config, space) if name == "embedding" else None for name in INPUTS]
        with ThreadPoolExecutor(len(INPUTS)) as pool:  # each fit is a sequence of small jobs
            outcomes = list(pool.map(fit, INPUTS, joins))
    finally:
        rows.unpersist()
    return (
        outcomes,
        {split: sum(n for (s, _), n in counts.items() if s == split) for split in ("train", "test")},
        recorded.snapshot_ids,
    )


def _with_baseline_inputs(
    joined: DataFrame, tables: Tables, config: Config, space: Space, as_ofs: Sequence[date]
) -> DataFrame:
    """Add one vector column per baseline to labels with embeddings of these dates. Cost: one join by user and date."""
    spec = FeatureSpec.of(config)
    pooled = [block.column for block in spec.pooled if block.window_days == spec.longest]
    features = read_features(tables, config, space.lineage_id, as_ofs)
    inputs = features.select("as_of", "user_id", "days_since_last_event", *pooled)
    return joined.join(inputs, on=["as_of", "user_id"], how="inner").select(
        "label", "split", "snapshot_id", "embedding",
        array_to_vector(_recency("days_since_last_event")).alias("recency"),
        array_to_vector(F.concat(*pooled)).alias("pooled_averages"),
    )  # fmt: skip


def _recency(column: str) -> Column:
    days = F.col(column)
    return F.array(F.log1p(F.coalesce(days, F.lit(0.0))), days.isNull().cast("double"))


def _check_labels(counts: dict[tuple[str, float], int], dates: LabelDates) -> None:
    for split, days in (("train", dates.train), ("test", dates.test)):
        if any(not counts.get((split, label)) for label in (0.0, 1.0)):
            raise UserrepError(
                f"{CONSUMER}: the {split} labels of {days[0]} to {days[-1]} are all of one class. "
                "Choose a later --as-of."
            )


def _join(config: Config, space: Space) -> EmbeddingJoin:
    schema = f"{config.catalog}.{config.schema_}" if config.catalog else None
    return EmbeddingJoin(root=config.root, schema=schema, space=space.space_id)


def _outcome(rows: DataFrame, name: str, join: EmbeddingJoin | None, *, folder: str, num_train: int) -> Outcome:
    """Train and test on one input. With ``join``, the model starts with that join and is saved.

    The L2 penalty is that of a Gaussian prior under which all weights together have a variance of 1: one pseudo-row per
    dimension. It prevents overfitting to few labels and has little effect with many.
    """
    num_dims = len(rows.select(name).first()[0])  # type: ignore[index]
    regression = LogisticRegression(
        featuresCol=name, labelCol="label", maxIter=50, tol=1e-4, regParam=num_dims / num_train
    )
    rows = rows.coalesce(-(-num_train // _ROWS_PER_TASK))
    model = SparkPipeline(stages=[join, regression] if join else [regression]).fit(rows.where("split = 'train'"))
    if join is not None:
        with around("model:return_propensity"):
            model.write().overwrite().save(folder)
    fitted = model.stages[-1]
    assert isinstance(fitted, LogisticRegressionModel)
    evaluator = BinaryClassificationEvaluator(labelCol="label", rawPredictionCol="rawPrediction")
    auc = float(evaluator.evaluate(model.transform(rows.where("split = 'test'"))))
    return Outcome(name, fitted.numFeatures, auc)


def loss_if_mapped(tables: Tables, config: Config, old: Space, new: Space) -> ModelLoss:
    """Evaluate the model of an old space on mapped vectors of a new one, for dates after the training of both.

    Raises
    ------
    UserrepError
        If no date of both spaces has labels, or the old space has no model.
    """
    last_day = max(row.event_date for row in tables.ledger(TILE_DAYS, ("event_date",)) if row.event_date)
    last_label_date = last_day + timedelta(days=1 - HORIZON_DAYS)
    since = max(old.trained_until, new.trained_until)
    dates = [day for day in common_dates(tables, new, old) if since <= day <= last_label_date][-NUM_DATES:]
    folder = model_folder(tables, old)
    if not dates or not exists(folder):
        missing = f"no model at {folder}" if dates else f"no common date from {since} to {last_label_date}"
        raise UserrepError(f"{CONSUMER}: cannot compare spaces {old.space_id} and {new.space_id}: {missing}.")
    users = stored_features(tables, config, old.lineage_id, dates).select("as_of", "user_id")
    delay = config.snapshots.publish_delay
    labels = return_labels(tables, users, LabelDates([], dates), publish_delay=delay).cache()
    try:
        model = PipelineModel.load(folder)
        return model_loss(model, labels, since=since, consumer=CONSUMER, new=new)
    finally:
        labels.unpersist()
