"""What all tests share: one Spark session, and one run of the whole pipeline."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from xdist.scheduler import LoadFileScheduling

from tests.builders import AS_OF, SPEC, pipeline_config
from userrep.config import Config
from userrep.events.generator import generate_log
from userrep.pipeline import Pipeline
from userrep.session import get_session


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Deal files to processes, and the tests on the cluster as if they were one file: there is one cluster."""

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/cluster" if nodeid.startswith("tests/cluster/") else str(super()._split_scope(nodeid))

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    session = get_session(
        master="local[2]", conf={"spark.driver.memory": "2g", "spark.sql.shuffle.partitions": "2"}, app_name="tests"
    )
    yield session
    session.stop()


@pytest.fixture(scope="session")
def log(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate a log of 80 days; not to be changed."""
    folder = tmp_path_factory.mktemp("log")
    generate_log(spark, SPEC, str(folder))
    return folder


@pytest.fixture(scope="session")
def done(spark: SparkSession, log: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Pipeline, Config]:
    """Run every stage on the generated log; who changes the tables works on a copy."""
    config = pipeline_config(log, tmp_path_factory.mktemp("root"))
    work = Pipeline(config, spark, AS_OF, report=lambda _: None)
    work.run()
    return work, config
