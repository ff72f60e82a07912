"""A run that read users before their erasure may write them after it; the erasure names it, and is completed later."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from benchmarks.nights import files_naming
from tests.support.builders import AS_OF
from tests.system.faults.contents import tables_of
from tests.system.faults.fault_world import NIGHT, PATIENCE, World
from tests.system.faults.test_forgotten_for_good import FORGOTTEN, forget, with_vectors
from userrep.erasure.receipt import receipt_lines
from userrep.erasure.request_states import DELETED, DONE, newest_requests
from userrep.store.open import open_tables
from userrep.workflows.daily import daily

pytestmark = pytest.mark.full

# A command that waits at a point until a file exists; by then it has read what it is about to write.
WAITING = """
import sys, time
from pathlib import Path
from userrep import failpoints
from userrep.cli import main as cli
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


@pytest.mark.parametrize(
    ("command", "point"),
    [
        (f"daily --as-if-on-time --as-of {NIGHT}", "commit:user_embeddings:before"),
        (f"pipeline --retrain --as-of {AS_OF}", "commit:training_rows:before"),
    ],
    ids=["a daily run", "a training"],
)
def test_a_run_that_read_erased_users_is_named_and_its_rows_of_them_are_erased_after_it_ends(
    spark: SparkSession, trained: World, tmp_path: Path, command: str, point: str
) -> None:
    world = trained.copy(tmp_path / "under way")
    tables = open_tables(world.config, spark)
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
    daily(world.pipeline(spark, NIGHT), on_time=True)  # no file that it reads is missing
    assert with_vectors(world.root).isdisjoint(FORGOTTEN)


@contextmanager
def under_way(world: World, command: str, point: str, go_on: Path) -> Iterator["subprocess.Popen[str]"]:
    """Hold a command at a point during the block; then let it end."""
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
