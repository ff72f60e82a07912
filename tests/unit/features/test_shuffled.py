"""Shuffled rows of all kinds, cut into steps: every row once, users whole, and very full buckets in several chunks."""

from typing import Any

import pyarrow as pa
import pytest

from tests.unit.features.test_features import (
    DAY,
    FEATURES,
    Row,
    chunk_of,
    in_steps,
    profile,
    ran,
    rows_of,
    tile,
    vectors,  # noqa: F401  # a fixture
)
from userrep.features.sums import shuffled
from userrep.features.sums.chunk import PROFILES, SUMS, TILES
from userrep.features.sums.shuffled import chunks_of_rows

pytestmark = pytest.mark.fast

SCHEMA = pa.schema(
    [("kind", pa.string()), *TILES, *(f for f in SUMS if f.name in ("sums", "active_at")), *list(PROFILES)[2:]]
)


def batches_of(rows: list[Row], size: int) -> list[pa.RecordBatch]:
    """Bring rows of any kind into batches, in the order of their buckets."""
    return pa.Table.from_pylist(sorted(rows, key=lambda r: r["user_bucket"]), schema=SCHEMA).to_batches(size)


def tiles_of_buckets(buckets: list[int]) -> list[Row]:
    return [tile("a", 1, 0, 1.0, 3, 1, "tv") | {"kind": "tiles", "user_bucket": k, "user_id": f"u{k}"} for k in buckets]


def buckets_by_step(rows: list[Row], size: int) -> list[list[list[int]]]:
    """Return the buckets of the tiles of each chunk of each step."""
    return [
        [chunk.tiles.column("user_bucket").to_pylist() for chunk in step]
        for step in in_steps(chunks_of_rows(batches_of(rows, size)))
    ]


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make steps of five rows, and ten at most; a row counts as one, however many bytes it has."""
    monkeypatch.setattr(shuffled, "STEP_ROWS", 5)
    monkeypatch.setattr(shuffled, "MAX_STEP_ROWS", 10)
    monkeypatch.setattr(shuffled, "_BYTES_PER_ROW", 1 << 30)


@pytest.mark.parametrize("batch_rows", [1, 7, 100])
def test_steps_of_shuffled_rows_hold_every_row_once_and_users_whole(
    monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    monkeypatch.setattr(shuffled, "STEP_ROWS", 5)
    monkeypatch.setattr(shuffled, "MAX_STEP_ROWS", 10)
    tiles = [tile(user, 1 + k % 3, k % 6, 1.0, 3, 1, "tv") for user in "aaaabcd" for k in range(9)]
    made = FEATURES.run(chunks_of_rows(batches_of([{"kind": "tiles"} | row for row in tiles], batch_rows)))
    found = [row for one in made for row in rows_of(one)]
    assert sorted(found, key=lambda r: r["user_id"]) == ran(FEATURES, chunk_of(tiles))


@pytest.mark.usefixtures("small_steps")
def test_the_last_bucket_of_a_step_waits_for_the_next_one() -> None:
    rows = tiles_of_buckets([1, 1, 2, 3, 3, 3, 3, 4, 5, 5])
    assert buckets_by_step(rows, 2) == [[[1, 1, 2]], [[3, 3, 3, 3]], [[4, 5, 5]]]


@pytest.mark.usefixtures("small_steps")
def test_a_bucket_with_too_many_rows_for_a_step_comes_in_several_chunks_of_one_step() -> None:
    found = buckets_by_step(tiles_of_buckets([3] * 25 + [4] * 2 + [5] * 9), 5)
    assert found == [[[3] * 10, [3] * 10, [3] * 5 + [4, 4]], [[5] * 9]]


@pytest.mark.usefixtures("small_steps")
def test_empty_batches_anywhere_change_no_step() -> None:
    batches = batches_of(tiles_of_buckets([3] * 20), 5)
    with_empty = [part for batch in batches for part in (batch[:0], batch, batch[:0])]
    chunks = [list(chunks_of_rows(given)) for given in (batches, with_empty)]
    for found in chunks:
        assert [(chunk.tiles.num_rows, chunk.is_last) for chunk in found] == [(10, False), (10, True)]
    (row,) = (row for made in FEATURES.run(chunks_of_rows(with_empty)) for row in rows_of(made))
    assert row["num_events_1d"] == 20


def test_rows_of_each_kind_come_in_the_form_of_their_table() -> None:
    sums = {"kind": "sums", "user_bucket": 7, "user_id": "a", "sums": b"12345678", "active_at": [5], "day": DAY}
    known = profile("a", 1, "se", [(2, 1)])
    mixed: list[dict[str, Any]] = [
        {"kind": "tiles"} | tile("a", 1, 0, 1.5, 3, 1, "tv"),
        sums,
        {"kind": "profiles"} | known,
    ]
    (chunk,) = chunks_of_rows(batches_of(mixed, 10))
    assert (chunk.tiles.schema, chunk.sums.schema, chunk.profiles.schema) == (TILES, SUMS, PROFILES)
    assert chunk.tiles.to_pylist() == [tile("a", 1, 0, 1.5, 3, 1, "tv")]
    assert chunk.sums.select(["user_id", "sums", "active_at", "day"]).to_pylist() == [
        {"user_id": "a", "sums": b"12345678", "active_at": [5], "day": DAY}
    ]
    assert chunk.profiles.to_pylist() == [known]


def test_without_rows_there_is_no_step() -> None:
    assert list(chunks_of_rows([])) == []
    assert list(chunks_of_rows([batches_of(tiles_of_buckets([1]), 1)[0][:0]])) == []
