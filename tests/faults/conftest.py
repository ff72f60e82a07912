"""A few faults, drawn by chance; with USERREP_FAULTS=all each of them, and a table at the end."""

import pytest
from pyspark.sql import SparkSession

from tests.faults.attack import Attack, attack
from tests.faults.fault_world import LOG, NIGHT, World
from tests.faults.tally import ALL, SEED, SURVIVED, TRIES, Faults
from userrep import daily
from userrep.events.generator import generate_log


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture(scope="session")
def pipeline(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Attack, World]:
    """The whole pipeline, from nothing, and the world after it."""
    folder = tmp_path_factory.mktemp("kills")
    generate_log(spark, LOG, str(folder / "log"))
    empty, after = World(folder / "empty", folder / "log"), World(folder / "trained", folder / "log")
    command = "pipeline --as-of 2024-02-05"
    return attack("pipeline", command, empty, after, lambda world: world.pipeline(spark).run()), after


@pytest.fixture(scope="session")
def nightly(spark: SparkSession, pipeline: tuple[Attack, World]) -> tuple[Attack, World]:
    """The night after it."""
    _, before = pipeline
    after = before.copy(before.folder.parent / "night")
    command = f"daily --as-if-on-time --as-of {NIGHT}"

    def again(world: World) -> None:
        daily.daily(world.pipeline(spark, NIGHT), on_time=True)

    return attack("daily", command, before, after, again), after


@pytest.fixture(scope="session")
def trained(pipeline: tuple[Attack, World]) -> World:
    """The world after the pipeline; not to be changed."""
    return pipeline[1]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was attacked and what survived."""
    if ALL and TRIES:
        terminalreporter.write_line(f"\nseed {SEED}\n{'fault':<58}{'tries':>6}{'survived':>10}")
        for fault, num in TRIES.items():
            terminalreporter.write_line(f"{fault:<58}{num:>6}{SURVIVED[fault]:>10}")
