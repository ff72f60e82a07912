"""From Arrow rows to arrays by block of users: each user gets the own rows, and stored sums of one date add up."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.features.test_features import DAY, DAY_US, SPEC, Row, chunk_of, profile, tile
from userrep.features.sums.accumulate import NEVER
from userrep.features.sums.blocks import UserBlock, user_blocks
from userrep.features.sums.chunk import PROFILES, SUMS, TILES, Chunk

pytestmark = pytest.mark.fast

WIDTH = 3 * (5 + 2 + 2) + 11  # of sums: three rings of vectors, marks, weight and events; then shares


def stored(user: str, sums: list[float], *, day: int = DAY, active: Any = (), context: Any = ()) -> Row:
    """Build a row of stored sums whose first numbers are ``sums`` and the others zero."""
    flat = np.zeros(WIDTH)
    flat[: len(sums)] = sums
    return {
        "user_bucket": {"a": 1, "b": 2, "c": 3}[user],
        "user_id": user,
        "sums": flat.tobytes(),
        "active_at": list(active),
        "num_by_context": list(context),
        "day": day,
    }


def only_block(chunk: Chunk) -> UserBlock:
    (block,) = user_blocks(chunk, SPEC)
    return block


def test_blocks_follow_the_buckets_and_hold_all_rows_of_their_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("userrep.features.sums.blocks._BLOCK_BYTES", 1)  # one user a block
    tiles = [tile("d", 1, 3, 4.0, 9, 1, "tv"), tile("a", 2, 1, 2.0, 9, 1, "tv"), tile("c", 1, 0, 1.0, 9, 1, "phone"),
             tile("a", 1, 5, 3.0, 9, 2, "phone")]  # fmt: skip
    profiles = [profile("c", 1, "se", []), profile("a", 2, "de", [(4, 1), (2, 3)])]
    chunk = Chunk(
        pa.Table.from_pylist(tiles, TILES), SUMS.empty_table(), pa.Table.from_pylist(profiles, PROFILES)
    )  # not in the order of buckets
    found = {}
    for block in user_blocks(chunk, SPEC):
        assert block.tiles.user_N.tolist() == [0] * len(block.tiles.user_N)
        items = block.tile_items.distinct.take(pa.array(block.tile_items.code_N)).to_pylist()
        picks = block.profiles.pick_items.distinct.take(pa.array(block.profiles.pick_items.code_N)).to_pylist()
        (user,) = block.user_ids.to_pylist()
        found[user] = (block.user_bucket_U.tolist(), items, block.tiles.weight_N.tolist(), picks)
    assert list(found) == ["a", "c", "d"]
    assert found == {
        "a": ([7], ["i1", "i5"], [2.0, 3.0], ["i4", "i2"]),
        "c": ([tiles[2]["user_bucket"]], ["i0"], [1.0], []),
        "d": ([tiles[0]["user_bucket"]], ["i3"], [4.0], []),
    }


def test_profiles_are_matched_by_user_and_unknown_registrations_are_never() -> None:
    block = only_block(chunk_of([tile("d", 1, 0, 1.0, 9, 1, "tv")], [
        profile("c", None, "se", [(1, 2)]), profile("a", 3, None, [(2, 1), (3, 4)])]))  # fmt: skip
    profiles = block.profiles
    assert block.user_ids.to_pylist() == ["a", "c", "d"]
    assert profiles.registered_at_U.tolist() == [(DAY - 3) * DAY_US + DAY_US // 2, NEVER, NEVER]
    assert profiles.by_user.column("attributes").to_pylist() == [[None], ["se"], None]
    assert profiles.is_stored_U.tolist() == [True, True, False]
    assert profiles.pick_user_P.tolist() == [0, 0, 1]
    assert profiles.picked_at_P.tolist() == [(DAY - age) * DAY_US + DAY_US // 2 for age in (1, 4, 2)]


def test_stored_sums_of_one_date_add_up_over_all_rows_of_a_user() -> None:
    noon, evening = DAY_US // 2, DAY_US * 3 // 4
    rows = [
        stored("b", [10.0, 1.0], active=[(DAY - 2) * DAY_US + evening], context=[("device=tv", 1)]),
        stored("a", [5.0]),
        stored("b", [20.0, 2.0], active=[(DAY - 2) * DAY_US + noon, (DAY - 1) * DAY_US],
               context=[("device=tv", 2), ("device=phone", 4)]),
        stored("b", [400.0], day=DAY - 1, active=[(DAY - 3) * DAY_US], context=[("device=tv", 100)]),
        stored("c", [700.0], day=DAY - 1),
    ]  # fmt: skip
    block = only_block(chunk_of([], sums=pa.Table.from_pylist(rows, SUMS)))
    sums = block.sums_rows.summed(SPEC, 3, range(DAY - 6, DAY), DAY)
    assert sums.flat_US[:, :2].tolist() == [[5, 0], [30, 3], [0, 0]]
    assert not sums.flat_US[:, 2:].any()
    at = {(user, DAY - 6 + k): int(value) for (user, k), value in np.ndenumerate(sums.last_at_UT) if value != NEVER}
    assert at == {(1, DAY - 2): (DAY - 2) * DAY_US + evening, (1, DAY - 1): (DAY - 1) * DAY_US}
    assert block.context_keys.to_pylist() == ["device=phone", "device=tv"]
    assert sums.context_UK.toarray().tolist() == [[0, 0], [4, 3], [0, 0]]


@pytest.mark.parametrize("num_rows", [1, 2])
def test_last_events_outside_the_days_asked_for_are_left_out(num_rows: int) -> None:
    active = [(DAY - 7) * DAY_US, (DAY - 6) * DAY_US + 5, (DAY - 1) * DAY_US + 7, DAY * DAY_US]
    block = only_block(chunk_of([], sums=pa.Table.from_pylist([stored("a", [1.0], active=active)] * num_rows, SUMS)))
    sums = block.sums_rows.summed(SPEC, 1, range(DAY - 6, DAY), DAY)
    assert sums.last_at_UT.tolist() == [[active[1], NEVER, NEVER, NEVER, NEVER, active[2]]]


def test_sums_are_read_from_a_slice_of_a_column() -> None:
    table = pa.Table.from_pylist([stored(user, [k, 2.0 * k]) for k, user in enumerate("abc")], SUMS)
    block = only_block(chunk_of([], sums=table.slice(1)))
    assert block.user_ids.to_pylist() == ["b", "c"]
    assert block.sums_rows.flat_NS[:, :2].tolist() == [[1, 2], [2, 4]]


def test_sums_of_picks_are_split_from_the_sums_of_events_before_them() -> None:
    row = stored("a", [1.0])
    row["sums"] += np.arange(7.0).tobytes()
    sums = only_block(chunk_of([], sums=pa.Table.from_pylist([row, row], SUMS))).sums_rows.summed(
        SPEC, 1, range(DAY - 6, DAY), DAY
    )
    assert sums.flat_US.shape == (1, WIDTH)
    assert sums.picks_UX is not None
    assert sums.picks_UX.tolist() == [[0, 2, 4, 6, 8, 10, 12]]


def test_context_is_counted_by_word_and_a_tile_without_any_counts_none() -> None:
    tiles = [tile("a", 1, 0, 1.0, 9, 3, "tv"), tile("a", 1, 1, 1.0, 9, 2, "web"), tile("a", 2, 1, 1.0, 9, 9, "tv")]
    tiles[2]["num_by_context"] = None
    block = only_block(chunk_of(tiles, sums=pa.Table.from_pylist([stored("b", [], context=[("device=app", 1)])], SUMS)))
    assert block.context_keys.to_pylist() == ["device=app", "device=tv", "device=web"]
    assert block.tiles.context_NK.toarray().tolist() == [[0, 3, 0], [0, 0, 2], [0, 0, 0]]
