"""Which files each task of a pooling job reads: together every row once, in whatever parts ranges are taken."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from userrep.features.sums.bucket_files import BucketedFile
from userrep.features.sums.plan import PoolingPlan, PoolingTask
from userrep.features.sums.pooling_tasks import files_of_task
from userrep.store.buckets import NUM_BUCKETS, BucketRange, range_of

pytestmark = pytest.mark.fast


def file_of(kind: str, day: int, within: BucketRange) -> BucketedFile:
    return BucketedFile(kind, f"{kind}-{day}-{within.start}", within, day)


def files_in_slices(days: list[int], num_slices: int) -> list[BucketedFile]:
    """List tiles of some days, sums and profiles, each cut into equal slices."""
    kinds = [*(("tiles", day) for day in days), ("sums", 100), ("profiles", 0)]
    return [file_of(kind, day, range_of(k, num_slices)) for kind, day in kinds for k in range(num_slices)]


def reads_of(plan: PoolingPlan, files: list[BucketedFile]) -> Counter[tuple[str, int]]:
    """Count how often each file is read for each range of users."""
    return Counter(
        (file.path, task.range)
        for task in [*plan.undivided, *plan.divided]
        for file in files_of_task(task, range_of(task.range, plan.num_ranges), files)
    )


@given(
    st.sampled_from([1, 2, 8]),
    st.dictionaries(st.integers(0, 7), st.integers(2, 5)),
    st.sampled_from([1, 4, 16]),
)
@settings(max_examples=60, deadline=None)
def test_each_range_reads_each_file_that_meets_it_once(
    num_ranges: int, in_parts: dict[int, int], num_slices: int
) -> None:
    plan = PoolingPlan(num_ranges, {k: n for k, n in in_parts.items() if k < num_ranges}, num_ranges)
    files = files_in_slices([101, 102, 103, 107], num_slices)
    want: Counter[tuple[str, int]] = Counter()
    for file in files:
        for number in range(num_ranges):
            width = NUM_BUCKETS // num_ranges
            if file.buckets.start < (number + 1) * width and number * width < file.buckets.stop:
                want[file.path, number] += 1
    assert reads_of(plan, files) == want


def test_parts_of_a_range_share_its_tiles_by_day_and_the_first_reads_all_else() -> None:
    files = files_in_slices([100, 101, 102, 103], 1)
    found = [
        [file.path.rpartition("-")[0] for file in files_of_task(PoolingTask(0, part, 3), BucketRange(0, 10), files)]
        for part in range(3)
    ]
    assert found == [["tiles-102", "sums-100", "profiles-0"], ["tiles-100", "tiles-103"], ["tiles-101"]]


def test_a_file_that_ends_where_a_range_begins_is_not_read() -> None:
    listed = [file_of("tiles", 1, BucketRange(0, 10)), file_of("tiles", 2, BucketRange(10, 20))]
    assert [file.day for file in files_of_task(PoolingTask(0), BucketRange(10, 20), listed)] == [2]
    assert [file.day for file in files_of_task(PoolingTask(0), BucketRange(0, 10), listed)] == [1]
    assert [file.day for file in files_of_task(PoolingTask(0), BucketRange(9, 11), listed)] == [1, 2]
