"""Dates of a backfill that maintenance removes soon."""

from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from userrep.workflows import daily

pytestmark = pytest.mark.fast

LAST = date(2024, 6, 20)


@pytest.mark.parametrize(
    ("published", "num_days", "line"),
    [
        ([], 14, None),
        ([], 16, "backfill: 2 dates older than snapshots.keep_daily (14d); maintenance keeps the first of each week."),
        ([LAST + timedelta(days=7)], 8, "backfill: 1 date older than snapshots.keep_daily (14d)"),
    ],
)  # fmt: skip
def test_dates_older_than_keep_daily_are_announced(
    monkeypatch: pytest.MonkeyPatch, lines: list[str], published: list[date], num_days: int, line: str | None
) -> None:
    monkeypatch.setattr(daily, "list_snapshots", lambda *_: [SimpleNamespace(as_of=day) for day in published])
    dates = [LAST - timedelta(days=k) for k in reversed(range(num_days))]
    settings = SimpleNamespace(snapshots=SimpleNamespace(keep_daily=timedelta(days=14)))
    work = cast(Any, SimpleNamespace(tables=None, config=settings))
    daily._warn_of_expiry(work, cast(Any, SimpleNamespace(space_id="s001-a")), dates)
    assert len(lines) == (line is not None)
    assert all(found.removeprefix("warning: ").startswith(str(line)) for found in lines)
