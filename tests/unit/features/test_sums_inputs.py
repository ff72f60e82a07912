"""Which files a pooling job reads: of each day the wanted revision, one generation of sums, and all profiles."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from userrep.features.sums.generations import Generation
from userrep.features.sums.inputs import PoolingInputs, listed_files
from userrep.store.buckets import NUM_BUCKETS
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import TableWriter
from userrep.store.schemas import USER_ITEM_DAYS, USER_PROFILES, USER_WINDOW_SUMS, TableSchema
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

D1, D2, D3 = (date(2024, 3, day) for day in (1, 2, 3))
DAY_1 = (D1 - date(1970, 1, 1)).days


def add_files(tables: Tables, table: TableSchema, *partitions: dict[str, Any]) -> None:
    """Write a file of one row into each of some partitions."""
    writer = TableWriter(target := tables.target(table))
    for values in partitions:
        row = {name: 5 if name == "user_bucket" else None for name in target.schema.names}
        writer.write(pa.Table.from_pylist([row], target.schema), values)
    tables.add_files(table, writer.close(), transaction=("test", 1))


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Tiles of three days, one of them in two revisions, sums of two lineages and generations, and profiles."""
    tables = FileTables(None, str(tmp_path))
    days = [(D1, 1, "0-of-2"), (D1, 1, "1-of-2"), (D2, 1, "0-of-1"), (D2, 2, "0-of-1"), (D3, 1, "0-of-1")]
    add_files(tables, USER_ITEM_DAYS, *({"event_date": day, "revision": n, "user_slice": cut} for day, n, cut in days))
    keys = [("l1", 3, "0-of-1"), ("l1", 4, "3-of-4"), ("l2", 4, "0-of-1")]
    add_files(tables, USER_WINDOW_SUMS, *({"lineage_id": of, "generation": n, "user_slice": s} for of, n, s in keys))
    add_files(tables, USER_PROFILES, {"user_slice": "0-of-1"})
    return tables


def listed(inputs: PoolingInputs) -> set[tuple[Any, ...]]:
    """Return what is listed: kind, folders of the path below the table's, then all other columns."""
    files = listed_files(inputs.tables, inputs)
    assert all(Path(file.path).is_file() for file in files)
    found = {
        (file.kind, file.path.split("/tables/")[1].rpartition("/")[0].partition("/")[2], file.day, file.before,
         file.after, *file.buckets)
        for file in files
    }  # fmt: skip
    assert len(found) == len(files)
    return found


def test_of_each_day_the_files_of_the_wanted_revision_are_listed_with_their_range_and_marks(tables: Tables) -> None:
    tiles = {(D1, 1): (True, False), (D2, 2): (False, True)}
    half = NUM_BUCKETS // 2
    assert listed(PoolingInputs(tables, tiles, sums=None, profiles_version=None)) == {
        ("tiles", "event_date=2024-03-01/revision=1/user_slice=0-of-2", DAY_1, True, False, 0, half),
        ("tiles", "event_date=2024-03-01/revision=1/user_slice=1-of-2", DAY_1, True, False, half, NUM_BUCKETS),
        ("tiles", "event_date=2024-03-02/revision=2/user_slice=0-of-1", DAY_1 + 1, False, True, 0, NUM_BUCKETS),
    }


def test_a_day_that_changed_is_listed_before_and_after(tables: Tables) -> None:
    tiles = {(D2, 1): (True, False), (D2, 2): (False, True), (D3, 1): (False, True)}
    marks = {
        (folder, before, after)
        for _, folder, _, before, after, _, _ in listed(PoolingInputs(tables, tiles, None, None))
    }
    assert marks == {
        ("event_date=2024-03-02/revision=1/user_slice=0-of-1", True, False),
        ("event_date=2024-03-02/revision=2/user_slice=0-of-1", False, True),
        ("event_date=2024-03-03/revision=1/user_slice=0-of-1", False, True),
    }


def test_sums_are_those_of_the_lineage_and_generation_and_profiles_are_all(tables: Tables) -> None:
    sums, version = Generation("l1", 4, D3, D1, {}, 0), tables.version(USER_PROFILES)
    found = listed(PoolingInputs(tables, {}, sums=sums, profiles_version=version))
    folder = "lineage_id=l1/generation=4/user_slice=3-of-4"
    assert found == {
        ("sums", folder, DAY_1 + 2, False, True, NUM_BUCKETS * 3 // 4, NUM_BUCKETS),
        ("profiles", "user_slice=0-of-1", 0, False, True, 0, NUM_BUCKETS),
    }


def test_a_job_without_inputs_lists_nothing(tables: Tables) -> None:
    assert listed(PoolingInputs(tables, {}, sums=None, profiles_version=None)) == set()
