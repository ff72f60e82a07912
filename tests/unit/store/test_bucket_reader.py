"""Row groups are chosen by the buckets in their statistics, and only these are read."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from userrep.store.bucket_reader import BucketRanges, read_row_groups, row_group_ranges

pytestmark = pytest.mark.fast

LAST = 1_048_575
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
