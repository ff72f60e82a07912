"""Times in UTC and numbers of days, compared with numpy."""

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hostile import fuzzed
from userrep.utc import DAY_US, day_number, newest_as_of, numbered_day, utc_now

pytestmark = pytest.mark.fast


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process run in a time zone that is nine hours ahead of UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


def test_the_clock_is_that_of_utc_in_any_time_zone_and_carries_none(tokyo: None) -> None:
    assert time.localtime().tm_gmtoff == 9 * 3600
    before = datetime.now(UTC)
    now = utc_now()
    assert now.tzinfo is None
    assert before <= now.replace(tzinfo=UTC) <= datetime.now(UTC)


@fuzzed(100)
@given(st.dates())
def test_days_are_numbered_as_numpy_numbers_them_and_come_back(day: date) -> None:
    assert day_number(day) == int(np.datetime64(day, "D").astype(np.int64))
    assert numbered_day(day_number(day)) == day


def test_a_day_has_as_many_microseconds_as_there_are_between_two_midnights() -> None:
    midnights = [np.datetime64(date(2024, 2, day), "us").astype(np.int64) for day in (28, 29)]
    assert midnights[1] - midnights[0] == DAY_US


def test_the_newest_as_of_date_follows_the_log_and_is_not_after_today() -> None:
    now = datetime(2024, 5, 3, 9)
    assert [newest_as_of(date(2024, 5, day), now).day for day in (1, 2, 3, 4)] == [2, 3, 3, 3]
