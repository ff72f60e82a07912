"""Pairs of commands that change tables, held before a commit until both are there, end as one after the other.

The first command runs in this process, whose session is warm, the second in one of its own. When both are held, the
first goes on to its end while the second waits, then the second does. A command that loses ends with exit code 1 and
one line, has changed nothing that readers see, and is run again. ``make test`` runs one pair in one order; ``make
pair-test`` all pairs in both orders, on a log in Parquet and on one in JSON, in about two hours. ``SHARD=k/n`` selects
every n-th of them, beginning with the k-th.

Pairs with ``train_item_vectors`` have worlds in which new item vectors are due on the day of the commands.
"""

import os
import shutil
from itertools import combinations, product
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from tests.support.builders import AS_OF, SPEC
from tests.system.faults.commands import (
    COMMANDS,
    Held,
    InTurn,
    Worlds,
    check_end,
    held_here,
    line_of,
    points_of,
    shard,
    with_ids,
)
from tests.system.faults.contents import doubled, visible
from tests.system.faults.fault_world import World
from tests.system.faults.tally import Faults
from userrep.synthetic.generator import generate_log
from userrep.workflows.pipeline import run_pipeline

pytestmark = pytest.mark.default

FEW = [("pipeline", "tiles")]
MORE = [("stream", "daily"), ("training", "pipeline"), ("forget", "tiles")]  # in the full tier
# (format of the log, whether item vectors are due): the same object for each case, as pytest compares them
KINDS = {kind: kind for kind in product(("parquet", "json"), (False, True))}
ALL_CASES = [
    (KINDS[log, "vectors" in order], order)
    for log in ("parquet", "json")
    for pair in combinations(COMMANDS, 2)
    for order in (pair, pair[::-1])
]
CASES = shard(ALL_CASES) if "SHARD" in os.environ else [(KINDS["parquet", False], order) for order in FEW + MORE]


@pytest.fixture(scope="module")
def before(
    request: pytest.FixtureRequest,
    spark: SparkSession,
    log: Path,
    run_once: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> World:
    """A world after a pipeline, whose log is in Parquet or in JSON."""
    (events_format, vectors_due), events = request.param, {}
    folder = tmp_path_factory.mktemp(events_format)
    if events_format == "json":
        generate_log(spark, SPEC, str(folder / "log"))
        rows = spark.read.parquet(str(folder / "log" / "events"))
        for name, part in {"events-json": rows, "arriving": rows.where(F.col("ingest_date") == F.lit(AS_OF))}.items():
            part.drop("ingest_date").coalesce(1).write.json(str(folder / "log" / name))
        log, events = folder / "log", {"path": str(folder / "log" / "events-json"), "format": "json"}
    world = World(folder / "trained", log, events=events, refit_days=20 if vectors_due else None)
    if events or vectors_due:
        run_pipeline(world.pipeline(spark))
    else:
        shutil.copytree(run_once / "root", world.root)
    return world


@pytest.fixture(scope="module")
def worlds(before: World, request: pytest.FixtureRequest) -> Worlds:
    """As in conftest.py, from the world that the case names; that after a pipeline may be there already."""
    is_usual = not before.events and before.refit_days is None
    return {(): before} | ({("pipeline",): request.getfixturevalue("next_day").after} if is_usual else {})


@pytest.mark.parametrize(
    ("before", "order"),
    [
        pytest.param(
            kind, order, id=f"{kind[0]}-{'-then-'.join(order)}", marks=[pytest.mark.full] if order in MORE else []
        )
        for kind, order in CASES
    ],
    indirect=["before"],
    scope="module",  # otherwise pytest makes the world of each test again
)
def test_two_commands_at_once_end_as_one_after_the_other(
    before: World, in_turn: InTurn, faults: Faults, tmp_path: Path, order: tuple[str, str]
) -> None:
    world = with_ids(before.copy(tmp_path / "at-once"))
    (first, second), points, met = order, points_of(order), []
    other = Held(world, second, points[second])
    hold = held_here(
        points[first] or COMMANDS[first].point, world.folder / f"held {first}", lambda: met.append(other.arrives())
    )
    try:
        with hold:
            answer = in_turn.userrep(*line_of(world, first).split(), "--config", world.file)
        between = visible(world.root)
    finally:
        ends = {second: other.goes_on()}
    if ends[second][0]:
        assert visible(world.root) == between, f"{second} has changed tables, but ended with {ends[second]}"
    ends = {first: (answer.code, answer.err), **ends}
    for name, (code, output) in ends.items():
        if check_end(code, output):
            in_turn.run(world, name)
    assert met == [True], f"the commands did not meet: {ends}"
    if "forget" in order:  # its request stays open while the other runs, which may have read the users before
        in_turn.run(world, "forget")
    faults.record(f"{' and '.join(order)} at once", f"exit codes {[code for code, _ in ends.values()]}", [])
    assert doubled(world.root) == []
    assert in_turn.agrees(visible(world.root), (order, order[::-1]))
