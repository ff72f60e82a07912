"""From sums to stored columns: means, presence flags, who is known at a date, and sums that read back to the bit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.features.test_accumulate import zero_sums
from tests.unit.features.test_features import (
    AS_OF,
    DAY,
    DAY_US,
    FEATURES,
    SPEC,
    Row,
    chunk_of,
    profile,
    ran,
    tile,
    vectors,  # noqa: F401  # a fixture
)
from userrep.features.layout import exported_form
from userrep.features.sums.accumulate import Floats, Sums
from userrep.features.sums.batches import features_batch, stream_base_batch, summed_picks, sums_batch
from userrep.features.sums.blocks import UserBlock, user_blocks
from userrep.features.sums.item_matrix import ItemMatrix

pytestmark = pytest.mark.fast

MIDNIGHT = DAY * DAY_US


def block_of(profiles: list[Row], tiles: list[Row] | None = None) -> UserBlock:
    (block,) = user_blocks(chunk_of(tiles or [], profiles), SPEC)
    return block


def sums_of(block: UserBlock, picks_UX: Floats | None = None) -> Sums:
    """Return empty sums of a block's users."""
    num_users = len(block.user_ids)
    picks_UX = np.zeros((num_users, 7)) if picks_UX is None else picks_UX
    return replace(zero_sums(num_users, SPEC, range(DAY - 6, DAY), len(block.context_keys)), picks_UX=picks_UX)


def features(sums: Sums, block: UserBlock, *, largest: float = 1.0) -> list[dict[str, Any]]:
    rows: list[Row] = exported_form(features_batch(sums, block, SPEC, AS_OF, largest=largest), SPEC).to_pylist()
    return rows


def test_a_mean_is_the_sum_of_a_windows_rings_divided_by_the_weight_of_items_with_that_vector() -> None:
    block = block_of([profile("a", 1, "se", [])])
    sums = sums_of(block, np.array([[3.0, 1.0, 0, 0, 0, 2.0, 0]]))
    sums.views(SPEC).pooled_URX[0, 0] = [
        2.0,
        -4.0,
        0,
        0,
        0,
        2.0,
        0,
    ]  # one day: weight 2 with the first vector, 0 with the other
    sums.views(SPEC).pooled_URX[0, 1] = [1.0, 1.0, 6.0, 9.0, 3.0, 1.0, 3.0]
    sums.views(SPEC).weight_UR[0] = [100.0, 10.0, 1.0]  # items without a vector have weight too
    (row,) = features(sums, block)
    assert (row["behaviour_1d"], row["behaviour_3d"], row["behaviour_6d"]) == ([1, -2], [1, -1], [1, -1])
    assert (row["content_1d"], row["content_3d"], row["content_6d"]) == ([0, 0, 0], [2, 3, 1], [2, 3, 1])
    assert (row["behaviour_onboarding"], row["content_onboarding"]) == ([1.5, 0.5], [0, 0, 0])
    assert {name: row[f"has_{name}"] for name in ("behaviour_1d", "content_1d", "content_3d", "content_6d")} == {
        "behaviour_1d": True, "content_1d": False, "content_3d": True, "content_6d": True,
    }  # fmt: skip
    assert (row["has_behaviour_onboarding"], row["has_content_onboarding"]) == (True, False)
    assert [row[f"weight_{window}d"] for window in (1, 3, 6)] == [100, 110, 111]


def test_users_are_known_by_an_event_in_the_longest_window_or_a_registration_or_pick_before_the_date() -> None:
    def at(user: str, registered_at: int | None, picked_at: list[int]) -> Row:
        own = {"registered_at": registered_at, "pick_items": ["i0"] * len(picked_at), "picked_at": picked_at}
        return profile("a", None, "se", []) | {"user_id": user} | own

    users = {
        "registered at midnight": at("registered at midnight", MIDNIGHT, []),
        "registered before": at("registered before", MIDNIGHT - 1, []),
        "picked at midnight": at("picked at midnight", None, [MIDNIGHT]),
        "picked before": at("picked before", None, [MIDNIGHT - 1, MIDNIGHT]),
        "event in the longest window": at("event in the longest window", None, []),
        "event in the history": at("event in the history", None, []),
        "nothing": at("nothing", None, []),
    }
    block = block_of(list(users.values()))
    sums, place = sums_of(block), {user: k for k, user in enumerate(block.user_ids.to_pylist())}
    sums.views(SPEC).num_events_UR[place["event in the longest window"], 1] = 1
    sums.views(SPEC).num_events_UR[place["event in the history"], 2] = 1
    found = {row["user_id"]: row for row in features(sums, block)}
    assert set(found) == {"registered before", "picked before", "event in the longest window"}
    assert found["registered before"]["days_since_registration"] == 1 / DAY_US
    assert found["picked before"]["days_since_registration"] is None


def test_days_since_events_are_those_of_the_longest_window_and_active_days_those_of_each() -> None:
    block = block_of([profile("a", 1, "se", []), profile("b", 1, "de", [])])
    sums = sums_of(block)
    sums.last_at_UT[0, [0, 3, 4]] = [(DAY - 6) * DAY_US, (DAY - 3) * DAY_US, MIDNIGHT - DAY_US - DAY_US // 4]
    sums.last_at_UT[1, 2] = (DAY - 4) * DAY_US  # in the history only
    rows = features(sums, block)
    assert [row["days_since_last_event"] for row in rows] == [1.25, None]
    assert [row["days_since_first_event"] for row in rows] == [3.0, None]
    assert [[row[f"num_active_days_{window}d"] for window in (1, 3, 6)] for row in rows] == [[0, 2, 3], [0, 0, 1]]


def test_picks_before_the_date_are_summed_where_their_item_has_vectors() -> None:
    matrix = ItemMatrix.empty(pa.array(["i1", "i2", "i3"]), 7)
    vectors_IX = np.random.default_rng(0).normal(size=(3, 7))
    matrix.vectors_IX[matrix.rows_of(pa.array(["i1", "i2", "i3"]))] = vectors_IX
    profiles = [profile("a", 1, "se", [(1, 2), (3, 1), (0, 1), (1, 5)]), profile("b", 1, "se", [(2, 3), (2, 0)])]
    found = summed_picks(block_of(profiles, [tile("c", 1, 0, 1.0, 9, 1, "tv")]), matrix, AS_OF)
    np.testing.assert_allclose(found, [2 * vectors_IX[0] + vectors_IX[2], vectors_IX[1], np.zeros(7)], rtol=1e-12)


@pytest.mark.parametrize(
    ("weights", "num_picks", "largest", "is_exact"),
    [
        ([2.0**28 - 1, 0, 0], 0, 1.0, True),
        ([2.0**28, 0, 0], 0, 1.0, False),
        ([2.0**27, 0, 2.0**27], 0, 1.0, False),  # the history counts too
        ([2.0**28 - 1, 0, 0], 1, 1.0, False),
        ([2.0**27, 0, 0], 0, 2.0, False),
        ([2.0**27 - 1, 0, 0], 0, 2.0, True),
    ],
)
def test_sums_are_exact_below_two_to_the_28(
    weights: list[float], num_picks: int, largest: float, is_exact: bool
) -> None:
    block = block_of([profile("a", 1, "se", [(1, 1)] * num_picks)])
    sums = sums_of(block)
    sums.views(SPEC).weight_UR[0] = weights
    assert [row["is_exact"] for row in features(sums, block, largest=largest)] == [is_exact]


def test_shares_of_the_day_and_of_the_week_add_up_to_one() -> None:
    found = ran(FEATURES, chunk_of([tile("a", 1, 0, 1.0, 7, 3, "tv"), tile("a", 2, 0, 1.0, 20, 1, "tv")]))[0]
    assert found["part_of_day_3d"] == [0, 0.75, 0, 0.25]
    saturday, friday = 5, 4  # 2024-03-09 and 2024-03-08
    assert (found["weekday_3d"][saturday], found["weekday_3d"][friday]) == (0.75, 0.25)


def test_a_weight_too_large_for_exact_sums_is_reported() -> None:
    found = ran(FEATURES, chunk_of([tile("a", 1, 0, 2.0**40, 7, 1, "tv"), tile("b", 1, 0, 1.0, 7, 1, "tv")]))
    assert [row["is_exact"] for row in found] == [False, True]


def test_sums_are_kept_of_users_with_an_event_and_parts_of_sums_of_all() -> None:
    block = block_of([], [tile(user, 1, 0, 1.0, 9, 1, "tv") for user in "abc"])
    sums = sums_of(block, np.arange(21.0).reshape(3, 7))
    sums.flat_US[:] = np.random.default_rng(1).normal(size=sums.flat_US.shape)
    sums.views(SPEC).num_events_UR[:] = [[0, 0, 0], [0, 0, 1], [2, 0, 0]]
    sums.last_at_UT[1, [1, 4]] = [5, 6]
    kept = sums_batch(sums, block, SPEC, AS_OF, is_part=False).to_pylist()
    assert [(row["user_id"], row["as_of"], row["active_at"]) for row in kept] == [
        ("b", AS_OF, [5, 6]),
        ("c", AS_OF, []),
    ]
    assert [np.frombuffer(row["sums"]).tolist() for row in kept] == sums.flat_US[1:].tolist()
    parts = sums_batch(sums, block, SPEC, AS_OF, is_part=True).to_pylist()
    assert [np.frombuffer(row["sums"]).tolist() for row in parts] == np.hstack([sums.flat_US, sums.picks_UX]).tolist()


def test_a_stream_base_has_profiles_without_events_and_events_without_profiles() -> None:
    tiles = [tile(user, 1, 0, 1.0, 9, 1, "tv") for user in "abc"]
    block = block_of([profile("b", 2, "se", [(4, 1)]), profile("d", None, "de", [])], tiles)
    sums = sums_of(block)
    sums.views(SPEC).num_events_UR[[0, 3]] = 1  # users are in the order of their buckets: a, b, c, d
    rows = stream_base_batch(sums, block, SPEC, AS_OF).to_pylist()
    assert [row["user_id"] for row in rows] == ["a", "b", "d"]
    assert [len(row["sums"]) for row in rows] == [8 * sums.flat_US.shape[1], 0, 8 * sums.flat_US.shape[1]]
    assert np.frombuffer(rows[2]["sums"]).tolist() == sums.flat_US[3].tolist()
    assert [(row["attributes"], row["pick_items"]) for row in rows] == [(None, None), (["se"], ["i4"]), (["de"], None)]
    assert [row["registered_at"] is None for row in rows] == [True, False, True]
