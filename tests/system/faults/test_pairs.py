"""Pairs of commands that change tables, held before a commit until both are there, end as one after the other.

Each command is a process of its own. The first that was held goes on to its end while the other waits, then the other
one does, in both orders. A command that loses ends with exit code 1 and one line, and is run again. ``make pair-test``
runs all pairs on a log in Parquet and on one in JSON, some four hours; ``SHARD=k/n`` every n-th of them, beginning with
the k-th. Other targets run one.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pytest
from pyspark.sql import SparkSession

from tests.support.builders import SPEC
from tests.system.faults.contents import doubled, visible
from tests.system.faults.fault_world import NIGHT, PATIENCE, World
from tests.system.faults.tally import Faults
from userrep.events.generator import generate_log

pytestmark = pytest.mark.full


class Command(NamedTuple):
    """A command line, and the point at which it is held: before the commit that makes its work visible."""

    line: str
    point: str


COMMANDS = {
    "pipeline": Command(f"pipeline --as-of {NIGHT}", "commit:tile_days:before"),
    "daily": Command(f"daily --as-if-on-time --as-of {NIGHT}", "commit:tile_days:before"),
    "backfill": Command(f"backfill --from {NIGHT} --to {NIGHT}", "commit:tile_days:before"),
    "tiles": Command(f"run build_activity_tiles --as-of {NIGHT}", "commit:tile_days:before"),
    "vectors": Command(f"run train_item_vectors --as-of {NIGHT}", "commit:item_index:before"),
    "training": Command(f"run train_autoencoder --as-of {NIGHT}", "commit:registry:before"),
    "forget": Command("forget --users {folder}/ids.txt", "commit:tombstones:before"),
    "maintenance": Command("run maintain_tables", "vacuum:user_item_days:before"),
}
CASES = [(log, pair) for log in ("parquet", "json") for pair in combinations(COMMANDS, 2)]


def chosen() -> list[tuple[str, tuple[str, str]]]:
    """Return the cases of this shard, by the variable SHARD; one without it."""
    if "SHARD" not in os.environ:
        return [("parquet", ("pipeline", "tiles"))]
    first, _, step = os.environ["SHARD"].partition("/")
    return CASES[int(first) - 1 :: int(step)]


class Held:
    """A command that waits at its point until it may go on."""

    def __init__(self, world: World, name: str) -> None:
        self.name, command = name, COMMANDS[name]
        self.folder = world.folder / f"held {name}"
        self.folder.mkdir()
        line = command.line.format(folder=world.folder)
        self.process = world.start(line, USERREP_FAILPOINT_HOLD=f"{command.point}={self.folder}")
        until = time.monotonic() + PATIENCE
        while not (self.folder / "held").exists() and self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)

    @property
    def is_held(self) -> bool:
        return self.process.poll() is None

    def goes_on(self) -> tuple[int, str]:
        """Let it go on to its end; return its exit code and what it said."""
        (self.folder / "go").touch()
        try:
            said = self.process.communicate(timeout=PATIENCE)[1]
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        return self.process.returncode, said


@pytest.fixture(scope="module")
def before(
    request: pytest.FixtureRequest, spark: SparkSession, trained: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A world after a pipeline, whose log is in Parquet or in JSON (whose tiles Spark makes)."""
    if request.param == "parquet":
        return trained
    folder = tmp_path_factory.mktemp("json")
    generate_log(spark, SPEC, str(folder / "log"))
    events = spark.read.parquet(str(folder / "log" / "events")).drop("ingest_date")
    events.coalesce(1).write.json(str(folder / "log" / "events-json"))
    world = World(folder / "trained", folder / "log", events_format="json")
    world.pipeline(spark).run()
    return world


def prepared(before: World, folder: Path) -> World:
    world = before.copy(folder)
    (folder / "ids.txt").write_text("u0000001\nu0000002", encoding="utf-8")
    return world


def run_to_its_end(world: World, name: str) -> None:
    code, said = world.ends(COMMANDS[name].line.format(folder=world.folder))
    assert code == 0, said[-2000:]


@pytest.mark.parametrize(("before", "pair"), chosen(), indirect=["before"], ids=str)
def test_two_commands_at_once_end_as_one_after_the_other(
    before: World, faults: Faults, tmp_path: Path, pair: tuple[str, str]
) -> None:

    @cache
    def in_turn(order: tuple[str, str]) -> dict[str, tuple[int, str]]:
        world = prepared(before, tmp_path / f"{order[0]} then {order[1]}")
        for name in order:
            run_to_its_end(world, name)
        return visible(world.root)

    for order in (pair, pair[::-1]):
        world = prepared(before, tmp_path / f"{order[0]} goes on first")
        held = {name: Held(world, name) for name in order}
        met = all(one.is_held for one in held.values())
        ended = {name: held[name].goes_on() for name in order}
        for name, (code, said) in ended.items():
            assert code in (0, 1), said[-2000:]
            if code:
                assert len([line for line in said.splitlines() if line.startswith("userrep: ")]) == 1, said[-2000:]
                run_to_its_end(world, name)
        faults.record(f"{' and '.join(order)} at once", f"met: {met}, {[code for code, _ in ended.values()]}", [])
        assert doubled(world.root) == []
        found = visible(world.root)
        assert found == in_turn(pair) or found == in_turn(pair[::-1])
