"""Pairs of commands that change tables, held before a commit until both are there, end as one after the other.

Each command is a process of its own. The first that was held goes on to its end while the other waits, then the other
one does, in both orders. A command that loses ends with exit code 1 and one line, and is run again. ``make pair-test``
runs all pairs on a log in Parquet and on one in JSON, which takes hours. ``SHARD=k/n`` selects every n-th of
them, beginning with the k-th. Other targets run one.
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.support.builders import SPEC
from tests.system.faults.commands import COMMANDS, Held, InTurn, Worlds, check_end, shard, with_ids
from tests.system.faults.contents import doubled, visible
from tests.system.faults.fault_world import World
from tests.system.faults.tally import Faults
from userrep.synthetic.generator import generate_log
from userrep.workflows.pipeline import run_pipeline

pytestmark = pytest.mark.full

CASES = [(log, pair) for log in ("parquet", "json") for pair in combinations(COMMANDS, 2)]


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
    run_pipeline(world.pipeline(spark))
    return world


@pytest.fixture(scope="module")
def worlds(before: World) -> Worlds:
    """As in conftest.py, from the world that the case names."""
    return {(): before}


@pytest.mark.parametrize(("before", "pair"), shard(CASES), indirect=["before"], ids=str)
def test_two_commands_at_once_end_as_one_after_the_other(
    before: World, in_turn: InTurn, faults: Faults, tmp_path: Path, pair: tuple[str, str]
) -> None:
    for order in (pair, pair[::-1]):
        world = with_ids(before.copy(tmp_path / f"{order[0]} goes on first"))
        held = {name: Held(world, name) for name in order}
        met = all(command.is_held for command in held.values())
        ends = {name: held[name].goes_on() for name in order}
        for name, (code, output) in ends.items():
            if check_end(code, output):
                in_turn.run(world, name)
        faults.record(f"{' and '.join(order)} at once", f"met: {met}, {[code for code, _ in ends.values()]}", [])
        assert doubled(world.root) == []
        assert in_turn.agrees(visible(world.root), (order, order[::-1]))
