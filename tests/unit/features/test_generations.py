"""The tiles in which two states of the window sums differ."""

from datetime import date, timedelta

import pytest

from userrep.features.spec import FeatureSpec
from userrep.features.sums.generations import Generation, TileDays, differing_tiles

pytestmark = pytest.mark.fast

SPEC = FeatureSpec(
    windows_days=[2, 4], modalities={"own": 3}, onboarding=False, registered_at=False, attributes=[], context=[]
)
D = date(2024, 3, 10)


def before(days: int) -> date:
    return D - timedelta(days=days)


def state(as_of: date, revisions: dict[int, int]) -> Generation:
    """Return a generation with revisions by the number of days before ``D``."""
    return Generation("l1", 1, as_of, D, {before(days): revision for days, revision in revisions.items()}, 0)


def difference_of(leaving: dict[date, int], entering: dict[date, int], passing: dict[date, int]) -> TileDays:
    by_counts = {(True, False): leaving, (False, True): entering, (True, True): passing}
    return {key: counts for counts, days in by_counts.items() for key in days.items()}


def test_without_a_base_all_days_enter() -> None:
    target = state(D, {1: 1, 2: 1, 3: 4, 4: 1})
    difference = differing_tiles(None, target, SPEC)
    assert difference == difference_of({}, target.revision_by_day, {})


def test_from_one_day_to_the_next_a_day_enters_one_leaves_and_one_passes_to_the_next_ring() -> None:
    base, target = state(before(1), {2: 1, 3: 1, 4: 1, 5: 1}), state(D, {1: 1, 2: 1, 3: 1, 4: 1})
    difference = differing_tiles(base, target, SPEC)
    assert difference == difference_of({before(5): 1}, {before(1): 1}, {before(3): 1})
    assert sorted(difference) == [(before(5), 1), (before(3), 1), (before(1), 1)]


def test_a_changed_day_leaves_with_its_old_revision_and_enters_with_the_new_one() -> None:
    base, target = state(D, {1: 1, 2: 1, 3: 1, 4: 1}), state(D, {1: 1, 2: 7, 3: 1, 4: 1})
    assert differing_tiles(base, target, SPEC) == difference_of({before(2): 1}, {before(2): 7}, {})
