"""The warnings about a log: which days they list, and how they count."""

from datetime import date, timedelta

import pytest

from userrep.tiles.inventory.log_warnings import future_days, missing_days

pytestmark = pytest.mark.fast

D1, D2, D3, D4 = (date(2024, 5, day) for day in (1, 2, 3, 4))


def test_gaps_within_the_log_are_listed_and_their_days_counted() -> None:
    assert missing_days([D1, D2, D3]) == ""
    assert missing_days([]) == ""
    assert missing_days([D1, D3]) == "events: 1 days within the log have no rows: 2024-05-02"
    assert missing_days([D1, D4, date(2024, 5, 7)]) == (
        "events: 4 days within the log have no rows: 2024-05-02 to 2024-05-03, 2024-05-05 to 2024-05-06"
    )
    twelve = [D1 + timedelta(days=2 * k) for k in range(13)]
    assert missing_days(twelve).startswith("events: 12 days within the log have no rows: 2024-05-02, 2024-05-04, ")
    assert missing_days(twelve).endswith(", 2024-05-20, and 2 more gaps")


def test_days_that_are_held_back_are_named_with_their_rows_if_these_are_counted() -> None:
    assert future_days([], 0) == []
    assert future_days([D1], 1200) == ["events: 1,200 rows of 2024-05-01 are held back until their day has come"]
    assert future_days([D1, D3], None) == [
        "events: rows of 2 days (2024-05-01 to 2024-05-03) are held back until their day has come"
    ]
