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
        If the lists do not have ``width`` numbers each.
    """
    flat = column.flatten().to_numpy(zero_copy_only=False)
    if len(flat) != len(column) * width:
        raise ValueError(f"{len(column)} vectors of width {width} were expected, got {len(flat)} numbers")
    return flat.reshape(len(column), width)  # type: ignore[no-any-return]


def listed(matrix: NDArray[np.float32]) -> pa.ListArray:
    """Write a matrix as a list<float> column, one list a row."""
    rows, width = matrix.shape
    offsets = np.arange(0, rows * width + 1, width, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(matrix).ravel()))


def combined(column: pa.ChunkedArray) -> Any:
    """Return a column as one array."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
