"""What all tests share: one Spark session, and one run of the whole pipeline."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock
from pyspark.sql import SparkSession
from xdist.scheduler import LoadFileScheduling

from tests.builders import AS_OF, SPARK, SPEC, pipeline_config
from userrep.config import Config
from userrep.events.generator import generate_log
from userrep.pipeline import Pipeline
from userrep.session import get_session

_TEMPORARY = "userrep-tests-"


def pytest_configure(config: pytest.Config) -> None:
    """Give programs that tests start a temporary folder that goes at the end, with what they leave when killed.

    A JVM that is killed leaves its copy of every JAR: 117 MB. What pytest keeps of failed tests stays where it was.
    """
    if hasattr(config, "workerinput"):  # a process of pytest-xdist, which has the folder from its parent
        return
    for left in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}[0-9]*-*"):
        if not psutil.pid_exists(int(left.name.split("-")[2])):  # of tests that were killed themselves
            shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"{_TEMPORARY}{os.getpid()}-")
    patch = pytest.MonkeyPatch()
    if "PYTEST_DEBUG_TEMPROOT" not in os.environ:
        patch.setenv("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    patch.setattr(tempfile, "tempdir", folder)
    for name in ("TMPDIR", "SPARK_LOCAL_DIRS"):
        patch.setenv(name, folder)
    patch.setenv("SPARK_SUBMIT_OPTS", f"-Djava.io.tmpdir={folder}", prepend=" ")  # of drivers
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    config.add_cleanup(patch.undo)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Deal files to processes, and as if they were one those that share a cluster, a bucket, or a world to destroy."""

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            shared = (
                folder for folder in ("tests/cluster", "tests/faults", "tests/s3") if nodeid.startswith(f"{folder}/")
            )
            return next(shared, None) or str(super()._split_scope(nodeid))

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    session = get_session(master="local[2]", conf=SPARK, app_name="tests")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def log(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate a log of 80 days; not to be changed."""
    return _made_once(tmp_path_factory, "log", lambda folder: generate_log(spark, SPEC, str(folder)))


@pytest.fixture(scope="session")
def done(spark: SparkSession, log: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Pipeline, Config]:
    """Tables after a run of every stage on the generated log; who changes the tables works on a copy."""

    def run(folder: Path) -> None:
        Pipeline(pipeline_config(log, folder), spark, AS_OF, report=lambda _: None).run()

    root = tmp_path_factory.mktemp("done") / "root"
    shutil.copytree(_made_once(tmp_path_factory, "done", run), root)
    config = pipeline_config(log, root)
    return Pipeline(config, spark, AS_OF, report=lambda _: None), config


def _made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Let one of the processes make a folder, while the others wait for it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    is_made = folder.with_suffix(".made")
    with FileLock(folder.with_suffix(".lock")):
        if not is_made.exists():
            make(folder)  # in its place: a saved model knows the root that it was trained on
            is_made.touch()
    return folder
