"""Dates of a backfill that the next daily run removes."""

from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from userrep.config import Snapshots
from userrep.workflows import daily

pytestmark = pytest.mark.fast

LAST = date(2024, 6, 20)  # a Thursday


@pytest.mark.parametrize(
    ("published", "days_ago", "num_removed"),
    [
        ([], range(14), 0),
        ([], range(18), 3),  # of 15 to 18 days ago, the Monday is kept
        ([], range(0, 70, 7), 0),  # a date per week
        ([], [200, 0], 1),
        ([LAST + timedelta(days=7)], range(9), 1),
        ([LAST - timedelta(days=15)], [14, 0], 1),  # the week has a published date
    ],
)
def test_dates_that_the_next_daily_run_removes_are_announced(
    monkeypatch: pytest.MonkeyPatch, lines: list[str], published: list[date], days_ago: Any, num_removed: int
) -> None:
    monkeypatch.setattr(daily, "list_snapshots", lambda *_: [SimpleNamespace(as_of=day) for day in published])
    dates = sorted(LAST - timedelta(days=k) for k in days_ago)
    schedule = SimpleNamespace(snapshot_dates=lambda space: [])
    work = cast(Any, SimpleNamespace(tables=None, config=SimpleNamespace(snapshots=Snapshots()), schedule=schedule))
    daily._warn_of_expiry(work, cast(Any, SimpleNamespace(space_id="s001-a")), dates)
    assert len(lines) == (num_removed > 0)
    assert all(f"the next daily run removes {num_removed} of these dates" in line for line in lines)
