"""The whole system on the installed release of Spark, small: `make compat-test` runs this on each supported one.

USERREP_COMPAT_RECORD names a file for versions, and for digests that must be equal on all releases.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

import userrep
from tests.support.streaming_world import DAY, SMALL, World, active_users, arrive, events_between
from tests.unit.training.test_training import losses_of, task_on
from userrep.spark.releases import SERIES
from userrep.synthetic.generator import LogSpec, generate_log
from userrep.training.launch.backends import run_training
from userrep.workflows.export import export_features
from userrep.workflows.pipeline import run_pipeline

pytestmark = pytest.mark.full

SPEC = LogSpec(num_users=300, num_items=60, first_day=date(2024, 1, 1), num_days=40, events_per_user_day=1.0, seed=7)
AS_OF = date(2024, 2, 6)
PACKAGES = ("pyspark", "delta-spark", "torch", "pyarrow", "numpy", "pandas", "deltalake", "scikit-learn")


@pytest.fixture(scope="module")
def record() -> Iterator[dict[str, Any]]:
    """Facts of this run, written at its end if the environment names a file."""
    facts: dict[str, Any] = {"spark": SERIES, "python": platform.python_version(), "equal": {}, "ranks": []}
    facts["packages"] = {name: importlib.metadata.version(name) for name in PACKAGES}
    yield facts
    if path := os.environ.get("USERREP_COMPAT_RECORD"):
        Path(path).write_text(json.dumps(facts, indent=1))


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A pipeline on a generated log; its daily run and its stream. Vectors of items are given, and fitted by ALS."""
    folder = tmp_path_factory.mktemp("world")
    generate_log(spark, SPEC, str(folder / "log"))
    items = pq.read_table(folder / "log" / "items", columns=["item_id"]).sort_by("item_id")
    items = items.replace_schema_metadata()  # where Spark has recorded the columns of its own file
    vectors = np.random.default_rng(0).integers(-(2**15), 2**15, (len(items), 8)) / 2**16
    (folder / "log" / "given").mkdir()
    given = items.append_column("vector", pa.array(list(vectors.astype(np.float32)), pa.list_(pa.float32())))
    pq.write_table(given, folder / "log" / "given" / "part-0.parquet")
    sections = SMALL | {
        "items": {"path": f"{folder}/log/given", "columns": {"item_id": "item_id", "vector": "vector"}},
        "item_vectors": {
            "given": {"kind": "vector", "dim": 8},
            "behaviour": SMALL["item_vectors"]["behaviour"],
        },
        "model": {"latent_dim": 16},
    }
    stream = {"events": {"path": str(folder / "arriving")}}
    world = World(spark, folder / "log", None, folder, stream, sections)
    run_pipeline(world.work(AS_OF))
    return world


def digest(table: pa.Table) -> str:
    """Return a hash of the rows, in order, with all bits of their numbers."""
    return hashlib.sha256(json.dumps(table.to_pylist(), default=str).encode()).hexdigest()[:16]


def test_features_of_given_item_vectors_are_the_same_in_a_daily_run_and_a_stream(
    world: World, record: dict[str, Any], tmp_path: Path
) -> None:
    rows = events_between(world.spark, world.log, AS_OF - 2 * DAY, AS_OF + DAY)
    arrive(world.folder / "arriving", rows[::2], "0.parquet")
    arrive(world.folder / "arriving", rows[1::2] + rows[::9], "1.parquet")
    world.stream()
    world.close(AS_OF)
    next_date = AS_OF + DAY
    assert active_users(rows, AS_OF) <= world.streamed(next_date).keys()
    assert world.differing(next_date) == set()
    assert world.agreement(next_date).is_equal
    export_features(world.tables, world.config, next_date, str(tmp_path / "features"))
    features = pq.read_table(tmp_path / "features").sort_by("user_id")
    assert len(features) > 250
    fitted = [name for name in features.column_names if "behaviour" in name]
    assert fitted
    record["equal"]["log"] = digest(pa.Table.from_pylist(sorted(rows, key=lambda row: json.dumps(row, default=str))))
    record["equal"]["features"] = digest(features.drop_columns(fitted))


def test_a_join_by_spark_and_without_it_gives_the_same_vectors(world: World) -> None:
    users = [row["user_id"] for row in pq.read_table(world.folder / "log" / "users", columns=["user_id"]).to_pylist()]
    times = pd.Timestamp(AS_OF) + pd.to_timedelta(np.arange(len(users)) % 48 - 24, "h")
    labels = pd.DataFrame({"user_id": [*users[:-2], None, "unknown"], "label_at": times, "n": range(len(users))})
    in_pandas = userrep.open(str(world.config.root)).join(labels)
    in_spark = userrep.open(str(world.config.root), spark=world.spark).join(world.spark.createDataFrame(labels))
    joined = in_spark.toPandas().sort_values("n").reset_index(drop=True)
    assert in_pandas.embedding_status.value_counts()["found"] > 50
    assert joined.embedding_status.tolist() == in_pandas.embedding_status.tolist()
    for one, other in zip(joined.embedding, in_pandas.embedding, strict=True):
        assert (one is None and other is None) or np.array_equal(np.asarray(one, np.float32), other)


def test_the_ml_stage_joins_labels(world: World) -> None:
    labels = world.spark.sql(f"SELECT user_id, TIMESTAMP'{AS_OF + DAY} 12:00:00' AS label_at FROM {{log}}", log=(
        world.spark.read.parquet(f"{world.log}/users").limit(50)
    ))  # fmt: skip
    stage = userrep.EmbeddingJoin(root=str(world.config.root))
    assert 0 < stage.transform(labels).where("embedding IS NOT NULL").count() <= 50


@pytest.mark.parametrize("backend", ["torch_distributor", "horovod"])
def test_two_ranks_end_with_the_losses_of_one_process(
    spark: SparkSession, tmp_path: Path, record: dict[str, Any], backend: str
) -> None:
    if backend == "horovod" and find_spec("horovod") is None:
        pytest.skip("Horovod is not built for this environment")
    settings = {"max_epochs": 3, "patience": 3}
    alone = losses_of(run_training(task_on(tmp_path / "one", **settings)))
    task = task_on(tmp_path / "two", backend=backend, num_workers=2, **settings)
    assert losses_of(run_training(task, spark=spark)) == pytest.approx(alone, rel=1e-4)
    record["ranks"].append(backend)
