"""Rows of Parquet files, one after the other, into arrays of the caller: memory does not follow files or row groups.

Shapes: N rows, F inputs.
"""

from collections.abc import Generator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.arrow import unpacked
from userrep.storage import open_parquet, parquet_footer


class RowGroup(NamedTuple):
    path: str
    number: int  # in its file
    num_rows: int


def row_groups(paths: Sequence[str]) -> list[RowGroup]:
    """List the row groups of files, in order. Cost: a footer each, read once in a process."""
    return [
        RowGroup(path, number, footer.row_group(number).num_rows)
        for path in paths
        for footer in [parquet_footer(path)]
        for number in range(footer.num_row_groups)
    ]


class RowStream:
    """The rows of ``groups`` in order, from row ``start`` on.

    Row groups before ``start`` are not read; of the one that it lies in, the rows before it are. Memory: a read buffer
    of ``max_bytes``, a slice of decoded rows of ``max_bytes`` (a row at least), and the page that is being decoded.
    """

    def __init__(self, groups: Sequence[RowGroup], *, start: int, width: int, max_bytes: int) -> None:
        skipped = 0
        while skipped < len(groups) and start >= groups[skipped].num_rows:
            start -= groups[skipped].num_rows
            skipped += 1
        self._slices = _slices(groups[skipped:], width, max_bytes)
        self._slice: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None
        self._behind = start  # rows to pass over

    def read_into(
        self, row_key_N: NDArray[np.int64], x_NF: NDArray[np.float32], places_N: NDArray[np.int64] | None = None
    ) -> int:
        """Fill the arrays with the next rows, in order or each into its place; return how many there were.

        Fewer than asked for are there at the end alone.

        Raises
        ------
        ValueError
            If a row does not have as many inputs as ``x_NF`` has columns.
        """
        num = 0
        while num < len(row_key_N):
            if self._slice is None:
                self._slice = next(self._slices, None)
                if self._slice is None:
                    break
            row_keys, x = (column[self._behind :] for column in self._slice)
            taken = min(len(row_keys), len(row_key_N) - num)
            where = slice(num, num + taken) if places_N is None else places_N[num : num + taken]
            row_key_N[where], x_NF[where] = row_keys[:taken], x[:taken]
            num += taken
            if taken == len(row_keys):
                self._behind = max(0, self._behind - len(self._slice[0]))
                self._slice = None
            else:
                self._behind += taken
        return num

    def close(self) -> None:
        """Close the file that is being read. Garbage collection would do it in an order that crashes Arrow."""
        self._slices.close()


def _slices(
    groups: Sequence[RowGroup], width: int, max_bytes: int
) -> Generator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    rows = max(1, max_bytes // (8 + 4 * width))
    for path, run in groupby(groups, key=lambda group: group.path):
        file = open_parquet(path, parquet_footer(path), buffer_bytes=max_bytes)
        wanted = [group.number for group in run]
        parts = file.iter_batches(rows, row_groups=wanted, columns=["row_key", "x"], use_threads=False)
        try:
            for part in parts:
                yield _columns(part, path, width)
        finally:
            parts.close()  # before the file
            file.close(force=True)


def _columns(part: pa.RecordBatch, path: str, width: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    row_key = part.column("row_key")
    try:
        # Arrow's own to_numpy imports pandas: a second of a rank's start, and its memory.
        keys = np.frombuffer(row_key.buffers()[1], np.int64, len(row_key), 8 * row_key.offset)
        return keys, unpacked(part.column("x"), width)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
