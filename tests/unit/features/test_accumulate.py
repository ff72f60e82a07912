"""Sums per user by rings of days: which day is in which window, exact in any order, and removable without a trace."""

from collections.abc import Sequence
from datetime import date, timedelta
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from userrep.features.spec import FeatureSpec
from userrep.features.sums.accumulate import (
    NEVER,
    Ints,
    Sums,
    Tiles,
    add_last_events,
    clear_last_events,
    move_tiles,
    num_sums,
    pooled_width,
)

pytestmark = pytest.mark.fast

SPEC = FeatureSpec(
    windows_days=[1, 3],
    history_days=6,
    modalities={"behaviour": 2, "content": 1},
    onboarding=False,
    registered_at=False,
    attributes=[],
    context=["device"],
)
AS_OF = date(2024, 3, 10)  # a Sunday
DAY = (AS_OF - date(1970, 1, 1)).days
HOUR = 3_600_000_000  # microseconds
NUM_USERS = 3
# Of each item: the two numbers of its first vector, the one of its second, and a mark for each vector it has.
VECTORS_IX = np.array([[0.5, -1.25, 2.0, 1, 1], [0.1 * 2**16 // 1 / 2**16, 3.0, 0.0, 1, 0], [0, 0, -7.5, 0, 1]])


class Row(NamedTuple):
    """A tile, ``age`` days before the as-of date."""

    user: int = 0
    age: int = 1
    item: int = 0
    weight: float = 1.0
    num_events: int = 1
    hour: int = 12
    is_tv: bool = True
    after: bool = True


rows_of_users = st.lists(
    st.builds(
        Row,
        st.integers(0, NUM_USERS - 1),
        st.integers(-1, 8),
        st.integers(-1, len(VECTORS_IX) - 1),
        st.integers(-5000, 5000).map(lambda n: n / 256),
        st.integers(1, 5),
        st.integers(0, 23),
        st.booleans(),
    ),
    max_size=30,
)


def tiles_of(rows: Sequence[Row]) -> Tiles:
    return Tiles(
        user_N=np.array([row.user for row in rows], np.int64),
        day_N=np.array([DAY - row.age for row in rows], np.int64),
        weight_N=np.array([row.weight for row in rows], np.float64),
        num_events_N=np.array([row.num_events for row in rows], np.int64),
        at_N=np.array([(DAY - row.age) * 24 * HOUR + row.hour * HOUR for row in rows], np.int64),
        parts_N4=np.array([[row.num_events * (row.hour // 6 == k) for k in range(4)] for row in rows]).reshape(-1, 4),
        context_NK=scipy.sparse.csr_array(
            np.array([[row.num_events * row.is_tv, row.num_events * (not row.is_tv)] for row in rows]).reshape(-1, 2)
        ),
        before_N=np.zeros(len(rows), bool),
        after_N=np.array([row.after for row in rows], bool),
    )


def zero_sums(num_users: int, spec: FeatureSpec, days: range, num_context_keys: int) -> Sums:
    """Return the sums of users without events. ``days``: the days covered by ``last_at_UT``."""
    return Sums(
        flat_US=np.zeros((num_users, num_sums(spec))),
        last_at_UT=np.full((num_users, len(days)), NEVER),
        first_day=days.start,
        context_UK=scipy.sparse.csr_array((num_users, num_context_keys), dtype=np.int64),
    )


def nothing() -> Sums:
    return zero_sums(NUM_USERS, SPEC, range(DAY - SPEC.span, DAY), 2)


def changed(sums: Sums, rows: Sequence[Row], before: Ints, after: Ints) -> Sums:
    items = np.array([row.item for row in rows], np.int64)
    return move_tiles(sums, tiles_of(rows), items, VECTORS_IX, SPEC, old_ring_N=before, new_ring_N=after)


def added(rows: Sequence[Row], sums: Sums | None = None, *, as_of: date = AS_OF) -> Sums:
    """Add tiles to sums where they are as seen from a date."""
    nowhere = np.full(len(rows), -1)
    return changed(sums or nothing(), rows, nowhere, tiles_of(rows).rings(SPEC, as_of))


def test_a_window_of_w_days_begins_w_days_before_the_date_and_ends_the_day_before() -> None:
    ages = [-1, 0, 1, 2, 3, 4, 6, 7]
    rings = tiles_of([Row(age=age) for age in ages]).rings(SPEC, AS_OF)
    assert rings.tolist() == [-1, -1, 0, 1, 1, 2, 2, -1]


def test_widths_count_vectors_marks_weights_events_parts_of_the_day_and_weekdays() -> None:
    assert pooled_width(SPEC) == 2 + 1 + 2
    assert num_sums(SPEC) == 3 * (5 + 1 + 1) + 4 + 7


@given(rows_of_users)
@settings(max_examples=60, deadline=None)
def test_sums_are_weight_times_vector_added_up_without_any_rounding(rows: list[Row]) -> None:
    want = [[[Fraction(0)] * 7 for _ in range(3)] for _ in range(NUM_USERS)]  # by user and ring
    for row in rows:
        ring = next((r for r, window in enumerate((1, 3, 6)) if 1 <= row.age <= window), None)
        if ring is None:
            continue
        vector = VECTORS_IX[row.item] if row.item >= 0 else np.zeros(5)
        parts = [Fraction(row.weight) * Fraction(x) for x in vector] + [Fraction(row.weight), Fraction(row.num_events)]
        cell = want[row.user][ring]
        want[row.user][ring] = [a + b for a, b in zip(cell, parts, strict=True)]
    sums = added(rows)
    found = np.dstack(sums.views(SPEC)[:3])
    assert found.tolist() == [[[float(x) for x in cell] for cell in rings] for rings in want]


@given(rows_of_users, st.randoms(use_true_random=False), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_neither_the_order_nor_the_split_of_tiles_changes_a_bit(rows: list[Row], random: object, cut: int) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    whole, parts = added(rows), added(shuffled[cut:], added(shuffled[:cut]))
    np.testing.assert_array_equal(parts.flat_US, whole.flat_US)
    np.testing.assert_array_equal(parts.context_UK.toarray(), whole.context_UK.toarray())


@given(rows_of_users, rows_of_users)
@settings(max_examples=60, deadline=None)
def test_tiles_that_are_taken_away_leave_no_trace(kept: list[Row], removed: list[Row]) -> None:
    sums, rings = added([*kept, *removed]), tiles_of(removed).rings(SPEC, AS_OF)
    left = changed(sums, removed, rings, np.full(len(removed), -1))
    np.testing.assert_array_equal(left.flat_US, added(kept).flat_US)
    np.testing.assert_array_equal(left.context_UK.toarray(), added(kept).context_UK.toarray())
    assert (left.context_UK.data != 0).all()


@given(rows_of_users, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_sums_that_move_to_a_later_date_equal_those_made_for_it(rows: list[Row], days: int) -> None:
    later = AS_OF + timedelta(days=days)
    before, after = (tiles_of(rows).rings(SPEC, as_of) for as_of in (AS_OF, later))
    walked, made = changed(added(rows), rows, before, after), added(rows, as_of=later)
    np.testing.assert_array_equal(walked.flat_US, made.flat_US)
    np.testing.assert_array_equal(walked.context_UK.toarray(), made.context_UK.toarray())


def test_an_event_without_an_item_vector_counts_and_adds_no_vector() -> None:
    sums = added([Row(user=1, age=2, item=-1, weight=2.5, num_events=3)])
    assert sums.views(SPEC).weight_UR.tolist() == [[0, 0, 0], [0, 2.5, 0], [0, 0, 0]]
    assert sums.views(SPEC).num_events_UR.tolist() == [[0, 0, 0], [0, 3, 0], [0, 0, 0]]
    assert not sums.views(SPEC).pooled_URX.any()


def test_parts_of_the_day_weekdays_and_context_are_counted_over_the_longest_window_without_the_history() -> None:
    in_window = [Row(age=1, hour=0, num_events=2), Row(age=3, hour=23, num_events=5, is_tv=False)]  # Saturday, Thursday
    sums = added([*in_window, Row(age=4, num_events=100), Row(age=6, num_events=1000), Row(age=0, num_events=10_000)])
    night, morning, afternoon, evening, *weekdays = sums.views(SPEC).shares_US[0].tolist()
    assert (night, morning, afternoon, evening) == (2, 0, 0, 5)
    assert weekdays == [0, 0, 0, 5, 0, 2, 0]
    assert sums.context_UK.toarray()[0].tolist() == [2, 5]


def test_the_last_event_of_a_day_is_the_latest_among_the_tiles_that_count() -> None:
    sums = nothing()
    rows = [Row(age=1, hour=9), Row(age=1, hour=15), Row(age=1, hour=11), Row(age=1, hour=20, after=False)]
    add_last_events(sums, tiles_of([*rows, Row(user=2, age=6, hour=1), Row(age=0), Row(age=7)]))
    found = {(user, DAY - SPEC.span + k): at for (user, k), at in np.ndenumerate(sums.last_at_UT) if at != NEVER}
    assert found == {(0, DAY - 1): ((DAY - 1) * 24 + 15) * HOUR, (2, DAY - 6): ((DAY - 6) * 24 + 1) * HOUR}


def test_last_events_of_changed_days_are_forgotten_and_others_stay() -> None:
    sums = nothing()
    add_last_events(sums, tiles_of([Row(age=age) for age in (1, 2, 3)]))
    clear_last_events(sums, [DAY - 2, DAY, DAY - 7, DAY - 100])  # only the first of them is in the sums
    assert (sums.last_at_UT[0] != NEVER).tolist() == [False, False, False, True, False, True]


def test_last_events_of_a_date_are_those_of_its_windows_days() -> None:
    sums = zero_sums(1, SPEC, range(DAY - 10, DAY + 4), 0)
    sums.last_at_UT[0] = np.arange(DAY - 10, DAY + 4)
    assert sums.last_at_before(SPEC, AS_OF).tolist() == [list(range(DAY - 6, DAY))]


def test_sums_of_another_version_start_from_zero_and_keep_the_last_events() -> None:
    sums = added([Row()])
    add_last_events(sums, tiles_of([Row()]))
    empty = sums.emptied()
    assert not empty.flat_US.any()
    assert empty.context_UK.nnz == 0
    assert sums.flat_US.any()
    np.testing.assert_array_equal(empty.last_at_UT, sums.last_at_UT)
