"""Streams of rows from Parquet files, starting at any row."""

from collections.abc import Sequence
from contextlib import closing
from itertools import islice

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builders import write_training_rows
from userrep.store.arrow import packed
from userrep.training.data import row_stream as module
from userrep.training.data.row_stream import Batch, RowGroup, row_batches, row_groups

pytestmark = pytest.mark.fast

WIDTH, GROUP = 3, 7
STORED = [*range(0, 50, 2), *range(1, 50, 2)]  # two files: the even keys, then the odd ones


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> list[RowGroup]:
    """Write fifty rows; the numbers of a row equal its key."""
    files = write_training_rows(tmp_path_factory.mktemp("with space"), "train", 0, range(50), width=WIDTH, group=GROUP)
    return row_groups(files)


def read(groups: Sequence[RowGroup], start: int, num_rows: int, num_batches: int | None = None) -> list[list[int]]:
    """Return the keys of each batch; check that the numbers belong to their keys."""
    found = []
    batches = row_batches(groups, start=start, num_rows=num_rows, width=WIDTH, buffer_bytes=60)
    with closing(batches):
        for batch in islice(batches, num_batches):
            assert np.array_equal(batch.x_BF, np.repeat(batch.row_key_B[:, None], WIDTH, axis=1).astype(np.float32))
            found.append(batch.row_key_B.tolist())
    return found


def test_row_groups_are_listed_in_the_order_of_their_files(groups: list[RowGroup]) -> None:
    assert [(group.path[-9:], group.number, group.num_rows) for group in groups] == [
        *(("0.parquet", 0, 7), ("0.parquet", 1, 7), ("0.parquet", 2, 7), ("0.parquet", 3, 4)),
        *(("1.parquet", 0, 7), ("1.parquet", 1, 7), ("1.parquet", 2, 7), ("1.parquet", 3, 4)),
    ]


def test_a_stream_starts_at_any_row(groups: list[RowGroup]) -> None:
    (whole,) = read(groups, 0, 60)
    assert whole == STORED
    for start in range(50):
        assert read(groups, start, 8, 1) == [whole[start : start + 8]]
    assert read(groups, 50, 8) == []


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, 55), num_rows=st.integers(1, 60))
def test_batches_have_the_size_asked_for_and_no_gap(groups: list[RowGroup], start: int, num_rows: int) -> None:
    assert read(groups, start, num_rows) == [STORED[k : k + num_rows] for k in range(start, 50, num_rows)]


def test_row_groups_are_read_in_the_order_given(groups: list[RowGroup]) -> None:
    mixed = [groups[5], groups[0], groups[3]]
    rows = [*STORED[25 + 7 : 25 + 14], *STORED[:7], *STORED[21:25]]
    assert read(mixed, 0, 99) == [rows]
    assert read(mixed, 9, 99) == [rows[9:]]


def test_row_groups_before_the_first_row_are_not_opened(
    groups: list[RowGroup], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    open_parquet = module.open_parquet

    def counted(path: str, *more: object, **options: int) -> object:
        opened.append(path)
        return open_parquet(path, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "open_parquet", counted)
    assert read(groups, 25, 2, 1) == [STORED[25:27]]
    assert opened == [groups[4].path]
    assert read(groups, 24, 2, 1) == [STORED[24:26]]
    assert opened[1:] == [groups[0].path, groups[4].path]


def test_rows_of_another_width_are_refused_with_their_file(groups: list[RowGroup]) -> None:
    batches = row_batches(groups, start=0, num_rows=3, width=5, buffer_bytes=60)
    said = r"part 0.parquet: 5 numbers a row \(20 bytes\) were expected, got 12 bytes"
    with closing(batches), pytest.raises(ValueError, match=said):
        next(batches)


def test_batches_are_concatenated_and_sliced() -> None:
    first = Batch(np.array([1, 2]), np.array([[1.0], [2.0]], np.float32))
    second = Batch(np.array([3]), np.array([[3.0]], np.float32))
    joined = Batch.joined([Batch.empty(0, 1), first, second])
    assert (joined.row_key_B.tolist(), joined.x_BF.tolist()) == ([1, 2, 3], [[1], [2], [3]])
    part = joined.rows(1, None)
    part.x_BF[0] = 9
    assert joined.x_BF.tolist() == [[1], [9], [3]]  # a view


def test_a_slice_has_its_own_keys() -> None:
    table = pa.table({"row_key": np.arange(9), "x": packed(np.arange(18, dtype=np.float32).reshape(9, 2))})
    part = table.to_batches()[0].slice(4, 3)
    batch = module._to_batch(part, "part.parquet", 2)
    assert batch.row_key_B.tolist() == [4, 5, 6]
    assert batch.x_BF.tolist() == [[8, 9], [10, 11], [12, 13]]
