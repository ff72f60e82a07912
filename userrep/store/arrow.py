"""Columns in Arrow as arrays: list columns as matrices and back, without a Python list in between."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def stacked(column: pa.ListArray, width: int) -> NDArray[np.float32]:
    """Read a list column, all of one length, as a matrix; a view of Arrow's memory where that is possible.

    Raises
    ------
    ValueError
        If a list is null or does not have ``width`` numbers.
    """
    lengths = np.diff(column.offsets.to_numpy())
    other = np.flatnonzero(lengths != width)
    if len(other) or column.null_count:
        found = f"one of {lengths[other[0]]} numbers" if len(other) else "a null"
        raise ValueError(f"{len(column)} vectors of width {width} were expected, got {found}")
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), width)  # type: ignore[no-any-return]


def listed(matrix: NDArray[np.float32]) -> pa.ListArray:
    """Write a matrix as a list<float> column, one list a row."""
    rows, width = matrix.shape
    offsets = np.arange(0, rows * width + 1, width, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(matrix).ravel()))


def packed(matrix: NDArray[np.float32]) -> pa.BinaryArray:
    """Write a matrix as a binary column: a row's numbers one after the other, little-endian float32."""
    rows, width = matrix.shape
    ends = np.arange(0, 4 * rows * width + 1, 4 * width, dtype=np.int32)
    content = pa.py_buffer(np.ascontiguousarray(matrix, "<f4"))
    return pa.Array.from_buffers(pa.binary(), rows, [None, pa.py_buffer(ends), content])


def unpacked(column: pa.BinaryArray, width: int) -> NDArray[np.float32]:
    """Read a column of ``packed`` as a matrix: a view of Arrow's memory.

    Raises
    ------
    ValueError
        If a row does not have ``width`` numbers.
    """
    if column.type != pa.binary():
        raise ValueError(f"{width} numbers a row, packed, were expected, got a column of {column.type}")
    _, ends, content = column.buffers()
    ends = np.frombuffer(ends, np.int32)[column.offset : column.offset + len(column) + 1]
    other = np.flatnonzero(np.diff(ends) != 4 * width)
    if len(other):
        found = int(np.diff(ends)[other[0]])
        raise ValueError(f"{width} numbers a row ({4 * width} bytes) were expected, got {found} bytes")
    return np.frombuffer(content, "<f4", len(column) * width, int(ends[0])).reshape(len(column), width)


def combined(column: pa.ChunkedArray) -> Any:
    """Return a column as one array."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
