"""Tables without Spark: changes that are one commit or none."""

import json
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.conformance import D1, D2, LEDGER, SHARES, SMALL, LedgerConformance, users_of
from userrep.errors import UserrepError
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import TableWriter
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return FileTables(None, str(tmp_path / "a b"))


def written(tables: Tables, day: date, *users: str, part: str = "p") -> list[TableFile]:
    writer = TableWriter(tables.target(SHARES))
    writer.write(pa.table({"user_id": list(users)}), {"day": day, "part": part})
    return writer.close()


class TestLedgersWithoutSpark(LedgerConformance):
    pass


def test_tables_are_listed_once_they_are_created(tables: Tables) -> None:
    assert tables.stored() == []
    for table in (LEDGER, SMALL, SHARES):
        tables.create(table)
    assert tables.stored() == ["ledger", "shares", "small"]


# Compare and swap


def test_exactly_one_of_many_concurrent_changes_succeeds(tables: Tables) -> None:
    tables.create(SMALL)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda name: tables.add(SMALL, [{"name": name}], replacing="true", since=0), "abcd"))
    assert done.count(True) == 1
    assert [row.name for row in tables.ledger(SMALL)] == ["abcd"[done.index(True)]]


# Files that tasks have written


def test_files_become_visible_with_their_commit_and_replace_whole_partitions(tables: Tables) -> None:
    files = written(tables, D1, "a", "b") + written(tables, D2, "c")
    assert users_of(tables) == {}
    tables.commit(SHARES, files, replacing=lambda _: False, since=0)
    assert users_of(tables) == {D1: ["a", "b"], D2: ["c"]}
    tables.commit(SHARES, written(tables, D1, "d"), replacing=lambda of: of["day"] == D1, since=1)
    assert users_of(tables) == {D1: ["d"], D2: ["c"]}
    assert [file.num_rows for file in tables.files(SHARES, lambda of: of["day"] == D1)] == [1]
    assert [file.num_rows for file in tables.files(SHARES, lambda of: of["day"] == D1, version=1)] == [2]
    assert tables.num_bytes(SHARES) == sum(file.size for file in tables.files(SHARES, lambda _: True)) > 0


def test_the_files_of_a_table_take_less_than_two_kilobytes_of_driver_memory_each(tables: Tables) -> None:
    values = {"day": D1, "part": "p"}
    listed = [TableFile(f"day={D1}/part=p/part-{k:032x}.parquet", 1000, 10, values) for k in range(2_000)]
    tables.create(SHARES)
    tables.commit(SHARES, listed, replacing=lambda _: False, since=0)
    tracemalloc.start()
    try:
        assert len(tables.files(SHARES, lambda _: True)) == len(listed)
        assert tracemalloc.get_traced_memory()[1] < 2_000 * len(listed)
    finally:
        tracemalloc.stop()


def test_a_commit_fails_where_another_one_has_changed_the_same_partitions(tables: Tables) -> None:
    tables.commit(SHARES, written(tables, D1, "a", "b", "c"), replacing=lambda _: False, since=0)
    since = tables.version(SHARES)
    mine, other = written(tables, D1, "d"), written(tables, D2, "e")
    tables.commit(SHARES, other, replacing=lambda of: of["day"] == D2, since=since)
    tables.commit(SHARES, mine, replacing=lambda of: of["day"] == D1, since=since)
    assert users_of(tables) == {D1: ["d"], D2: ["e"]}
    with pytest.raises(UserrepError, match="another run has changed the same rows"):
        tables.commit(SHARES, written(tables, D1, "f"), replacing=lambda of: of["day"] == D1, since=since)
    assert users_of(tables) == {D1: ["d"], D2: ["e"]}


def test_partitions_are_dropped_by_all_their_values_in_one_commit(tables: Tables) -> None:
    for day in (D1, D2):
        for part in ("p", "q"):
            tables.commit(
                SHARES, written(tables, day, f"{day.day}{part}", part=part), replacing=lambda _: False, since=0
            )
    before = tables.version(SHARES)
    tables.drop_partitions(SHARES, [{"day": D1, "part": "p"}, {"part": "q", "day": D2}, {"day": D2, "part": "none"}])
    assert users_of(tables) == {D1: ["1q"], D2: ["2p"]}
    assert tables.version(SHARES) == before + 1
    tables.drop_partitions(SHARES, [])
    assert tables.version(SHARES) == before + 1


def test_a_transaction_is_committed_once(tables: Tables) -> None:
    assert tables.last_transaction(SHARES, "writer") is None
    tables.add_files(SHARES, written(tables, D1, "a"), transaction=("writer", 5))
    tables.add_files(SHARES, written(tables, D1, "again"), transaction=("writer", 5))
    tables.add_files(SHARES, written(tables, D1, "late"), transaction=("writer", 4))
    tables.add_files(SHARES, [], transaction=("writer", 6))
    assert tables.last_transaction(SHARES, "writer") == 5
    tables.add_files(SHARES, written(tables, D1, "b"), transaction=("other", 1))
    assert users_of(tables) == {D1: ["a", "b"]}


def test_rewriting_passes_over_files_that_another_run_has_removed(tables: Tables) -> None:
    tables.commit(SHARES, written(tables, D1, "a") + written(tables, D2, "b"), replacing=lambda _: False, since=0)
    first, second = sorted(tables.files(SHARES, lambda _: True), key=lambda file: file.values["day"])
    tables.drop_partitions(SHARES, [{"day": D1, "part": "p"}])
    (new_first,), (new_second,) = written(tables, D1, "a", "x"), written(tables, D2, "b", "x")
    assert tables.commits(SHARES).rewrite([(first, new_first), (second, new_second)]) == {second.path}
    assert users_of(tables) == {D2: ["b", "x"]}
    assert tables.commits(SHARES).rewrite([(new_second, None)]) == {new_second.path}
    assert users_of(tables) == {}


def test_the_layout_of_files_is_that_of_the_table(tables: Tables) -> None:
    target = tables.target(SHARES)
    assert target.schema.names == ["user_id"]
    assert (target.uri, target.partition_by) == (tables.uri(SHARES), ("day", "part"))
    log = Path(tables.uri(SHARES)) / "_delta_log" / f"{0:020}.json"
    (metadata,) = (
        action["metaData"] for line in log.read_text().splitlines() if "metaData" in (action := json.loads(line))
    )
    assert metadata["partitionColumns"] == ["day", "part"]
    assert metadata["configuration"]["delta.enableDeletionVectors"] == "false"
