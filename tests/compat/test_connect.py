"""Joins and encoding under Spark Connect, in a time zone that is not UTC: the rows of pandas and the bits of snapshots.

The process starts its own server, so it needs the packages of ``pyspark[connect]``.
"""

import json
import os
import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import userrep
from tests.support.embedding_tables import add_spaces, publish, snapshot
from tests.unit.inference.test_model import features, saved
from userrep.spaces.registry import artifact_folder, find_space, mark_ready, promote
from userrep.store.file_tables import FileTables

pytest.importorskip("grpc", reason="the packages of pyspark[connect] are not installed")
pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
DAY, NUM_USERS = date(2024, 5, 1), 10
CODE = """
import json, os, sys
import userrep
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from tests.compat.test_connect import DAY
from tests.support.builders import SPARK
from tests.support.embedding_tables import add_spaces, publish, snapshot
from userrep.spark.session import jars_folder
from userrep.store.spark_tables import SparkTables

root, artifact = sys.argv[1:]
settings = SPARK | {
    "spark.jars": ",".join(map(str, jars_folder().glob("*.jar"))),
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.ui.enabled": "false",
}
spark = SparkSession.builder.remote("local[2]").config(map=settings).getOrCreate()
labels = spark.read.parquet(f"{root}/labels.parquet")

def found(rows):
    columns = rows.select("n", "embedding_status", F.col("embedding").cast("array<double>"))
    return sorted(tuple(row) for row in columns.collect())

embeddings = userrep.open(root, spark=spark)
userrep.EmbeddingJoin(root=root, vectors="array", handleInvalid="keep").save(f"{root}/stage")
made = embeddings.training_set("connect", labels)
embedding = userrep.embedding_udf(artifact)
features = spark.read.parquet(f"{root}/features.parquet")
told = {
    "session": [type(spark).__module__, spark.conf.get("spark.sql.session.timeZone")],
    "join": found(embeddings.join(labels)),
    "stage": found(userrep.EmbeddingJoin.load(f"{root}/stage").transform(labels)),
    "training set": found(made),
    "udf": features.select("n", embedding(F.struct("*"))).collect(),
    "latest": embeddings.latest().count(),
}
with_label = labels.withColumn("label", F.col("n") % 2.0)
pipeline = Pipeline(stages=[userrep.EmbeddingJoin(root=root), LogisticRegression(featuresCol="embedding", maxIter=2)])
told["pipeline"] = pipeline.fit(with_label).transform(with_label).count()

spark.sql(f"CREATE SCHEMA lake LOCATION '{root}/lake'")
tables = SparkTables(spark, schema="`spark_catalog`.`lake`", artifacts=root)
add_spaces(tables, "s001-a")
publish(tables, {snapshot(DAY): {"u0": [0.5]}})
lake = userrep.open("spark_catalog.lake", spark=spark)
told["catalog"] = found(lake.join(labels, space="s001-a"))
told["available"] = str(lake.snapshots("s001-a")[0].available_at)
print(json.dumps(told), flush=True)
os._exit(0)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a root whose snapshot has the vectors of ten users, with their features and with labels as files."""
    content_hash = saved(tmp_path, space_id="s001-a", is_space=True).content_hash
    tables = FileTables(None, str(tmp_path))
    add_spaces(tables, "s001-a", content_hash=content_hash)
    table = pa.Table.from_batches([features(NUM_USERS)])
    z_ND = userrep.EmbeddingModel.load(artifact_of(tmp_path)).predict(table.to_pandas())
    publish(tables, {snapshot(DAY, dim=16): {f"u{k}": z_D.tolist() for k, z_D in enumerate(z_ND)}})
    mark_ready(tables, find_space(tables, "s001-a"))
    promote(tables, find_space(tables, "s001-a"))
    pq.write_table(table.append_column("n", [list(range(NUM_USERS))]), tmp_path / "features.parquet")
    times = [datetime(2024, 5, 1) + timedelta(hours=3 * k) for k in range(12)]
    labels = {
        "n": range(12),
        "user_id": [f"u{k}" for k in range(12)],
        "label_at": pa.array(times, pa.timestamp("us", "UTC")),
    }
    pq.write_table(pa.table(labels), tmp_path / "labels.parquet")
    return tmp_path


def artifact_of(root: Path) -> str:
    tables = FileTables(None, str(root))
    return artifact_folder(tables, find_space(tables, "s001-a"))


def test_joins_and_the_udf_give_under_connect_what_they_give_without_spark(root: Path) -> None:
    labels = pd.read_parquet(root / "labels.parquet")
    joined = userrep.open(root).join(labels)
    wanted = [
        [n, status, None if z_D is None else z_D.tolist()]
        for n, status, z_D in joined[["n", "embedding_status", "embedding"]].itertuples(index=False)
    ]
    told = told_by_connect(root)
    assert told["session"] == ["pyspark.sql.connect.session", "Europe/Berlin"]
    assert {status for _, status, _ in wanted} == {"no_snapshot_yet", "found", "not_in_snapshot"}
    assert told["join"] == told["stage"] == told["training set"] == wanted
    vectors = userrep.open(root).lookup([f"u{n}" for n, _ in told["udf"]])["embedding"]
    assert [z_D for _, z_D in told["udf"]] == [z_D.tolist() for z_D in vectors]
    assert (told["latest"], told["pipeline"]) == (NUM_USERS, sum(status == "found" for _, status, _ in wanted))
    assert told["available"] == "2024-05-01 06:00:00"
    assert [status for _, status, _ in told["catalog"]] == ["no_snapshot_yet"] * 2 + ["not_in_snapshot"] * 10


def told_by_connect(root: Path) -> dict[str, Any]:
    """Run the code above in a process in Berlin, whose Spark session is therefore in that time zone, too."""
    variables = {"TZ": "Europe/Berlin", "SPARK_TESTING": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, str(root), artifact_of(root)],
        cwd=root, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])  # type: ignore[no-any-return]
