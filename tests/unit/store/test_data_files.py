"""The files of a Delta table survive a commit with their partition values, rows and ranges of user buckets."""

import json
import time
from datetime import date
from pathlib import Path

import pytest
from deltalake import DeltaTable

from userrep.store.data_files import TableFile, adding, files_of, removing
from userrep.store.delta_commits import DeltaCommits
from userrep.store.schemas import TableSchema

pytestmark = pytest.mark.fast

D1, D2 = date(2024, 5, 1), date(2024, 5, 2)
ROWS = TableSchema(
    "rows",
    "one row per test",
    "day DATE, revision INT, user_slice STRING, user_bucket INT, user_id STRING",
    ("day", "revision", "user_slice"),
)


def values(day: date | None, revision: int, user_slice: str) -> dict[str, object]:
    return {"day": day, "revision": revision, "user_slice": user_slice}


FULL = TableFile("day=2024-05-01/a.parquet", 100, 7, values(D1, 1, "3-of-16"), (3, 900))
BARE = TableFile("b.parquet", 50, 0, values(None, 2, "0-of-1"))


@pytest.fixture
def commits(tmp_path: Path) -> DeltaCommits:
    """A table whose columns are those of ``ROWS``, and whose files exist in its log only."""
    properties = {"delta.dataSkippingNumIndexedCols": "0", "delta.dataSkippingStatsColumns": "user_bucket"}
    commits = DeltaCommits(str(tmp_path / "rows"))
    commits.create(json.dumps(ROWS.fields().jsonValue()), ROWS.partition_by, properties)
    return commits


def test_files_are_listed_as_they_were_added_with_typed_values(commits: DeltaCommits) -> None:
    before = int(time.time() * 1000)
    commits.add_files([FULL, BARE], transaction=("writer", 1))
    found = sorted(files_of(DeltaTable(commits.uri)), key=lambda file: -file.size)
    assert [file._replace(added_at=0) for file in found] == [FULL, BARE]
    assert all(before <= file.added_at <= time.time() * 1000 for file in found)


def test_removed_files_are_no_longer_listed(commits: DeltaCommits) -> None:
    commits.add_files([FULL, BARE], transaction=("writer", 1))
    assert commits.rewrite([(BARE, None)]) == {BARE.path}
    assert [file.path for file in files_of(DeltaTable(commits.uri))] == [FULL.path]
    assert [file.path for file in files_of(DeltaTable(commits.uri, version=1))] == [FULL.path, BARE.path]


def test_partition_values_are_written_to_the_log_as_text_and_missing_ones_as_null() -> None:
    expected = [
        {"day": "2024-05-01", "revision": "1", "user_slice": "3-of-16"},
        {"day": None, "revision": "2", "user_slice": "0-of-1"},
    ]
    assert [action.partition_values for action in adding([FULL, BARE])] == expected
    assert [action.partition_values for action in removing([FULL, BARE])] == expected


def test_statistics_hold_the_number_of_rows_and_the_first_and_last_bucket() -> None:
    assert [json.loads(action.stats) for action in adding([FULL, BARE])] == [
        {"numRecords": 7, "minValues": {"user_bucket": 3}, "maxValues": {"user_bucket": 900}},
        {"numRecords": 0},
    ]


def test_a_task_returns_files_as_json_with_partition_values_as_text() -> None:
    text = {"day": "2024-05-01", "revision": 1, "user_slice": "3-of-16"}
    assert TableFile.from_json(FULL.to_json()) == FULL._replace(values=text)
    assert TableFile.from_json(BARE.to_json()) == BARE


def test_a_file_knows_where_it_is(commits: DeltaCommits) -> None:
    commits.add_files([FULL])
    files = files_of(DeltaTable(commits.uri), commits.uri)
    assert [file.uri for file in files] == [f"{commits.uri}/{FULL.path}"]


def test_files_of_a_table_without_partitions_have_no_values(tmp_path: Path) -> None:
    commits = DeltaCommits(str(tmp_path / "plain"))
    schema = TableSchema("plain", "one row per test", "name STRING")
    commits.create(json.dumps(schema.fields().jsonValue()), (), {})
    commits.add_rows([{"name": "a"}, {"name": "b"}])
    (file,) = files_of(DeltaTable(commits.uri))
    assert (file.num_rows, file.values, file.buckets) == (2, {}, None)
    assert file.size == (tmp_path / "plain" / file.path).stat().st_size
