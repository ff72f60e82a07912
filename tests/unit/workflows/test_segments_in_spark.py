"""Segments and models where Spark takes part: large snapshots give the same segments, and its models are read."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
from pyspark.ml.linalg import Vectors
from pyspark.ml.regression import LinearRegression
from pyspark.sql import SparkSession

from tests.support.explained_world import explained_world
from userrep.joins.embedding_join import EmbeddingJoin
from userrep.sources.tombstones import add_tombstones
from userrep.spaces.consumer_model import read_model
from userrep.store.file_tables import FileTables
from userrep.workflows import export, segments
from userrep.workflows.segments import read_previous, write_segments

pytestmark = pytest.mark.default


def test_spark_assigns_the_same_segments_and_counts_the_same_moves(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = explained_world(tmp_path)
    tables = FileTables(spark, world.tables.location)
    add_tombstones(tables, world.user_ids[:2])

    def run(name: str, *, num_segments: int, previous: str | None = None) -> tuple[dict[str, str], list[object]]:
        before = read_previous(str(tmp_path / previous)) if previous else None
        manifest = write_segments(
            tables, world.config, world.space, world.snapshot, str(tmp_path / name), num_segments=num_segments,
            previous=before,
        )  # fmt: skip
        rows = pq.read_table(tmp_path / name)
        moves = sorted(map(str, manifest.get("moves", [])))
        return dict(zip(rows["user_id"].to_pylist(), rows["segment"].to_pylist(), strict=True)), moves

    run("first", num_segments=4)
    here = run("here", num_segments=5, previous="first")
    for module in (export, segments):
        monkeypatch.setattr(module, "MOST_ROWS_HERE", 0)
    assert run("by spark", num_segments=5, previous="first") == here
    assert len(here[0]) == len(world.user_ids) - 2


def test_models_that_spark_saves_are_read_without_it(spark: SparkSession, tmp_path: Path) -> None:
    x_NF = np.random.default_rng(0).normal(size=(40, 3))
    rows = spark.createDataFrame(
        [(Vectors.dense(x_F), float(x_F[0] + 0.5 * x_F[1] > 0)) for x_F in x_NF], ["embedding", "label"]
    )
    regression = LogisticRegression(featuresCol="embedding", maxIter=5, regParam=0.1)
    fitted = Pipeline(stages=[regression]).fit(rows)
    assert isinstance(fitted.stages[0], LogisticRegressionModel)
    fitted.stages.insert(0, EmbeddingJoin(root=str(tmp_path), space="s001-a"))
    fitted.save(str(tmp_path / "pipeline"))
    model = read_model(str(tmp_path / "pipeline"))
    assert model.weights == fitted.stages[1].coefficients.toArray().tolist()
    assert (model.intercept, model.space_id) == (fitted.stages[1].intercept, "s001-a")
    linear = LinearRegression(featuresCol="embedding", regParam=0.1, elasticNetParam=1.0).fit(rows)  # sparse weights
    linear.save(str(tmp_path / "linear"))
    model = read_model(str(tmp_path / "linear"))
    assert model.weights == linear.coefficients.toArray().tolist()
    assert (model.intercept, model.space_id) == (linear.intercept, None)
