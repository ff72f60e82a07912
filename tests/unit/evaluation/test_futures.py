"""Activity of the sampled users: sums between cuts against plain Python, window by window."""

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from tests.support.evaluation_world import PLAN, World, activity_from, windows_by_hand, world
from userrep.evaluation.futures import (
    NO_PICKS,
    Activity,
    Futures,
    activity_of,
    boundaries_of,
)

pytestmark = pytest.mark.fast

D = PLAN.test[0]
MARCH = date(2024, 3, 1)
CUTS = (date(2024, 3, 1), date(2024, 3, 8), date(2024, 3, 15))
ENTRIES = [  # user_id, item_id, slot, num_events, weight: before, between and after the cuts
    ("ann", "cup", 0, 1, 0.5), ("ann", "cup", 1, 2, 2.5), ("ann", "pot", 2, 4, 4.5),
    ("zoe", "pot", 1, 8, 8.5), ("ann", "pot", 3, 16, 16.5), ("eve", "cup", 1, 32, 32.5),
]  # fmt: skip


@pytest.fixture(scope="module")
def planted() -> World:
    return world()


def small_activity(
    popularity: dict[str, tuple[date, int, int]] | None = None, picks: list[tuple[str, str]] | None = None
) -> Activity:
    """Number the entries above, for users ann and zoe and items cup and pot; by item its first day and two counts."""
    columns = zip(*ENTRIES, strict=True)
    entries = pa.table(dict(zip(("user_id", "item_id", "slot", "num_events", "weight"), columns, strict=True)))
    popular = pa.Table.from_pylist(
        [
            {"item_id": item, "first_day": first, "before_0": float(earlier), "before_1": float(later)}
            for item, (first, earlier, later) in (popularity or {}).items()
        ],
        pa.schema({
            "item_id": pa.string(), "first_day": pa.date32(), "before_0": pa.float64(), "before_1": pa.float64()
        }),
    )  # fmt: skip
    picked = picks and pa.table({"user_id": [user for user, _ in picks], "item_id": [item for _, item in picks]})
    return activity_of(
        pa.array(["ann", "zoe"]), pa.array(["cup", "pot"]), entries, popular, boundaries=CUTS, dates=CUTS[:2],
        picks=picked or NO_PICKS,
    )  # fmt: skip


def test_histories_futures_and_popularity_are_those_counted_one_by_one(planted: World) -> None:
    rows, futures = planted.rows, planted.truth.futures
    history, soon, late, weight = (
        m.toarray() for m in (futures.history, futures.num_events(7), futures.num_events(30), futures.weight(30))
    )
    for row in np.random.default_rng(0).choice(len(rows), 60, replace=False):
        user, day = int(rows.user_N[row]), rows.dates[rows.date_N[row]]
        before, within_30, weighs = windows_by_hand(planted.events, user, day, 30)
        _, within_7, _ = windows_by_hand(planted.events, user, day, 7)
        for counted, found in ((before, history), (within_7, soon), (within_30, late)):
            assert {i: n for i, n in enumerate(found[row]) if n} == counted
        assert weight[row].sum() == weighs
    for d, day in enumerate(rows.dates):
        popular = Counter(e.item for e in planted.events if day - timedelta(days=30) <= e.day < day)
        assert {i: n for i, n in enumerate(planted.truth.activity.popularity_DI[d]) if n} == popular
        sold = {e.item for e in planted.events if e.day < day}
        assert set(np.flatnonzero(planted.truth.activity.is_sold_DI[d])) == sold


def test_an_event_moved_past_the_date_changes_what_lies_before_and_after_it_and_nothing_else() -> None:
    planted = world(num_users=40, num_items=20, per_day=0.5)
    moved = next(e for e in planted.events if e.day == D - timedelta(days=1))
    events = [replace(e, day=D) if e is moved else e for e in planted.events]
    there, then = planted.truth.futures, Futures(planted.rows, activity_from(events, planted.rows, 20))
    mine = planted.rows.user_N == moved.user
    at_date = mine & (planted.rows.as_of_N == np.datetime64(D))
    for name, was, now in (
        ("history", there.history, then.history),
        ("7 days", there.num_events(7), then.num_events(7)),
    ):
        rows, items = (now - was).nonzero()
        assert set(rows) == set(np.flatnonzero(at_date)), name  # no row of training ends its future at this date
        assert set(items) == {moved.item}, name
    changed = there.activity.popularity_DI != then.activity.popularity_DI
    assert [(PLAN.dates[d], i) for d, i in zip(*np.nonzero(changed), strict=True)] == [(D, moved.item)]


def test_time_is_cut_where_a_window_of_a_date_begins_or_ends() -> None:
    plan = replace(PLAN, horizons=(7, 30), train=(MARCH,), test=(date(2024, 3, 31),))
    assert boundaries_of(plan) == (MARCH, date(2024, 3, 8), date(2024, 3, 31), date(2024, 4, 7), date(2024, 4, 30))


def test_a_window_starts_with_its_first_day_and_ends_before_its_last() -> None:
    activity = small_activity()
    first, second, third = CUTS
    for start, end, num_events, weight in (
        (None, first, [[1, 0], [0, 0]], [[0.5, 0], [0, 0]]),
        (first, second, [[2, 0], [0, 8]], [[2.5, 0], [0, 8.5]]),
        (second, third, [[0, 4], [0, 0]], [[0, 4.5], [0, 0]]),
        (first, third, [[2, 4], [0, 8]], [[2.5, 4.5], [0, 8.5]]),
        (None, third, [[3, 4], [0, 8]], [[3, 4.5], [0, 8.5]]),
    ):
        assert activity.num_events(start, end).toarray().tolist() == num_events
        assert activity.weight(start, end).toarray().tolist() == weight


def test_a_window_that_does_not_begin_and_end_at_a_cut_is_refused() -> None:
    for start, end in ((CUTS[0], date(2024, 3, 9)), (date(2024, 3, 2), CUTS[1])):
        with pytest.raises(ValueError, match="not in tuple"):
            small_activity().num_events(start, end)


def test_popularity_is_that_of_each_date_and_an_item_sold_earlier_stays_on_sale() -> None:
    # The dates are 1 and 8 March 2024.
    activity = small_activity({"pot": (date(2024, 3, 1), 0, 16), "cup": (date(2024, 1, 1), 6, 12)})
    assert activity.popularity_DI.tolist() == [[6, 0], [12, 16]]
    assert activity.is_sold_DI.tolist() == [[True, False], [True, True]]
    only_long_ago = small_activity({"cup": (date(2024, 1, 1), 0, 0)})
    assert only_long_ago.popularity_DI.tolist() == [[0, 0], [0, 0]]
    assert only_long_ago.is_sold_DI.tolist() == [[True, False], [True, False]]


def test_picks_of_the_rows_users_are_kept_and_those_of_other_users_are_not() -> None:
    activity = small_activity(picks=[("zoe", "cup"), ("eve", "pot")])
    assert activity.picked.toarray().tolist() == [[False, False], [True, False]]
    assert small_activity().picked.toarray().tolist() == [[False, False], [False, False]]


def test_cut_rows_have_the_history_that_is_known_and_the_whole_future(planted: World) -> None:
    whole = planted.truth.futures
    known = whole.history * 0
    cut = Futures(whole.rows, whole.activity, known)
    assert cut.history is known
    assert (cut.num_events(7) != whole.num_events(7)).nnz == 0
    assert whole.num_events(7).nnz > 0
