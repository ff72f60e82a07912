"""The join as a Spark ML stage: in pipelines, saved and loaded, on one space for good."""

import gc
import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from pyspark.errors import PySparkException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tests.support.builders import SPARK
from tests.support.embedding_tables import add_spaces, publish, snapshot
from tests.unit.inference.test_model import saved
from userrep.errors import UsageError
from userrep.joins.embedding_join import EmbeddingJoin
from userrep.joins.join import join_embeddings
from userrep.joins.options import JoinOptions
from userrep.joins.training_sets import create_training_set
from userrep.model.artifact import load_artifact
from userrep.spaces.registry import artifact_folder, find_space, mark_ready, promote, retire
from userrep.store.file_tables import FileTables
from userrep.store.tables import Tables

pytestmark = pytest.mark.default

ROOT = Path(__file__).parents[3]
DAY, NOON = date(2024, 5, 1), datetime(2024, 5, 1, 12)
USERS = [f"u{k:02d}" for k in range(40)]


@pytest.fixture
def tables(spark: SparkSession, tmp_path: Path) -> Tables:
    """Return tables of two spaces, the first one serving, whose vectors tell users with odd numbers from others."""
    tables = FileTables(spark, str(tmp_path / "root"))
    add_spaces(tables, "s001-a", "s002-b")
    rng = np.random.default_rng(0)
    for space, sign in (("s001-a", 1.0), ("s002-b", -1.0)):
        vectors = {u: [sign * (2 * (k % 2) - 1 + 0.1 * float(rng.normal())), 0.5] for k, u in enumerate(USERS)}
        publish(tables, {snapshot(DAY, space=space, dim=2): vectors})
        mark_ready(tables, find_space(tables, space))
    promote(tables, find_space(tables, "s001-a"))
    return tables


@pytest.fixture
def labels(spark: SparkSession) -> DataFrame:
    rows = [(u, NOON, float(k % 2)) for k, u in enumerate(USERS)]
    return spark.createDataFrame(rows, "user_id STRING, label_at TIMESTAMP, label DOUBLE").coalesce(1)


def stage(tmp_path: Path, **params: object) -> EmbeddingJoin:
    return EmbeddingJoin(root=str(tmp_path / "root"), vectors="vector", **params)  # type: ignore[arg-type]


def pipeline(tmp_path: Path, **params: object) -> Pipeline:
    return Pipeline(stages=[stage(tmp_path, **params), LogisticRegression(featuresCol="embedding", maxIter=5)])


def num_right(predicted: DataFrame) -> int:
    return predicted.where("prediction = label").count()


def test_a_saved_pipeline_stays_on_the_space_that_it_was_trained_on(
    tables: Tables, labels: DataFrame, tmp_path: Path
) -> None:
    fitted = pipeline(tmp_path).fit(labels)
    fitted.write().save(str(tmp_path / "model"))
    promote(tables, find_space(tables, "s002-b"))
    loaded = PipelineModel.load(str(tmp_path / "model"))
    assert loaded.stages[0].getOrDefault("space") == "serving"
    assert loaded.stages[0].getOrDefault("spaceId") == "s001-a"
    predicted = loaded.transform(labels)
    assert predicted.schema["embedding"].metadata["userrep_space_id"] == "s001-a"
    assert num_right(predicted) == len(USERS)
    new = pipeline(tmp_path).fit(labels)
    assert new.stages[0].getOrDefault("spaceId") == "s002-b"
    retire(tables, find_space(tables, "s001-a"))
    with pytest.raises(UsageError, match=r"s001-a is retired, .*Serving space: s002-b"):
        loaded.transform(labels)


@pytest.mark.full
def test_a_pipeline_is_loaded_and_used_in_a_new_process(tables: Tables, labels: DataFrame, tmp_path: Path) -> None:
    pipeline(tmp_path).fit(labels).write().save(str(tmp_path / "model"))
    labels.write.parquet(str(tmp_path / "labels"))
    promote(tables, find_space(tables, "s002-b"))
    code = f"""
from pyspark.ml import PipelineModel
from userrep.spark.session import get_session
spark = get_session(master="local[1]", conf={SPARK!r})
rows = PipelineModel.load({str(tmp_path / "model")!r}).transform(spark.read.parquet({str(tmp_path / "labels")!r}))
print(rows.where("prediction = label AND snapshot_id LIKE 's001-a-%'").count())
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == str(len(USERS)), ran.stderr[-2000:]


def test_a_fitted_pipeline_takes_rows_joined_already_and_refuses_those_of_another_space(
    tables: Tables, labels: DataFrame, tmp_path: Path
) -> None:
    rows = create_training_set(labels, tables=tables, name="odd", space="s002-b")
    fitted = pipeline(tmp_path).fit(rows)  # follows what serves, but was trained on this
    assert fitted.stages[0].getOrDefault("spaceId") == "s002-b"
    assert num_right(fitted.transform(rows)) == num_right(fitted.transform(labels)) == len(USERS)
    other = join_embeddings(labels, tables=tables, space="s001-a", options=JoinOptions(vectors="vector"))
    with pytest.raises(UsageError, match=r"'embedding' has vectors of space s001-a, .* use space s002-b\. Join"):
        fitted.transform(other)
    with pytest.raises(UsageError, match="'embedding' already exists, and its metadata names no space"):
        fitted.transform(labels.withColumn("embedding", F.array(F.lit(1.0), F.lit(2.0))))
    with pytest.raises(UsageError, match=r"of space s002-b, .* use space s001-a"):
        pipeline(tmp_path, space="s001-a").fit(rows)
    one = join_embeddings(labels, tables=tables, space="s002-b", options=JoinOptions(vectors="vector"))
    with pytest.raises(
        PySparkException, match=r"of space s002-b and of space s001-a\. Vectors of two spaces cannot be"
    ):
        fitted.transform(one.unionByName(other)).select("prediction").collect()
    back = EmbeddingJoin(vectors="array").transform(one)
    assert back.schema["embedding"].dataType.simpleString() == "array<float>"


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function Pool:pytest.PytestUnraisableExceptionWarning")
def test_all_models_of_a_cross_validation_are_on_one_space(
    tables: Tables, labels: DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def serving(tables: Tables, space_id: str | None) -> object:
        if space_id is None:
            asked.append(space_id)
            space_id = ("s001-a", "s002-b")[len(asked) - 1]  # another one serves each time that it is looked at
        return find_space(tables, space_id)

    monkeypatch.setattr("userrep.joins.embedding_join.find_space", serving)
    estimator = pipeline(tmp_path)
    grid = ParamGridBuilder().addGrid(estimator.getStages()[1].regParam, [0.0, 0.1]).build()
    evaluator = BinaryClassificationEvaluator()
    validator = CrossValidator(
        estimator=estimator, estimatorParamMaps=grid, evaluator=evaluator, numFolds=2, collectSubModels=True
    )
    fitted = validator.fit(labels)
    models = [model for fold in fitted.subModels for model in fold] + [fitted.bestModel]
    assert {model.stages[0].getOrDefault("spaceId") for model in models} == {"s001-a"}
    assert fitted.avgMetrics == [1.0, 1.0]
    gc.collect()  # CrossValidator leaves its pools of threads open
    fitted.bestModel.write().save(str(tmp_path / "best"))
    assert PipelineModel.load(str(tmp_path / "best")).stages[0].getOrDefault("spaceId") == "s001-a"
    again = estimator.getStages()[0].setSpace("serving")
    assert again.transform(labels).schema["embedding"].metadata == {"userrep_space_id": "s002-b"}


def test_a_pipeline_with_defaults_leaves_out_labels_without_a_vector(
    tables: Tables, labels: DataFrame, tmp_path: Path
) -> None:
    unknown = labels.limit(2).withColumn("user_id", F.lit("new"))
    early = labels.limit(1).withColumn("label_at", F.lit(NOON - timedelta(days=9)))
    every = labels.union(unknown).union(early)
    join, regression = (
        EmbeddingJoin(root=str(tmp_path / "root")),
        LogisticRegression(featuresCol="embedding", maxIter=5),
    )
    fitted = Pipeline(stages=[join, regression]).fit(every)
    assert num_right(fitted.transform(every)) == fitted.transform(every).count() == len(USERS)
    joined = EmbeddingJoin(root=str(tmp_path / "root"), handleInvalid="keep").transform(every)
    assert joined.count() == len(USERS) + 3
    assert fitted.transform(joined).count() == len(USERS)  # rows that pass through follow the same rule
    strict = EmbeddingJoin(root=str(tmp_path / "root"), handleInvalid="error")
    for rows in (every, joined):
        with pytest.raises(PySparkException, match=r"a label has no vector \(status n\w+\)\. Set handleInvalid"):
            strict.transform(rows).collect()
    with pytest.raises(UsageError, match="handleInvalid: expected one of error, skip, keep, got 'null'"):
        EmbeddingJoin(root=str(tmp_path / "root"), handleInvalid="null").transform(every)


def test_earlier_names_of_params_keep_working() -> None:
    assert EmbeddingJoin(inputCol="who").options() == EmbeddingJoin(userCol="who").options()
    assert EmbeddingJoin(missing="null").options().handle_invalid == "keep"
    assert EmbeddingJoin(missing="drop").options().skips
    assert EmbeddingJoin(missing="new_user").options().skips
    assert not EmbeddingJoin(missing="new_user", handleInvalid="keep").options().skips


def test_a_copy_may_be_for_another_space(tables: Tables, labels: DataFrame, tmp_path: Path) -> None:
    first = stage(tmp_path)
    assert first.transform(labels).schema["embedding"].metadata == {"userrep_space_id": "s001-a"}
    other = first.copy({first.space: "s002-b"})
    assert other.transform(labels).schema["embedding"].metadata == {"userrep_space_id": "s002-b"}
    assert first.transform(labels).schema["embedding"].metadata == {"userrep_space_id": "s001-a"}


def test_a_stage_must_know_where_the_tables_are(labels: DataFrame, tmp_path: Path) -> None:
    for where, fault in (({}, "the location of the tables is not"), ({"root": "a", "schema": "b.c"}, "both .* are")):
        with pytest.raises(UsageError, match=rf"EmbeddingJoin: {fault} set\. Set either root .* or schema"):
            EmbeddingJoin(**where).transform(labels)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="schema '' is not a valid name"):
        EmbeddingJoin(schema="lake").transform(labels)
    with pytest.raises(UsageError, match="availability: expected one of ledger, as_of, got 'never'"):
        stage(tmp_path, availability="never", inSample="maybe").transform(labels)


def test_pandas_labels_are_referred_to_the_function_that_joins_them(labels: DataFrame, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"expected a Spark DataFrame\. For pandas, use userrep\.open\(ROOT\)\.join\(labels\)\."
    ):
        stage(tmp_path).transform(labels.toPandas())


@pytest.mark.parametrize("kind", ["file", "empty", "missing"])
def test_a_root_without_tables_is_refused_by_its_name(labels: DataFrame, tmp_path: Path, kind: str) -> None:
    root = tmp_path / "typo"
    if kind == "file":
        root.touch()
    elif kind == "empty":
        root.mkdir()
    with pytest.raises(UsageError, match=f"no userrep tables at {root}: check the location"):
        EmbeddingJoin(root=str(root)).transform(labels)


def test_a_new_user_gets_the_vector_of_an_empty_user(spark: SparkSession, tmp_path: Path) -> None:
    content_hash = saved(tmp_path, space_id="s001-a", is_space=True).content_hash
    tables = FileTables(spark, str(tmp_path))
    add_spaces(tables, "s001-a", content_hash=content_hash)
    publish(tables, {snapshot(DAY, dim=16): {"u": [float(k) for k in range(16)]}})
    rows = [("u", NOON), ("new", NOON), ("new", NOON - timedelta(days=9)), (None, NOON)]
    labels = spark.createDataFrame(rows, "user_id STRING, label_at TIMESTAMP")
    keep = {"handleInvalid": "keep", "vectors": "array"}
    found = EmbeddingJoin(root=str(tmp_path), space="s001-a", missing="new_user", **keep).transform(labels).collect()
    by_status = {row.embedding_status: row.embedding for row in found}
    assert set(by_status) == {"found", "new_user", "no_snapshot_yet", "null_user"}
    assert by_status["no_snapshot_yet"] is by_status["null_user"] is None
    artifact = load_artifact(artifact_folder(tables, find_space(tables, "s001-a")), content_hash)
    z_1D = artifact.encoder().encode(torch.from_numpy(artifact.tensors["empty_F"][None]))
    np.testing.assert_allclose(by_status["new_user"], z_1D[0].numpy(), atol=1e-6)
