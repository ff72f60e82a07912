"""Cut rows and new users without Spark: what is known of them, and which users are new."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.evaluation_world import (
    FIRST_DAY,
    PLAN,
    Event,
    World,
    first_days,
    found_tiles,
    item_id,
    judged,
    truth_of,
    world_with_newcomers,
)
from tests.unit.features.test_features import (
    AS_OF,
    DAY,
    SPEC,
    VECTORS,
    Row,
    expected,
    profile,
    profiles_of_users,
    tiles_of_users,
    vectors,  # noqa: F401  # a fixture
)
from userrep.evaluation.newcomers import TruncatedRows
from userrep.evaluation.newest_tiles import NewestTiles, newest_by_row
from userrep.evaluation.sampled_rows import NO_ROLE, TEST, TRAIN, VALID, Rows
from userrep.evaluation.tasks.pairs import new_users
from userrep.evaluation.tasks.task import Truth
from userrep.features.layout import exported_form
from userrep.features.sums.chunk import PROFILES
from userrep.utc import DAY_US, day_number

pytestmark = pytest.mark.fast

U = "abcd"


def rows_of_four() -> Rows:
    """Make a row of each of four users at the as-of date."""
    empty = pa.RecordBatch.from_pydict({"user_id": pa.array(list(U))})
    return Rows(pa.array(list(U)), (AS_OF,), np.arange(4), np.zeros(4, np.int64), np.full(4, TEST, np.int8), empty)


def cutter_of(tiles: list[Row], profiles: list[Row], *, num_parts: int = 1) -> TruncatedRows:
    """Put together what rows are cut from, without tables."""
    by_user = {row["user_id"]: row for row in profiles}
    known = pa.Table.from_pylist([by_user.get(user, {}) for user in U], PROFILES)
    newest = newest_by_row(found_tiles(tiles, [AS_OF]), rows_of_four(), span=SPEC.span)
    return TruncatedRows(rows_of_four(), SPEC, newest, known, ((AS_OF, VECTORS),), num_parts)


def newest_by_hand(tiles: list[Row], most: int) -> list[Row]:
    """Keep each user's newest tiles of the widest window."""
    inside = [row for row in tiles if DAY - SPEC.span <= row["day"] < DAY]
    in_order = sorted(inside, key=lambda row: (-row["last_event_at"], row["item_id"], -row["num_events"]))
    return [row for user in U for row in [row for row in in_order if row["user_id"] == user][:most]]


def as_written(row: Row, names: Any) -> Row:
    return {name: sorted(row[name]) if name.startswith("num_by_context") else row[name] for name in names}


@given(tiles_of_users, profiles_of_users, st.sampled_from([0, 1, 3, 10**6]), st.sampled_from([1, 4]))
@settings(max_examples=60, deadline=None)
def test_features_of_cut_rows_are_those_of_the_newest_tiles_and_of_profiles_as_they_are(
    tiles: list[Row], drawn: dict[str, tuple[Any, ...]], most: int, num_parts: int
) -> None:
    profiles = [profile(user, *more) for user, more in drawn.items()]
    wanted = expected(newest_by_hand(tiles, most), profiles)
    made = exported_form(cutter_of(tiles, profiles, num_parts=num_parts).features(most), SPEC).to_pylist()
    assert [(row["user_id"], row["as_of"]) for row in made] == [(user, AS_OF) for user in U]
    for row in made:
        if row["user_id"] in wanted:
            want = wanted[row["user_id"]]
            assert as_written(row, want) == want
        else:  # the batch would not know this user; here it has come with its attributes, and at most a history
            country = next((of["attributes"][0] for of in profiles if of["user_id"] == row["user_id"]), None)
            assert row["attribute_country"] == country
            recent = {name: value for name, value in row.items() if not name.endswith(f"_{SPEC.history_days}d")}
            given = {name: value for name, value in recent.items() if name.startswith(("has_", "num_", "days_"))}
            assert not any(given.values())


@pytest.mark.parametrize("moved_to", [DAY, DAY + 1])
def test_an_event_of_the_date_or_later_is_in_no_cut_row(moved_to: int) -> None:
    tile = {
        "user_id": "a", "item_id": "i0", "weight": 1.0, "num_events": 5, "day": DAY - 1, "before": False, "after": True,
        "last_event_at": (DAY - 1) * DAY_US, "num_night": 5, "num_morning": 0, "num_afternoon": 0, "num_evening": 0,
        "num_by_context": [],
    }  # fmt: skip
    late = tile | {"day": moved_to, "last_event_at": moved_to * DAY_US}
    assert cutter_of([tile], []).features(1).to_pylist()[0]["num_events_3d"] == 5
    for tiles, num_events in (([late], 0), ([tile, late], 5)):
        cutter = cutter_of(tiles, [])
        assert cutter.features(1).to_pylist()[0]["num_events_3d"] == num_events
        assert cutter.newest.history(9, 4, pa.array(["i0"])).sum() == num_events


# -- new users, on a planted world ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted() -> World:
    return world_with_newcomers()


def tile_of(event: Event) -> Row:
    """Make a tile of an event; the world's events of a day have no order, but tiles have."""
    day = day_number(event.day)
    return {
        "user_id": f"u{event.user:04d}", "item_id": item_id(event.item), "weight": event.weight, "num_events": 1,
        "last_event_at": day * DAY_US + event.item, "day": day, "before": False, "after": True, "num_night": 1,
        "num_morning": 0, "num_afternoon": 0, "num_evening": 0,
    }  # fmt: skip


def cutter_in(planted: World, profiles: list[Row] | None = None) -> TruncatedRows:
    rows = planted.rows
    found = found_tiles([tile_of(event) for event in planted.events], rows.dates, most=10)
    newest = newest_by_row(found, rows, span=90)
    known = pa.Table.from_pylist(profiles or [{}] * len(rows.user_ids), PROFILES)
    return TruncatedRows(rows, SPEC, newest, known, (), 1)


def cut_truth(planted: World, cutter: TruncatedRows) -> Truth:
    rows = replace(planted.rows, role_N=cutter.role_N(PLAN.longest))
    return truth_of(planted.events, rows, planted.item_IT)


def mean_items(planted: World, newest: NewestTiles, most: int) -> NDArray[np.float32]:
    """Average the vectors of the items of each row's newest tiles."""
    known = newest.history(most, len(planted.rows), planted.truth.activity.item_ids)
    sums = known @ planted.item_IT / np.maximum(known.sum(axis=1), 1)[:, None]
    return np.asarray(sums, np.float32)


def test_users_with_an_event_before_the_longest_horizon_are_in_no_test_row_and_new_users_are_not_trained_on(
    planted: World,
) -> None:
    rows, roles = planted.rows, cutter_in(planted).role_N(30)
    first = first_days(planted.events)
    for n in range(len(rows)):
        day = rows.dates[rows.date_N[n]]
        there = first.get(int(rows.user_N[n]))
        is_old = there is not None and there < day - timedelta(days=30)
        assert roles[n] == (NO_ROLE if rows.role_N[n] == TEST and is_old else rows.role_N[n])
    known = [n for n in range(len(rows)) if first.get(int(rows.user_N[n]), date.max) < rows.dates[rows.date_N[n]]]
    tested = {int(rows.user_N[n]) for n in known if roles[n] == TEST}
    trained = {int(rows.user_N[n]) for n in known if roles[n] in (TRAIN, VALID)}
    assert len(tested) > 100
    assert tested & trained == set()  # a user who is new at a test date had no event before a training date


@pytest.mark.parametrize("known", ["registered_at", "picked_at"])
def test_a_user_who_registered_or_picked_long_ago_is_not_new(planted: World, known: str) -> None:
    long_ago = day_number(FIRST_DAY) * DAY_US
    since = {"registered_at": long_ago} if known == "registered_at" else {"pick_items": ["i"], "picked_at": [long_ago]}
    roles = cutter_in(planted, [since] * len(planted.rows.user_ids)).role_N(30)
    assert (roles == TEST).sum() == 0
    assert (roles == NO_ROLE).sum() == (planted.rows.role_N == TEST).sum()


def judged_new(truth: Truth, x_NF: NDArray[np.float32], after: int = 3) -> tuple[float, float, float]:
    return judged(truth, new_users(after, 30, is_blank=False), x_NF)


def test_the_more_events_are_known_the_more_is_known_of_new_users(planted: World) -> None:
    cutter = cutter_in(planted)
    truth = cut_truth(planted, cutter)
    none, one, ten = (judged_new(truth, mean_items(planted, cutter.newest, most), most) for most in (0, 1, 10))
    assert none[0] == 0.5
    assert 0.53 < one[1] < one[0] < ten[1]


def test_with_shuffled_users_nothing_is_known_of_new_users(planted: World) -> None:
    cutter = cutter_in(planted)
    x_NF = mean_items(planted, cutter.newest, 10)
    others = np.random.default_rng(5).permutation(len(x_NF))
    _, low, high = judged_new(cut_truth(planted, cutter), x_NF[others])
    assert low - 0.02 < 0.5 < high + 0.02
