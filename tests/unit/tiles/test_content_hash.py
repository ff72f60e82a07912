"""The content hash of tiles follows their rows and nothing else."""

import itertools

import pyarrow as pa
import pytest

from userrep.tiles.content_hash import cells_of, content_of

pytestmark = pytest.mark.fast

COUNTS = pa.map_(pa.string(), pa.int64())


def tiles(**columns: pa.Array) -> pa.Table:
    return pa.table({"user_id": ["a", "b", "c"], "num_events": [1, 2, 3], **columns})


def maps(*entries: list[tuple[str, int]] | None) -> pa.Table:
    return pa.table({"num_by_context": pa.array(entries, COUNTS)})


def test_the_order_of_rows_and_columns_and_the_chunks_do_not_matter() -> None:
    rows = tiles(num_by_context=pa.array([[("k", 1)], None, [("k", 2), ("m", 1)]], COUNTS))
    assert content_of(rows.take([2, 0, 1])) == content_of(rows)
    assert content_of(rows.select(rows.column_names[::-1])) == content_of(rows)
    assert content_of(pa.concat_tables([rows[1:], rows[:1]])) == content_of(rows)


def test_the_width_of_numbers_and_the_encoding_of_text_do_not_matter() -> None:
    rows = tiles()
    narrow = rows.set_column(1, "num_events", rows["num_events"].cast(pa.int32()))
    coded = rows.set_column(0, "user_id", rows["user_id"].dictionary_encode())
    assert content_of(narrow) == content_of(coded) == content_of(rows)


def test_the_hash_differs_if_a_row_is_repeated_removed_or_mixed_with_another() -> None:
    rows = tiles()
    repeated = pa.concat_tables([rows, rows[:1]])
    exchanged = pa.table({"user_id": ["a", "b", "c"], "num_events": [2, 1, 3]})  # the values, but in other rows
    renamed = rows.rename_columns(["item_id", "num_events"])
    hashes = [content_of(table) for table in (rows, repeated, rows[1:], exchanged, renamed)]
    assert len(set(hashes)) == 5
    assert content_of(rows[:0]) == 0
    assert all(0 < found < 2**64 for found in hashes)


@pytest.mark.parametrize(
    ("missing", "zero"),
    [
        (pa.array([None], pa.string()), pa.array([""])),
        (pa.array([None], pa.int64()), pa.array([0])),
        (pa.array([None], pa.float64()), pa.array([0.0])),
        (pa.array([None], COUNTS), pa.array([[]], COUNTS)),
    ],
    ids=["text", "number", "float", "map"],
)
def test_a_missing_value_differs_from_an_empty_one(missing: pa.Array, zero: pa.Array) -> None:
    assert content_of(pa.table({"x": missing})) != content_of(pa.table({"x": zero}))


def test_minus_zero_is_zero() -> None:
    minus, plus, other = (content_of(pa.table({"weight": [value]})) for value in (-0.0, 0.0, 0.5))
    assert minus == plus != other


def test_the_order_of_a_maps_entries_does_not_matter_but_what_they_say_does() -> None:
    one = content_of(maps([("a", 1), ("b", 2)], [("c", 3)]))
    assert content_of(maps([("b", 2), ("a", 1)], [("c", 3)])) == one
    others = [
        maps([("a", 2), ("b", 1)], [("c", 3)]),  # values exchanged
        maps([("a", 1)], [("c", 3), ("b", 2)]),  # an entry in another row
        maps([("a", 1), ("b", 2)], [("c", 4)]),
        maps([("a", 1), ("b", 2)], None),
    ]
    assert len({one, *map(content_of, others)}) == 5


def test_a_slice_of_maps_is_hashed_as_its_own_rows() -> None:
    entries: list[list[tuple[str, int]] | None] = [[("a", 1)], None, [("b", 2), ("c", 3)], [], [("d", 4)]]
    for start, stop in itertools.combinations(range(6), 2):
        assert content_of(maps(*entries)[start:stop]) == content_of(maps(*entries[start:stop])), (start, stop)


def test_tiles_are_counted_by_equal_ranges_of_buckets_and_empty_ranges_are_left_out() -> None:
    buckets = pa.chunked_array([pa.array([0, 262_143], pa.int32()), pa.array([262_144, 1_048_575], pa.int32())])
    assert cells_of(pa.table({"user_bucket": buckets}), 4) == {0: 2, 1: 1, 3: 1}
    assert cells_of(pa.table({"user_bucket": buckets[:0]}), 4) == {}
