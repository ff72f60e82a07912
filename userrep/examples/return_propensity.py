"""Example consumer: predict whether a user has an event in the next days, from frozen embeddings only."""

from dataclasses import dataclass
from datetime import date, timedelta

from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.functions import array_to_vector
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep.config import Config
from userrep.errors import UserrepError
from userrep.failpoints import around
from userrep.features.build import read_features, stored_features
from userrep.features.spec import FeatureSpec
from userrep.joins.embedding_join import EmbeddingJoin
from userrep.joins.options import JoinOptions
from userrep.joins.training_sets import create_training_set, list_training_sets, training_set_id
from userrep.spaces.registry import Space
from userrep.store.tables import Tables
from userrep.tiles.ledger import read_tiles

CONSUMER, OWNER = "return_propensity", "userrep"
INPUTS = ("embedding", "recency", "pooled_averages")


@dataclass(frozen=True)
class LabelDates:
    """As-of dates of training and test labels; each training label ends before the first test label begins."""

    train: list[date]
    test: list[date]

    @property
    def all(self) -> list[date]:
        return sorted([*self.train, *self.test])


@dataclass(frozen=True)
class Outcome:
    """Test AUC of a model on one input; all inputs use the same rows."""

    input: str
    dims: int
    auc: float


def model_folder(tables: Tables, space: Space) -> str:
    """Return the folder of the model trained on a space."""
    return f"{tables.artifacts_root}/artifacts/consumers/{CONSUMER}/{space.space_id}"


def label_dates(*, as_of: date, until: date, first: date, horizon_days: int, num_dates: int) -> LabelDates:
    """Choose label dates ``horizon_days`` apart, starting at ``until``, the end of the space's training data.

    Earlier dates are in-sample: the encoder has seen the events after them. All labels end by ``as_of``, and no date is
    before ``first``. The later half of the dates is for the test, and each half keeps at most its ``num_dates`` latest
    dates. Both lists are empty if the log is too short.
    """
    step = timedelta(days=horizon_days)
    grid = [until + k * step for k in range((as_of - until) // step) if until + k * step >= first]
    num_test = min(num_dates, len(grid) // 2)
    train, test = grid[: len(grid) - num_test][-num_dates:], grid[len(grid) - num_test :]
    return LabelDates(train, test) if test else LabelDates([], [])


def return_labels(tables: Tables, config: Config, users: DataFrame, dates: LabelDates) -> DataFrame:
    """Label each user known at an as-of date: 1 if the user has an event in the following days, else 0.

    Parameters
    ----------
    users : one row per as_of and user_id.

    Returns
    -------
    One row per row of ``users``: user_id, label_date, label_at (as-of date + publish delay), label (1.0: an event at or
    after label_at and before label_date + horizon_days), split (train | test). Cost: one shuffle by user.
    """
    delay, horizon = config.snapshots.publish_delay, config.downstream.horizon_days
    labels = users.select(
        "user_id",
        F.col("as_of").alias("label_date"),
        (F.col("as_of").cast("timestamp") + F.lit(delay)).alias("label_at"),
        F.when(F.col("as_of").isin(dates.test), "test").otherwise("train").alias("split"),
    )
    tiles = read_tiles(tables, start=dates.all[0], end=dates.all[-1] + timedelta(days=horizon))
    active = tiles.groupBy("user_id", "event_date").agg(F.max("last_event_at").alias("last_event_at"))
    label_events = active.select(
        "user_id",
        "last_event_at",
        F.explode(F.array(*(F.date_sub("event_date", k) for k in range(horizon)))).alias("label_date"),
    ).where(F.col("label_date").isin(dates.all))
    last_events = label_events.groupBy("user_id", "label_date").agg(F.max("last_event_at").alias("last_event_at"))
    joined = labels.join(last_events, on=["user_id", "label_date"], how="left")
    has_event = F.coalesce(F.col("last_event_at") >= F.col("label_at"), F.lit(False))
    return joined.select("user_id", "label_date", "label_at", "split", has_event.cast("double").alias("label"))


def train_return_propensity(
    tables: Tables, config: Config, space: Space, dates: LabelDates, *, folder: str
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
    labels = return_labels(tables, config, users, dates)
    options = JoinOptions(missing="drop", vectors="vector")
    joined = create_training_set(labels, tables=tables, name=CONSUMER, space=space, consumer=CONSUMER, options=options)
    (recorded,) = list_training_sets(tables, training_set_id=training_set_id(joined))
    rows = _with_baseline_inputs(joined, tables, config, space, dates).cache()
    try:
        counts = {(r.split, r.label): r["count"] for r in rows.groupBy("split", "label").count().collect()}
        _check_labels(counts, dates)
        num_train = sum(num for (split, _), num in counts.items() if split == "train")
        outcomes = [
            _outcome(rows, name, _join(config, space) if name == "embedding" else None, folder, num_train=num_train)
            for name in INPUTS
        ]
    finally:
        rows.unpersist()
    return (
        outcomes,
        {split: sum(n for (s, _), n in counts.items() if s == split) for split in ("train", "test")},
        recorded.snapshot_ids,
    )


def _with_baseline_inputs(
    joined: DataFrame, tables: Tables, config: Config, space: Space, dates: LabelDates
) -> DataFrame:
    """Add one vector column per baseline to labels with embeddings. Cost: one join by user and date."""
    spec = FeatureSpec.of(config)
    pooled = [block.column for block in spec.pooled if block.window_days == spec.longest]
    features = read_features(tables, config, space.lineage_id, dates.all)
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
                "Choose a later --as-of or another downstream.horizon_days."
            )


def _join(config: Config, space: Space) -> EmbeddingJoin:
    schema = f"{config.catalog}.{config.schema_}" if config.catalog else None
    return EmbeddingJoin(root=config.root, schema=schema, space=space.space_id, missing="drop", vectors="vector")


def _outcome(rows: DataFrame, name: str, join: EmbeddingJoin | None, folder: str, *, num_train: int) -> Outcome:
    """Train and test on one input. With ``join``, the model starts with that join and is saved.

    The L2 penalty is that of a Gaussian prior under which all weights together have a variance of 1: one pseudo-row per
    dimension. It prevents overfitting to few labels and has little effect with many.
    """
    num_dims = len(rows.select(name).first()[0])  # type: ignore[index]
    regression = LogisticRegression(featuresCol=name, labelCol="label", maxIter=50, regParam=num_dims / num_train)
    model = Pipeline(stages=[join, regression] if join else [regression]).fit(rows.where("split = 'train'"))
    if join is not None:
        with around("model:return_propensity"):
            model.write().overwrite().save(folder)
    fitted = model.stages[-1]
    assert isinstance(fitted, LogisticRegressionModel)
    evaluator = BinaryClassificationEvaluator(labelCol="label", rawPredictionCol="rawPrediction")
    auc = float(evaluator.evaluate(model.transform(rows.where("split = 'test'"))))
    return Outcome(name, fitted.numFeatures, auc)
