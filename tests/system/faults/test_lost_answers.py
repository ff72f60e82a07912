"""Commits that an object store makes while the answer is lost on the way: no row is written twice.

The store is a real server; a proxy in front of it drops the connection after it has forwarded a commit.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from tests.system.test_object_store import bucket  # noqa: F401  # a fixture
from userrep.errors import UserrepError
from userrep.spaces.registry import add_candidate, find_space, mark_ready, promote, read_registry
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import file_system
from userrep.store.parquet_writer import TableWriter
from userrep.store.schemas import REGISTRY, SNAPSHOTS, USER_EMBEDDINGS

pytestmark = pytest.mark.full

DAY = date(2024, 4, 1)
ROWS = pa.table(
    {
        "user_bucket": pa.array([1, 2], pa.int32()),
        "user_id": ["u1", "u2"],
        "embedding": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32())),
    }
)


class Wire:
    """The proxy in front of the store."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def lose(self, num: int) -> int:
        """Lose the answers to the next ``num`` commits; return how many are lost so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{num}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@pytest.fixture(scope="module")
def wire(bucket: str) -> Iterator[Wire]:  # noqa: F811  # the fixture
    file_system(bucket)  # pyarrow, which does not commit, keeps talking to the store directly
    command = [sys.executable, str(Path(__file__).with_name("lossy_wire.py")), os.environ["AWS_ENDPOINT_URL"]]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
        pytest.MonkeyPatch.context() as patch,
    ):
        assert process.stdout is not None
        patch.setenv("AWS_ENDPOINT_URL", process.stdout.readline().strip())
        yield Wire(process)
        process.kill()


def row_of(snapshot_id: str, num_users: int) -> dict[str, object]:
    return {"snapshot_id": snapshot_id, "space_id": "s1", "num_users": num_users}


def test_ledger_rows_whose_commit_lost_its_answer_are_written_once(wire: Wire, bucket: str) -> None:  # noqa: F811
    tables = FileTables(None, f"{bucket}/added")
    tables.create(SNAPSHOTS)
    before = wire.lose(0)
    for k in range(3):
        wire.lose(1)
        tables.add(SNAPSHOTS, [row_of(f"s{k}", k)])
    wire.lose(1)
    tables.add(SNAPSHOTS, [row_of("s1", 7)], replacing="snapshot_id = 's1'")
    assert wire.lose(0) - before == 4
    assert sorted((row.snapshot_id, row.num_users) for row in tables.ledger(SNAPSHOTS)) == [
        ("s0", 0), ("s1", 7), ("s2", 2)
    ]  # fmt: skip


def test_a_promotion_whose_commit_lost_its_answer_is_made_once(wire: Wire, bucket: str) -> None:  # noqa: F811
    tables, before = FileTables(None, f"{bucket}/promoted"), wire.lose(0)
    for space_id in ("s1", "s2"):
        wire.lose(1)
        add_candidate(tables, space_id=space_id, lineage_id="l1", trained_until=DAY, content_hash="none")
        mark_ready(tables, find_space(tables, space_id))
    for space_id, turn in (("s1", 1), ("s2", 2)):
        wire.lose(1)
        with suppress(UserrepError):  # another change came first, it says: run it again
            promote(tables, find_space(tables, space_id))
        promote(tables, find_space(tables, space_id))  # run again
        serving = read_registry(tables).serving
        assert serving is not None
        assert (serving.space_id, serving.last_turn) == (space_id, turn)
    assert wire.lose(0) - before == 4
    assert len(tables.ledger(REGISTRY)) == 2


def test_files_whose_commit_lost_its_answer_are_added_once(wire: Wire, bucket: str) -> None:  # noqa: F811
    tables, before = FileTables(None, f"{bucket}/committed"), wire.lose(0)
    values = {"space_id": "s1", "as_of": DAY, "revision": 1}

    def written() -> list[TableFile]:
        writer = TableWriter(tables.target(USER_EMBEDDINGS))
        writer.write(ROWS, values)
        return writer.close()

    since, files = tables.version(USER_EMBEDDINGS), written()
    for _ in range(2):  # the command, and the command again
        wire.lose(1)
        with suppress(UserrepError):  # another run has changed the same rows, it says: run it again
            tables.commit(USER_EMBEDDINGS, files, replacing=lambda of: of == values, since=since)
        since, files = tables.version(USER_EMBEDDINGS), written()
    assert wire.lose(0) - before == 2
    assert sum(file.num_rows for file in tables.files(USER_EMBEDDINGS, lambda of: of == values)) == ROWS.num_rows
