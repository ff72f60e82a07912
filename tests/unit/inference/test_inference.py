"""One encoder offered three ways: jobs in Arrow, notebooks by a pandas UDF, services in Python; the same to the bit."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyspark.errors import PythonException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tests.unit.features.test_layout import ARROW, LAYOUT, SPEC
from tests.unit.inference.test_model import saved
from userrep.errors import ArtifactError
from userrep.inference.embed import encoded_features
from userrep.inference.encoder import Encoder, worker_encoder
from userrep.inference.model import EmbeddingModel, embedding_udf
from userrep.model.artifact import load_artifact

pytestmark = pytest.mark.default

WIDTHS = {block.column: block.dim for block in SPEC.pooled} | SPEC.shares
COLUMNS = {"as_of": "DATE", "user_id": "STRING", **dict(SPEC.columns())}
BATCHES = (1, 7, 1000)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spaces") / "s1"
    saved(folder, layout=LAYOUT)
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep torch's threads from waiting for each other at every small pass."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def batch_size(spark: SparkSession) -> Iterator[Any]:
    """Set how many rows Spark puts into one Arrow batch."""
    key = "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = spark.conf.get(key)
    yield lambda rows: spark.conf.set(key, rows)
    spark.conf.set(key, before or "10000")


def random_users(num: int, seed: int) -> list[dict[str, Any]]:
    """Draw users with every kind of gap; the first has all columns null."""
    random = np.random.default_rng(seed)

    def value(name: str, kind: str) -> Any:
        if random.random() < 0.15:
            return None
        if kind == "ARRAY<FLOAT>":
            return random.standard_normal(WIDTHS[name]).astype(np.float32).tolist() * (random.random() < 0.8) or (
                [0.0] * WIDTHS[name]
            )
        if kind == "MAP<STRING,BIGINT>":
            keys = random.permutation(["device=phone", "device=web", "device=tv", ""])[: random.integers(0, 5)]
            return {str(key): int(random.integers(0, 2**40)) for key in keys}
        if kind == "STRING":
            return str(random.choice(["de", "fr", "xx", ""]))
        if kind == "BOOLEAN":
            return bool(random.random() < 0.7)
        scale = float(random.choice([0, 1, 1e3, 1e9]))
        return int(random.random() * scale) if kind == "BIGINT" else float(random.standard_normal() * scale)

    users = [{name: value(name, kind) for name, kind in COLUMNS.items() if name != "as_of"} for _ in range(num)]
    users[0] = dict.fromkeys(users[0])
    return [user | {"as_of": None, "user_id": f"u{k:05d}"} for k, user in enumerate(users)]


def as_spark(spark: SparkSession, users: list[dict[str, Any]], partitions: int = 2) -> DataFrame:
    ddl = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    rows = [[user[name] for name in COLUMNS] for user in users]
    return spark.createDataFrame(rows, ddl).repartition(partitions)


def as_arrow(users: list[dict[str, Any]]) -> pa.RecordBatch:
    fields = [(name, pa.date32() if kind == "DATE" else ARROW[kind]) for name, kind in COLUMNS.items()]
    return pa.RecordBatch.from_pylist(
        [{k: list(v.items()) if isinstance(v, dict) else v for k, v in user.items()} for user in users],
        pa.schema(fields),
    )


def by_user(rows: DataFrame) -> np.ndarray:
    return np.array([row.embedding for row in sorted(rows.collect(), key=lambda row: row.user_id)], np.float32)


def expected(space: Path, users: list[dict[str, Any]]) -> np.ndarray:
    return Encoder(load_artifact(str(space))).embed(as_arrow(users))


def same_bits(found_BD: np.ndarray, wanted_BD: np.ndarray) -> bool:
    return np.array_equal(found_BD.view(np.uint32), wanted_BD.view(np.uint32))


def test_jobs_notebooks_and_services_give_the_same_vectors_to_the_bit_whatever_the_batch(
    spark: SparkSession, space: Path, batch_size: Any
) -> None:
    users = random_users(80, seed=1)
    wanted_BD = expected(space, users)
    assert np.isfinite(wanted_BD).all()
    assert len(np.unique(wanted_BD, axis=0)) > 70
    content_hash = load_artifact(str(space)).manifest.content_hash
    features, embedding = as_spark(spark, users), embedding_udf(str(space))
    spark.udf.register("embedding_of", embedding)
    features.createOrReplaceTempView("features_of_users")
    for rows in BATCHES:
        batch_size(rows)
        job = encoded_features(features, partial(worker_encoder, str(space), content_hash))
        frame = features.select("user_id", embedding(F.struct("*")).alias("embedding"))
        sql = spark.sql("SELECT user_id, embedding_of(struct(*)) AS embedding FROM features_of_users")
        for found in (job, frame, sql):
            assert dict(found.dtypes)["embedding"] == "array<float>"
            assert same_bits(by_user(found), wanted_BD)


def test_a_udf_refuses_a_struct_that_lacks_a_column_and_an_artifact_that_is_not_there(
    spark: SparkSession, space: Path
) -> None:
    users = as_spark(spark, random_users(3, 0))
    with pytest.raises(
        PythonException, match=r"users: missing column behaviour_2d, num_events_7d\. Add all feature columns"
    ):
        users.select(embedding_udf(str(space))(F.struct(*users.drop("behaviour_2d", "num_events_7d")))).collect()
    with pytest.raises(ArtifactError, match=r"no-space/manifest\.json: No such file"):
        embedding_udf(str(space.with_name("no-space")))


def test_users_without_a_match_in_a_left_join_are_encoded_as_unknown(spark: SparkSession, space: Path) -> None:
    features = as_spark(spark, random_users(5, 0)).alias("f")
    labels = spark.createDataFrame([("u00001",), ("nobody",)], "id STRING")
    joined = labels.join(features, F.expr("id = f.user_id"), how="left")
    rows = joined.select("id", embedding_udf(str(space))(F.struct("f.*")).alias("embedding")).collect()
    found = {row.id: np.asarray(row.embedding, np.float32) for row in rows}
    assert same_bits(found["nobody"], EmbeddingModel.load(str(space)).predict({}))
    assert not same_bits(found["u00001"], found["nobody"])


def test_a_service_needs_no_spark(space: Path) -> None:
    code = f"""
import sys
for name in ("pyspark", "delta", "deltalake", "py4j", "mlflow", "horovod"):
    sys.modules[name] = None  # an import of it fails
from userrep.inference.model import EmbeddingModel
print(EmbeddingModel.load({str(space)!r}).predict({{"num_events_7d": 3}}).tolist())
"""
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    wanted_D = EmbeddingModel.load(str(space)).predict({"num_events_7d": 3})
    assert ran.stdout.strip() == str(wanted_D.tolist())
