"""The newest tiles of each row, against plain Python on random tiles."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.evaluation_world import found_tiles
from userrep.evaluation.newest_tiles import NO_DAY, newest_by_row
from userrep.evaluation.sampled_rows import TEST, Rows

pytestmark = pytest.mark.fast

AS_OF = date(2024, 3, 10)
DAY = (AS_OF - date(1970, 1, 1)).days
DAY_US = 86_400_000_000
USERS = "abcd"
ITEM_IDS = pa.array([f"i{k}" for k in range(8)])

Row = dict[str, Any]


def tile(user: str, age: int, item: int = 0, hour: int = 0, num_events: int = 1) -> Row:
    """Build a tile, ``age`` days before the as-of date."""
    return {
        "user_id": user, "item_id": f"i{item}", "weight": 1.0, "num_events": num_events,
        "last_event_at": (DAY - age) * DAY_US + hour * 3_600_000_000, "num_night": num_events, "num_morning": 0,
        "num_afternoon": 0, "num_evening": 0, "day": DAY - age, "before": False, "after": True,
    }  # fmt: skip


tiles_of_users = st.lists(
    st.builds(
        tile, st.sampled_from([*USERS, "eve"]), st.integers(-1, 8), st.integers(0, 6), st.integers(0, 23),
        st.integers(1, 4),
    ),
    max_size=40,
)  # fmt: skip


def rows_of_four() -> Rows:
    """Make a row of each of four users at the as-of date."""
    empty = pa.RecordBatch.from_pydict({"user_id": pa.array(list(USERS))})
    return Rows(pa.array(list(USERS)), (AS_OF,), np.arange(4), np.zeros(4, np.int64), np.full(4, TEST, np.int8), empty)


@given(tiles_of_users, st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_the_newest_tiles_of_rows_at_several_dates_are_those_found_one_by_one(tiles: list[Row], most: int) -> None:
    dates = tuple(AS_OF + timedelta(days=k) for k in (-2, 0, 1))
    users, days = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
    kept = (users + days) % 4 != 0  # not all users are known at all dates
    rows = replace(rows_of_four(), dates=dates, user_N=users[kept], date_N=days[kept])
    newest = newest_by_row(found_tiles(tiles, dates, most=max(1, most)), rows, span=3)
    history = newest.history(most, len(rows), ITEM_IDS).toarray()
    for n in range(len(rows)):
        user, day = USERS[rows.user_N[n]], (dates[rows.date_N[n]] - date(1970, 1, 1)).days
        mine = [row for row in tiles if row["user_id"] == user and day - 3 <= row["day"] < day]
        in_order = sorted(mine, key=lambda row: (-row["last_event_at"], row["item_id"], -row["num_events"]))[:most]
        found = newest.tiles.filter(pa.array((newest.row_E == n) & (newest.rank_E < most))).to_pylist()
        assert [row["last_event_at"] for row in found] == [row["last_event_at"] for row in in_order]
        assert history[n].sum() == sum(row["num_events"] for row in found)
    earlier = [row for row in tiles if row["day"] < DAY + 1]  # than the last date
    first = {user: min((row["day"] for row in earlier if row["user_id"] == user), default=None) for user in USERS}
    for k, user in enumerate(USERS):
        assert newest.first_day_U[k] == (np.iinfo(np.int64).max if first[user] is None else first[user])


def test_the_history_counts_events_of_the_newest_tiles_by_item() -> None:
    tiles = [tile("b", 1, 2, 9, 4), tile("b", 1, 5, 8, 3), tile("b", 2, 2, 7, 2), tile("c", 3, 1, 6, 9)]
    newest = newest_by_row(found_tiles(tiles, [AS_OF]), rows_of_four(), span=5)
    for most, of_b, of_c in ((0, {}, {}), (1, {2: 4}, {1: 9}), (2, {2: 4, 5: 3}, {1: 9}), (3, {2: 6, 5: 3}, {1: 9})):
        wanted = np.zeros((4, 8))
        for row, counts in ((1, of_b), (2, of_c)):
            wanted[row, list(counts)] = list(counts.values())
        assert newest.history(most, 4, ITEM_IDS).toarray().tolist() == wanted.tolist()


def test_tiles_of_the_date_and_tiles_older_than_the_span_are_not_among_the_newest() -> None:
    tiles = [tile("a", 0), tile("b", 1), tile("c", 5), tile("d", 6)]
    newest = newest_by_row(found_tiles(tiles, [AS_OF]), rows_of_four(), span=5)
    assert newest.row_E.tolist() == [1, 2]
    assert newest.first_day_U.tolist() == [NO_DAY, DAY - 1, DAY - 5, DAY - 6]


def test_a_user_without_a_tile_has_no_first_day_and_other_users_tiles_are_dropped() -> None:
    newest = newest_by_row(found_tiles([tile("eve", 1), tile("a", 2)], [AS_OF]), rows_of_four(), span=5)
    assert newest.first_day_U.tolist() == [DAY - 2, NO_DAY, NO_DAY, NO_DAY]
    assert len(newest.tiles) == 1
