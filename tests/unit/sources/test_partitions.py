"""Days of partitioned logs are merged into ranges of dates."""

import itertools
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from userrep.config import Partition
from userrep.sources.partitions import folder_day, ranges

pytestmark = pytest.mark.fast

D1, D2, D5 = (date(2024, 5, day) for day in (1, 2, 5))
DAY = timedelta(days=1)


def test_adjacent_days_merge_into_ranges() -> None:
    assert ranges([D5, D1, D2]) == [(D1, D2), (D5, D5)]
    assert ranges([]) == []


@settings(deadline=None)
@given(days=st.lists(st.dates(D1, D1 + 40 * DAY), max_size=12), num_late=st.integers(0, 4))
def test_ranges_are_disjoint_and_cover_each_day_with_its_late_days_and_no_other(
    days: list[date], num_late: int
) -> None:
    found = ranges(days, reach=num_late * DAY)
    covered = [first + k * DAY for first, last in found for k in range((last - first).days + 1)]
    assert set(covered) == {day + k * DAY for day in days for k in range(num_late + 1)}
    assert len(covered) == len(set(covered))
    assert all(end + DAY < start for (_, end), (start, _) in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("path", "day"),
    [
        ("file:/log/dt=2024-05-01/a.parquet", D1),
        ("file:/log/x=1/dt=20240502/a.parquet", D2),
        ("file:/exports/dt=2024-06-01/log/dt=2024-05-01/a.parquet", D1),
        ("file:/log/my_dt=2024-05-01/a.parquet", None),
        ("file:/log/dt=2024-13-01/a.parquet", None),
        ("file:/log/dt=soon/a.parquet", None),
        ("file:/log/dt=2024-05-01", None),  # a file
    ],
)
def test_the_day_of_a_folder_is_read_from_its_own_column_only(path: str, day: date | None) -> None:
    assert folder_day(path, Partition(column="dt", holds="event_date")) == day


def test_a_partition_column_may_have_characters_of_patterns() -> None:
    partition = Partition(column="d.t", holds="event_date")
    assert folder_day("/d.t=2024-05-01/a", partition) == D1
    assert folder_day("/dxt=2024-05-01/a", partition) is None
