"""Row groups are chosen by the buckets in their statistics, and only these are read."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.embedding_tables import publish, snapshot
from userrep.store import bucket_reader
from userrep.store.bucket_reader import BucketRanges, read_row_groups, row_group_ranges, rows_below, rows_of_users
from userrep.store.buckets import NUM_BUCKETS
from userrep.store.file_tables import FileTables
from userrep.store.schemas import USER_EMBEDDINGS, USER_ITEM_DAYS
from userrep.store.xxhash import bucket_of

pytestmark = pytest.mark.fast

LAST = 1_048_575
D1, D2 = date(2024, 5, 1), date(2024, 5, 2)
PAIRS = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def pairs_of(ranges: BucketRanges) -> list[tuple[int, int]]:
    return list(zip(ranges.first_N.tolist(), ranges.last_N.tolist(), strict=True))


@settings(deadline=None)
@given(ends=st.lists(PAIRS, max_size=6), within=PAIRS)
def test_ranges_meet_if_and_only_if_they_share_a_bucket(ends: list[tuple[int, int]], within: tuple[int, int]) -> None:
    buckets = set(range(within[0], within[1] + 1))
    shared = [k for k, (first, last) in enumerate(ends) if buckets & set(range(first, last + 1))]
    assert BucketRanges.of(ends).meeting(*within).tolist() == shared


@settings(deadline=None)
@given(ends=st.lists(PAIRS, max_size=6), buckets=st.sets(st.integers(0, 20), min_size=1))
def test_ranges_contain_buckets_in_whatever_order_they_are(ends: list[tuple[int, int]], buckets: set[int]) -> None:
    some = [k for k, (first, last) in enumerate(ends) if buckets & set(range(first, last + 1))]
    assert BucketRanges.of(ends).containing(np.array(sorted(buckets), np.int32)).tolist() == some


def test_row_group_statistics_give_the_first_and_the_last_bucket(tmp_path: Path) -> None:
    rows = pa.table({"user_id": list("abcde"), "user_bucket": pa.array([3, 3, 4, 9, LAST], pa.int32())})
    pq.write_table(rows, tmp_path / "a.parquet", row_group_size=2)
    assert pairs_of(row_group_ranges(f"{tmp_path}/a.parquet")) == [(3, 3), (4, 9), (LAST, LAST)]
    items = rows.rename_columns(["item_bucket_name", "item_bucket"])
    pq.write_table(items, tmp_path / "b.parquet")
    assert pairs_of(row_group_ranges(f"{tmp_path}/b.parquet", "item_bucket")) == [(3, LAST)]


def test_a_row_group_without_statistics_may_hold_any_bucket(tmp_path: Path) -> None:
    rows = pa.table({"user_bucket": pa.array([3, 4], pa.int32())})
    pq.write_table(rows, tmp_path / "a.parquet", write_statistics=False, row_group_size=1)
    ranges = row_group_ranges(f"{tmp_path}/a.parquet")
    assert pairs_of(ranges) == [(0, LAST), (0, LAST)]
    assert ranges.meeting(7, 7).tolist() == ranges.containing(np.array([5])).tolist() == [0, 1]


def test_row_groups_are_read_with_the_columns_asked_for(tmp_path: Path) -> None:
    rows = pa.table({"user_id": list("abcde"), "user_bucket": pa.array([3, 3, 4, 9, 12], pa.int32())})
    pq.write_table(rows, tmp_path / "a.parquet", row_group_size=2)
    assert read_row_groups(f"{tmp_path}/a.parquet", [0, 2], ["user_id"]).to_pydict() == {"user_id": ["a", "b", "e"]}


# The rows of a sample of users


def by_bucket(num: int) -> dict[str, int]:
    """Return users with their buckets, in the order of their buckets."""
    ids = [f"u{k}" for k in range(num)]
    return dict(sorted(zip(ids, bucket_of(pa.array(ids)).tolist(), strict=True), key=lambda pair: pair[1]))


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of files that are opened from now on."""
    uris: list[str] = []
    actual = bucket_reader.open_parquet

    def recorded(uri: str) -> Any:
        uris.append(uri)
        return actual(uri)

    monkeypatch.setattr(bucket_reader, "open_parquet", recorded)
    return uris


def test_the_rows_below_a_bucket_are_read_of_the_partitions_asked_for(tmp_path: Path) -> None:
    tables, users = FileTables(None, str(tmp_path)), by_bucket(40)
    publish(tables, {snapshot(day): {user: [float(k)] for k, user in enumerate(users)} for day in (D1, D2)})
    limit = NUM_BUCKETS // 3
    rows = rows_below(limit, tables, USER_EMBEDDINGS, [snapshot(D2).key], ["user_id", "embedding"])
    assert rows["user_id"].to_pylist() == [user for user, bucket in users.items() if bucket < limit]
    assert rows["embedding"].to_pylist() == [[float(k)] for k in range(rows.num_rows)]
    both = rows_below(limit, tables, USER_EMBEDDINGS, [snapshot(day).key for day in (D1, D2)], ["user_id"])
    assert both.num_rows == 2 * rows.num_rows
    assert rows_below(0, tables, USER_EMBEDDINGS, [snapshot(D2).key], ["user_id"]).num_rows == 0


def test_files_whose_buckets_are_all_above_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables, users = FileTables(None, str(tmp_path)), by_bucket(20)
    tile = {"event_date": D1, "revision": 1, "item_id": "i", "event_type": "e", "num_events": 1, "weight": 1.0}
    for number in range(2):
        low, high = number * NUM_BUCKETS // 2, (number + 1) * NUM_BUCKETS // 2
        rows = [
            tile | {"user_slice": f"{number}-of-2", "user_bucket": bucket, "user_id": user}
            for user, bucket in users.items()
            if low <= bucket < high
        ]
        tables.add(USER_ITEM_DAYS, rows)
    uris, limit = opened(monkeypatch), NUM_BUCKETS // 4
    rows = rows_below(limit, tables, USER_ITEM_DAYS, [{"event_date": D1, "revision": 1}], ["user_id", "item_id"])
    assert rows["user_id"].to_pylist() == [user for user, bucket in users.items() if bucket < limit]
    assert len(uris) == 1


def test_the_rows_of_some_users_are_read_of_the_partitions_asked_for(tmp_path: Path) -> None:
    tables, users = FileTables(None, str(tmp_path)), by_bucket(40)
    publish(tables, {snapshot(day): {user: [float(day.day)] for user in users} for day in (D1, D2)})
    asked = pa.array(["u3", "unknown", "u39"])
    rows = rows_of_users(asked, tables, USER_EMBEDDINGS, [snapshot(D2).key], ["embedding", "user_id"])
    assert rows.column_names == ["embedding", "user_id"]
    assert sorted(rows["user_id"].to_pylist()) == ["u3", "u39"]
    assert rows["embedding"].to_pylist() == [[2.0], [2.0]]
    empty = rows_of_users(pa.array([], pa.string()), tables, USER_EMBEDDINGS, [snapshot(D2).key], ["user_id"])
    assert (empty.num_rows, empty.column_names) == (0, ["user_id"])
