"""Shared fixtures: one Spark session per process, and a pipeline that ran once for all processes."""

# Fixtures import what they need, so that fast tests start without Spark and torch.
from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

SPARK_CONF = "USERREP_TESTS_SPARK_CONF"  # environment variable: more settings of the session, as JSON

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.support.streaming_world import NewWorld, World
    from userrep.config import Config
    from userrep.workflows.run_context import RunContext


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    from tests.support.builders import SPARK
    from userrep.spark.session import get_session

    more = json.loads(os.environ.get(SPARK_CONF, "{}"))
    session = get_session(master="local[2]", conf=SPARK | more, app_name="tests")
    yield session
    session.stop()


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep scikit-learn from starting a process to count cores."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


@pytest.fixture
def shuffle_into(spark: SparkSession) -> Iterator[Callable[[int], None]]:
    """Return a function that sets the number of shuffle partitions for one test; the default is one."""
    number, coalesce = "spark.sql.shuffle.partitions", "spark.sql.adaptive.coalescePartitions.enabled"
    before = {key: spark.conf.get(key) or "" for key in (number, coalesce)}

    def shuffle(partitions: int) -> None:
        spark.conf.set(number, partitions)
        spark.conf.set(coalesce, "false")

    yield shuffle
    for key, value in before.items():
        spark.conf.set(key, value)


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated log of 80 days; read-only."""
    from tests.support.builders import SPEC
    from userrep.synthetic.generator import generate_small_log

    return build_once(tmp_path_factory, "log", lambda folder: generate_small_log(SPEC, str(folder)))


@pytest.fixture(scope="session")
def run_once(spark: SparkSession, log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the root of a pipeline on the generated log, and a list of the failpoints passed; read-only."""
    from tests.support.builders import AS_OF, pipeline_config
    from tests.support.points import noted
    from userrep.workflows.pipeline import run_pipeline
    from userrep.workflows.run_context import RunContext

    def run(folder: Path) -> None:
        folder.mkdir()
        with noted(folder / "points.txt"):
            run_pipeline(RunContext(pipeline_config(log, folder / "root"), spark, AS_OF))

    return build_once(tmp_path_factory, "pipeline-run", run)


@pytest.fixture(scope="session")
def consumed_once(spark: SparkSession, log: Path, run_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of that run, on which the example consumer has been trained; read-only."""
    from return_propensity.training import train_return_propensity
    from tests.support.builders import AS_OF, pipeline_config
    from userrep.workflows.run_context import RunContext

    def train(root: Path) -> None:
        shutil.copytree(run_once / "root", root)
        train_return_propensity(RunContext(pipeline_config(log, root), spark, AS_OF))

    return build_once(tmp_path_factory, "done", train)


@pytest.fixture(scope="session")
def done(
    spark: SparkSession, log: Path, consumed_once: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunContext, Config]:
    """Tables after a pipeline and the example consumer. A test that changes tables works on a copy."""
    from tests.support.builders import AS_OF, pipeline_config
    from userrep.workflows.run_context import RunContext

    root = shutil.copytree(consumed_once, tmp_path_factory.mktemp("done") / "root")
    config = pipeline_config(log, root)
    return RunContext(config, spark, AS_OF), config


@pytest.fixture(scope="session")
def new_world(
    spark: SparkSession, log: Path, done: tuple[RunContext, Config], tmp_path_factory: pytest.TempPathFactory
) -> NewWorld:
    """Return a function that copies the pipeline's tables for a stream with its own settings and perhaps log."""
    from tests.support.streaming_world import World

    root = done[1].root
    assert root is not None

    def new(folder: Path | None = None, *, own_log: bool = False, **stream: Any) -> World:
        folder = folder or tmp_path_factory.mktemp("world")
        stream_log = shutil.copytree(log, folder / "log") if own_log else log
        return World(spark, stream_log, root, folder, stream)

    return new


def build_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that one of the parallel processes builds while the others wait."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    is_built = folder.with_suffix(".made")
    with FileLock(folder.with_suffix(".lock")):
        if not is_built.exists():
            make(folder)  # in place: a saved model records the root it was trained on
            is_built.touch()
    return folder
