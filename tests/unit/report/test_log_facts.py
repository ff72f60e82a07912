"""The log by day: which days are missing, and what is usual of a weekday."""

from datetime import date, timedelta

import pytest

from tests.support.report_facts import FIRST
from userrep.report.log_facts import log_facts
from userrep.tiles.ledger import NO_ROWS, TileDay, TileLedger

pytestmark = pytest.mark.fast


def ledger(events: dict[date, int]) -> TileLedger:
    days = {day: TileDay("f", "c", 1, num, 1) for day, num in events.items()}
    return TileLedger(1, days, TileDay("", "", 0, 0, 0), {})


def test_a_day_is_small_compared_with_its_weekday_and_closed_saturdays_are_not_small() -> None:
    days = [FIRST + timedelta(days=k) for k in range(70)]
    open_days = {day: 100 for day in days if day.weekday() != 5}
    found = log_facts(ledger(open_days | {days[-1]: 19, days[-3]: 20}), {}, 0.05)
    assert [of.day for of in found.days if of.is_missing] == [day for day in days if day.weekday() == 5]
    assert [of.day for of in found.days if of.is_small] == [days[-1]]
    assert found.days[-1].usual == 100
    del open_days[days[60]]
    small = [of.day for of in log_facts(ledger(open_days), {}, 0.05).days if of.is_small]
    assert small == [days[60]]
    assert log_facts(ledger({}), {}, 0.05).days == []


def test_what_is_usual_is_the_median_of_the_same_weekday_in_eight_weeks_before() -> None:
    mondays = [FIRST + timedelta(weeks=k) for k in range(11)]  # 2024-01-01 is a Monday
    events = dict(zip(mondays, [9, 9, 1, 2, 3, 4, 5, 6, 7, 8, 1000], strict=True))
    others = {FIRST + timedelta(days=k): 500 for k in range(77) if k % 7}
    found = {of.day: of.usual for of in log_facts(ledger(events | others), {}, 0.05).days}
    assert [found[day] for day in mondays] == [None, None, None, 9, 5.5, 3, 3.5, 4, 4.5, 4.5, 4.5]
    assert found[mondays[-1] + timedelta(days=1)] == 500


def test_a_day_whose_rows_have_left_the_log_is_missing() -> None:
    numbers = {FIRST + timedelta(days=k): TileDay("f", NO_ROWS if k in (1, 3) else "c", 2, 10, 0) for k in range(4)}
    found = log_facts(TileLedger(1, numbers, TileDay("", "", 0, 0, 0), {}), {}, 0.01)
    assert [(day.day, day.is_missing) for day in found.days] == [
        (FIRST, False), (FIRST + timedelta(days=1), True), (FIRST + timedelta(days=2), False),
    ]  # fmt: skip


def test_days_have_the_counts_of_the_ledger_and_missing_ones_none() -> None:
    days = {FIRST: TileDay("f", "c", 2, 10, 3), FIRST + timedelta(days=2): TileDay("f", "c", 1, 20, 0)}
    found = log_facts(TileLedger(1, days, TileDay("", "", 0, 0, 5), {}), {"bad_time": 5}, 0.01)
    assert [(of.num_events, of.num_rejected, of.is_missing) for of in found.days] == [
        (10, 3, False), (0, 0, True), (20, 0, False),
    ]  # fmt: skip
    assert (found.rejected, found.max_rejected_share) == ({"bad_time": 5}, 0.01)
