"""Training dates of a log."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from userrep.errors import UsageError
from userrep.workflows.training_dates import training_dates

pytestmark = pytest.mark.fast

UNTIL = date(2024, 5, 1)


def dates(folder: Path, first: date, anchor: date | None = None, **sections: Any) -> list[date]:
    config = config_of(folder, training={"future_days": [7], "as_ofs": {"max_dates": 4}}, **sections)
    return training_dates(config, first=first, until=UNTIL, anchor=anchor)


def test_dates_go_back_from_the_end_less_the_longest_future(tmp_path: Path) -> None:
    last = UNTIL - timedelta(days=7)
    assert dates(tmp_path, date(2023, 1, 1)) == [last - timedelta(days=7 * k) for k in (3, 2, 1, 0)]


def test_dates_before_the_first_item_vectors_are_left_out(tmp_path: Path) -> None:
    first = UNTIL - timedelta(days=14 + 14)
    assert dates(tmp_path, first) == [UNTIL - timedelta(days=14), UNTIL - timedelta(days=7)]
    assert dates(tmp_path, first, anchor=UNTIL + timedelta(days=1)) == [UNTIL - timedelta(days=7)]


def test_a_log_that_starts_too_late_is_refused_with_the_earliest_end(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"until 2024-05-01: no training date is possible, .* Choose 2024-05-27 or l"):
        dates(tmp_path, UNTIL - timedelta(days=2))
