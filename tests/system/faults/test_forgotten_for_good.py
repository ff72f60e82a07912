"""Users who were forgotten do not come back: by a rollback, by a restored table, by a run that had read them before."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from benchmarks.nights import files_naming
from tests.system.faults.contents import tables_of
from tests.system.faults.fault_world import AS_OF, NIGHT, PATIENCE, World
from userrep.daily import backfill, daily
from userrep.operations import erasure
from userrep.operations.erasure import DELETED, DONE, Erasure, newest_requests, receipt_lines
from userrep.schemas import USER_EMBEDDINGS
from userrep.spaces.registry import find_space, list_spaces, promote, rollback
from userrep.spaces.snapshots import list_snapshots
from userrep.tables import Tables

pytestmark = pytest.mark.full

FORGOTTEN = ["u0000006", "u0000007"]

# A command that waits at a point, having read what it writes there, until a file is there.
WAITING = """
import sys, time
from pathlib import Path
from userrep import cli, failpoints
point, go_on, reached = sys.argv.pop(1), Path(sys.argv.pop(1)), failpoints.reached

def waiting(name):
    reached(name)
    if name == point:
        go_on.with_name("waits").touch()
        while not go_on.exists():
            time.sleep(0.05)

failpoints.reached = waiting
cli.main()
"""


def forget(world: World, spark: SparkSession, *users: str, now: bool) -> dict[str, Any]:
    return Erasure(Tables.of(world.config, spark), world.config, users, lambda _: None).run(now=now)


def with_vectors(root: Path) -> set[str]:
    return {row["user_id"] for row in tables_of(root)["user_embeddings"]}


def test_a_rollback_and_what_is_built_after_it_bring_nobody_back(
    spark: SparkSession, trained: World, tmp_path: Path
) -> None:
    world = trained.copy(tmp_path / "two spaces")
    tables = Tables.of(world.config, spark)
    first = find_space(tables, None)
    world.pipeline(spark).run(retrain=True)
    (second,) = [space for space in list_spaces(tables) if space.space_id != first.space_id]
    promote(tables, second)
    daily(world.pipeline(spark, NIGHT), on_time=True)
    assert {s.as_of for s in list_snapshots(tables, first.space_id)} >= {NIGHT}
    assert with_vectors(world.root) >= set(FORGOTTEN)

    assert forget(world, spark, *FORGOTTEN, now=True)["num_done"] == 1
    assert rollback(tables).space_id == first.space_id
    daily(world.pipeline(spark, NIGHT + timedelta(days=1)), on_time=True)
    days = [AS_OF - timedelta(days=k) for k in (9, 8)]
    backfill(world.pipeline(spark, AS_OF), days)

    served = list_snapshots(tables, first.space_id)
    assert {s.as_of for s in served} >= {*days, NIGHT, NIGHT + timedelta(days=1)}
    for snapshot in [*served, *list_snapshots(tables, second.space_id)]:
        users = {row.user_id for row in tables.read(USER_EMBEDDINGS).where(snapshot.where).collect()}
        assert len(users) == snapshot.num_users > 0
        assert users.isdisjoint(FORGOTTEN)
    assert files_naming(world.root, *FORGOTTEN) == []


def test_a_table_that_is_restored_to_before_loses_them_in_the_next_night(
    spark: SparkSession, trained: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "_CLOCKS", timedelta(0))  # files of the restored version count as old
    world = trained.copy(tmp_path / "restored")
    table = DeltaTable(str(world.root / "tables" / "user_embeddings"))
    before = table.version()
    forget(world, spark, *FORGOTTEN, now=False)
    assert with_vectors(world.root).isdisjoint(FORGOTTEN)
    DeltaTable(table.table_uri).restore(before)
    assert with_vectors(world.root) >= set(FORGOTTEN)
    assert set(forget(world, spark, now=False)["rows"]) == {"user_embeddings"}
    assert with_vectors(world.root).isdisjoint(FORGOTTEN)
    assert forget(world, spark, now=True)["num_done"] == 1
    assert files_naming(world.root, *FORGOTTEN) == []


@pytest.mark.parametrize(
    ("command", "point"),
    [
        (f"daily --as-if-on-time --as-of {NIGHT}", "commit:user_embeddings:before"),
        (f"pipeline --retrain --as-of {AS_OF}", "commit:training_rows:before"),
    ],
    ids=["a night", "a training"],
)
def test_a_run_that_has_read_them_is_named_and_what_it_brings_back_goes_once_it_has_ended(
    spark: SparkSession, trained: World, tmp_path: Path, command: str, point: str
) -> None:
    world = trained.copy(tmp_path / "under way")
    tables = Tables.of(world.config, spark)
    with under_way(world, command, point, tmp_path / "go on") as run:
        receipt = forget(world, spark, *FORGOTTEN, now=True)
    (named,) = receipt["under_way"]
    assert re.match(rf"{command.split(maxsplit=1)[0]}: run r\S+ on \S+, process {run.pid}, since 20", named)
    assert [
        line for line in receipt_lines(receipt) if named in line and "run `userrep forget` again, with --now" in line
    ]
    assert (receipt["num_done"], [row.state for row in newest_requests(tables)]) == (0, [DELETED])

    again = forget(world, spark, now=True)
    print(f"{command}: ended with {run.returncode}; brought back: {again['rows']}")
    assert (again["under_way"], again["num_done"]) == ([], 1)
    assert [row.state for row in newest_requests(tables)] == [DONE]
    assert tables_of(world.root)["training_rows"] == []
    assert files_naming(world.root, *FORGOTTEN) == []
    daily(world.pipeline(spark, NIGHT), on_time=True)  # nothing of what it read is missing
    assert with_vectors(world.root).isdisjoint(FORGOTTEN)


@contextmanager
def under_way(world: World, command: str, point: str, go_on: Path) -> Iterator["subprocess.Popen[str]"]:
    """Hold a command at a point meanwhile; then let it end."""
    words = [sys.executable, "-c", WAITING, point, str(go_on), *command.split(), "--config", str(world.file)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        try:
            deadline = time.monotonic() + PATIENCE
            while not go_on.with_name("waits").exists():
                assert run.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield run
        finally:
            go_on.touch()
            print(run.communicate(timeout=PATIENCE)[1])
