"""Matrices as Arrow columns and back, compared with Python lists."""

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.hostile import fuzzed
from userrep.store.arrow import combined, listed, one_batch, packed, stacked, unpacked

pytestmark = pytest.mark.fast

Matrix = NDArray[np.float32]
SHAPES = st.tuples(st.integers(0, 5), st.integers(1, 4))


def matrix_of(shape: tuple[int, int]) -> Matrix:
    return np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape) - 2.5


def slices_of(column: Any) -> list[tuple[int, Any]]:
    """Return every slice of a column with the number of its first row."""
    ends = range(len(column) + 1)
    return [(start, column.slice(start, end - start)) for start in ends for end in ends if start <= end]


@fuzzed(50)
@given(SHAPES)
def test_lists_have_the_rows_of_the_matrix_and_every_slice_of_them_is_read(shape: tuple[int, int]) -> None:
    matrix = matrix_of(shape)
    column = listed(matrix)
    assert column.to_pylist() == matrix.tolist()
    assert column.type == pa.list_(pa.float32())
    for start, part in slices_of(column):
        assert stacked(part, shape[1]).tolist() == matrix[start : start + len(part)].tolist()


@fuzzed(50)
@given(SHAPES)
def test_packed_rows_are_little_endian_floats_and_every_slice_of_them_is_read(shape: tuple[int, int]) -> None:
    matrix = matrix_of(shape)
    column = packed(matrix)
    assert column.to_pylist() == [struct.pack(f"<{shape[1]}f", *row) for row in matrix.tolist()]
    for start, part in slices_of(column):
        assert unpacked(part, shape[1]).tolist() == matrix[start : start + len(part)].tolist()
    for start, part in slices_of(packed(matrix, "<f8")):
        assert unpacked(part, shape[1], "<f8").tolist() == matrix[start : start + len(part)].tolist()


def test_a_matrix_that_is_not_contiguous_or_of_another_type_is_written_by_its_values() -> None:
    wide = np.arange(24, dtype=np.float32).reshape(4, 6)
    for matrix in (wide.T, wide[::2, 1::2], wide[:, ::-1]):
        assert listed(matrix).to_pylist() == matrix.tolist()
        assert unpacked(packed(matrix), matrix.shape[1]).tolist() == matrix.tolist()
    big_endian = wide.astype(">f8")
    assert unpacked(packed(big_endian), 6).tolist() == wide.tolist()


def test_columns_are_read_without_a_copy() -> None:
    numbers = pa.array(np.arange(6, dtype=np.float32))
    column = pa.ListArray.from_arrays([0, 3, 6], numbers)
    assert np.shares_memory(stacked(column, 3), numbers.to_numpy())
    binary = packed(matrix_of((2, 3)))
    assert np.shares_memory(unpacked(binary, 3), np.frombuffer(binary.buffers()[2], np.float32))


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([[1.0, 2.0], [3.0]]), "2 vectors of width 2 were expected, got one of 1 numbers"),
        (pa.array([[1.0, 2.0], [3.0, 4.0, 5.0]]), "2 vectors of width 2 were expected, got one of 3 numbers"),
        (pa.array([[1.0], [2.0, 3.0, 4.0]]), "2 vectors of width 2 were expected, got one of 1 numbers"),
        (
            pa.ListArray.from_arrays([0, 2, 4], [1.0, 2.0, 3.0, 4.0], mask=pa.array([False, True])),
            "2 vectors of width 2 were expected, got a null",
        ),
    ],
)
def test_lists_of_another_length_and_nulls_are_refused(column: pa.ListArray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        stacked(column, 2)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([b"x" * 8, b"x" * 4], pa.binary()), r"2 numbers a row \(8 bytes\) were expected, got 4 bytes"),
        (pa.array([b"x" * 4, b"x" * 12], pa.binary()), r"2 numbers a row \(8 bytes\) were expected, got 4 bytes"),
        (pa.array([b"x" * 8, None], pa.binary()), r"2 numbers a row \(8 bytes\) were expected, got 0 bytes"),
        (pa.array([b"x" * 8], pa.large_binary()), "packed, were expected, got a column of large_binary"),
        (pa.array(["x" * 8]), "packed, were expected, got a column of string"),
    ],
)
def test_packed_rows_of_another_length_or_type_are_refused(column: pa.Array, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        unpacked(column, 2)


@pytest.mark.parametrize("chunks", [[], [[1, 2]], [[1], [], [2, 3]]])
def test_chunks_become_one_array_in_their_order(chunks: list[list[int]]) -> None:
    column = combined(pa.chunked_array(chunks, pa.int64()))
    assert isinstance(column, pa.Array)
    assert column.to_pylist() == [number for chunk in chunks for number in chunk]


@pytest.mark.parametrize("num_chunks", [0, 1, 3])
def test_a_table_becomes_one_batch(num_chunks: int) -> None:
    schema = pa.schema([("id", pa.string()), ("counts", pa.map_(pa.string(), pa.int64()))])
    rows = [{"id": str(k), "counts": [("a", k)]} for k in range(num_chunks)]
    table = pa.Table.from_batches([pa.RecordBatch.from_pylist([row], schema) for row in rows], schema)
    batch = one_batch(table)
    assert (batch.schema, batch.to_pylist()) == (schema, rows)
