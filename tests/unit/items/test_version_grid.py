"""The grid of versions."""

from datetime import date

import pytest

from userrep.items.version_grid import version_at

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(("day", "version"), [(1, 1), (7, 1), (8, 8), (14, 8)])
def test_the_newest_date_of_the_grid_applies(day: int, version: int) -> None:
    for anchor in (date(2024, 5, 1), date(2024, 5, 15), date(2024, 4, 24)):
        assert version_at(date(2024, 5, day), anchor=anchor, refit_days=7) == date(2024, 5, version)
