"""Commands to attack, each with the worlds before and after it; with USERREP_FAULTS=all, a table of the outcomes."""

import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.support.builders import AS_OF
from tests.support.points import points_in
from tests.system.faults.attack import Attack, attack
from tests.system.faults.fault_world import NIGHT, World
from tests.system.faults.reader import ReaderWhileUsersLeave
from tests.system.faults.tally import ALL, SEED, SURVIVED, TRIES, Faults
from userrep.erasure.requests import Erasure
from userrep.spaces import registry
from userrep.spaces.consumers import declare_ready, register_consumer
from userrep.store.file_tables import FileTables
from userrep.store.open import open_tables
from userrep.workflows import daily
from userrep.workflows.jobs import run_job
from userrep.workflows.pipeline import run_pipeline

FORGOTTEN = ["u0000001", "u0000002", "u0000003"]


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture(scope="session")
def pipeline(spark: SparkSession, log: Path, run_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Attack:
    """The whole pipeline on an empty root."""
    folder = tmp_path_factory.mktemp("kills")
    empty, after = World(folder / "empty", log), World(folder / "trained", log)
    shutil.copytree(run_once / "root", after.root)
    return Attack(
        "pipeline",
        f"pipeline --as-of {AS_OF}",
        empty,
        after,
        lambda world: run_pipeline(world.pipeline(spark)),
        points_in(run_once / "points.txt"),
    )


@pytest.fixture(scope="session")
def next_day(spark: SparkSession, trained: World) -> Attack:
    """The pipeline of the day after, on what the first has left."""
    after, command = trained.copy(trained.folder.parent / "next day"), f"pipeline --as-of {NIGHT}"
    return attack(
        "pipeline of the next day", command, trained, after, lambda world: run_pipeline(world.pipeline(spark, NIGHT))
    )


@pytest.fixture(scope="session")
def nightly(spark: SparkSession, trained: World) -> Attack:
    """The daily run after the pipeline."""
    after = trained.copy(trained.folder.parent / "night")
    command = f"daily --as-if-on-time --as-of {NIGHT}"

    def again(world: World) -> None:
        daily.daily(world.pipeline(spark, NIGHT), on_time=True)

    return attack("daily", command, trained, after, again)


@pytest.fixture(scope="session")
def trained(pipeline: Attack) -> World:
    """The world after the pipeline; read-only."""
    return pipeline.after


@pytest.fixture(scope="session")
def consumer(spark: SparkSession, trained: World, tmp_path_factory: pytest.TempPathFactory) -> Attack:
    """The training of the example consumer on the space of the pipeline."""
    after = trained.copy(tmp_path_factory.mktemp("consumer") / "after")

    def again(world: World) -> None:
        run_job(world.pipeline(spark), "train_return_propensity")

    return attack("consumer", f"run train_return_propensity --as-of {AS_OF}", trained, after, again)


@pytest.fixture(scope="session")
def publication(spark: SparkSession, trained: World, tmp_path_factory: pytest.TempPathFactory) -> Attack:
    """The last job of a daily run."""
    folder = tmp_path_factory.mktemp("publication")
    before = trained.copy(folder / "before")
    for job in ("build_activity_tiles", "train_item_vectors", "build_user_features", "embed_users"):
        run_job(before.pipeline(spark, NIGHT), job)

    def again(world: World) -> None:
        run_job(world.pipeline(spark, NIGHT), "publish_snapshot")

    command = f"run publish_snapshot --as-of {NIGHT}"
    return attack("publication", command, before, before.copy(folder / "after"), again)


@pytest.fixture(scope="session")
def erasure(spark: SparkSession, nightly: Attack, tmp_path_factory: pytest.TempPathFactory) -> Attack:
    """The erasure of some users after a daily run."""
    folder = tmp_path_factory.mktemp("erasure")
    ids = folder / "ids.txt"
    ids.write_text("\n".join(FORGOTTEN), encoding="utf-8")

    def again(world: World) -> None:
        Erasure(open_tables(world.config, spark), world.config, FORGOTTEN).run(now=False)

    target = attack("forget", f"forget --users {ids}", nightly.after, nightly.after.copy(folder / "after"), again)
    target.reader = ReaderWhileUsersLeave
    return target


@pytest.fixture(scope="session")
def promotion(trained: World, tmp_path_factory: pytest.TempPathFactory) -> Attack:
    """The promotion of a second space that is ready to serve."""
    folder = tmp_path_factory.mktemp("promotion")
    before = _with_a_second_space(trained.copy(folder / "before"))
    return attack("promote", "spaces promote s002", before, before.copy(folder / "after"), _promote)


@pytest.fixture(scope="session")
def rollback(promotion: Attack, tmp_path_factory: pytest.TempPathFactory) -> Attack:
    """The rollback of that promotion."""
    folder = tmp_path_factory.mktemp("rollback")
    before = promotion.before.copy(folder / "before")
    _promote(before)
    return attack("rollback", "spaces rollback", before, before.copy(folder / "after"), _roll_back)


def _with_a_second_space(world: World) -> World:
    """Register another space that is ready to serve, and a consumer that is ready for it."""
    tables = FileTables(None, str(world.root))
    first = registry.find_space(tables, None)
    registry.add_candidate(
        tables, space_id="s002", lineage_id=first.lineage_id, trained_until=first.trained_until, content_hash="none"
    )
    registry.mark_ready(tables, registry.find_space(tables, "s002"))
    register_consumer(tables, "ads", owner="o")
    declare_ready(tables, "ads", "s002")
    return world


def _promote(world: World) -> None:
    tables = FileTables(None, str(world.root))
    registry.promote(tables, registry.find_space(tables, "s002"))


def _roll_back(world: World) -> None:
    registry.rollback(FileTables(None, str(world.root)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tries and how many of them the commands survived."""
    if ALL and TRIES:
        terminalreporter.write_line(f"\nseed {SEED}\n{'fault':<58}{'tries':>6}{'survived':>10}")
        for fault, num in TRIES.items():
            terminalreporter.write_line(f"{fault:<58}{num:>6}{SURVIVED[fault]:>10}")
