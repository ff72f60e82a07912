"""Conversion between Arrow columns and NumPy matrices, without intermediate Python lists."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def is_text(kind: pa.DataType) -> bool:
    """Return whether values of a type are text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def stacked(column: pa.ListArray, width: int) -> NDArray[np.float32]:
    """Return a list column with lists of length ``width`` as a matrix, as a view of Arrow's memory if possible.

    Raises
    ------
    ValueError
        If a list is null or does not have ``width`` numbers.
    """
    lengths = np.diff(column.offsets.to_numpy())
    misfits = np.flatnonzero(lengths != width)
    if len(misfits) or column.null_count:
        got = f"one of {lengths[misfits[0]]} numbers" if len(misfits) else "a null"
        raise ValueError(f"{len(column)} vectors of width {width} were expected, got {got}")
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), width)  # type: ignore[no-any-return]


def listed(matrix: NDArray[Any]) -> pa.ListArray:
    """Return a matrix as a list column of its type, such as list<float>, with one list per row."""
    rows, width = matrix.shape
    offsets = np.arange(0, rows * width + 1, width, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(matrix).ravel()))


def packed(matrix: NDArray[np.floating], kind: str = "<f4") -> pa.BinaryArray:
    """Return a matrix as a binary column; each value has the numbers of one row, by default little-endian float32."""
    content = np.ascontiguousarray(matrix, kind)
    rows, width = content.shape[0], content.shape[1] * content.itemsize
    ends = np.arange(0, rows * width + 1, width, dtype=np.int32)
    return pa.Array.from_buffers(pa.binary(), rows, [None, pa.py_buffer(ends), pa.py_buffer(content)])


def unpacked(column: pa.BinaryArray, width: int, kind: str = "<f4") -> NDArray[Any]:
    """Return a column written by ``packed`` as a matrix, as a view of Arrow's memory.

    Raises
    ------
    ValueError
        If the column is not binary, or a row does not have ``width`` numbers.
    """
    if column.type != pa.binary():
        raise ValueError(f"{width} numbers a row, packed, were expected, got a column of {column.type}")
    _, ends, content = column.buffers()
    ends, num_bytes = np.frombuffer(ends, np.int32)[column.offset :][: len(column) + 1], width * np.dtype(kind).itemsize
    misfits = np.flatnonzero(np.diff(ends) != num_bytes)
    if len(misfits):
        got = int(np.diff(ends)[misfits[0]])
        raise ValueError(f"{width} numbers a row ({num_bytes} bytes) were expected, got {got} bytes")
    return np.frombuffer(content, kind, len(column) * width, int(ends[0])).reshape(len(column), width)


def decoded(column: pa.Array | pa.ChunkedArray) -> Any:
    """Return a column with the values of its dictionary, if it has one."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def combined(column: pa.ChunkedArray) -> Any:
    """Return a chunked column as one array. Copies if it has several chunks."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """Return a table as one batch. Copies the columns with several chunks."""
    return pa.RecordBatch.from_arrays(list(map(combined, table.columns)), table.column_names)
