"""Streaming of training rows from Parquet files, with memory independent of the sizes of files and row groups.

Shapes: B rows, F numbers per row: its inputs, then its targets.
"""

from collections.abc import Generator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.store.arrow import unpacked
from userrep.store.filesystem import open_parquet, parquet_footer


class Batch(NamedTuple):
    """Training rows: their keys and their numbers."""

    row_key_B: NDArray[np.int64]
    x_BF: NDArray[np.float32]

    @classmethod
    def empty(cls, num_rows: int, width: int) -> "Batch":
        return cls(np.empty(num_rows, np.int64), np.empty((num_rows, width), np.float32))

    @classmethod
    def joined(cls, parts: Sequence["Batch"]) -> "Batch":
        """Concatenate batches into a copy."""
        return cls(np.concatenate([part.row_key_B for part in parts]), np.concatenate([part.x_BF for part in parts]))

    def rows(self, start: int, stop: int | None) -> "Batch":
        """Return a view of the rows in [start, stop)."""
        return Batch(self.row_key_B[start:stop], self.x_BF[start:stop])


class RowGroup(NamedTuple):
    """A row group of a Parquet file. ``number``: its position in the file."""

    path: str
    number: int
    num_rows: int


def row_groups(paths: Sequence[str]) -> list[RowGroup]:
    """List the row groups of files, in order. Cost: one footer per file, read once per process."""
    return [
        RowGroup(path, number, footer.row_group(number).num_rows)
        for path in paths
        for footer in [parquet_footer(path)]
        for number in range(footer.num_row_groups)
    ]


class RowStream:
    """The rows of ``groups`` in order, starting at row ``start``, decoded in slices of ``slice_rows``.

    Row groups that end before ``start`` are not read. Rows before ``start`` in the first row group are skipped.
    Memory: a read buffer of ``buffer_bytes``, a slice (up to twice that while it is decoded), and one page.
    """

    def __init__(
        self, groups: Sequence[RowGroup], *, start: int, width: int, slice_rows: int, buffer_bytes: int
    ) -> None:
        skipped = 0
        while skipped < len(groups) and start >= groups[skipped].num_rows:
            start -= groups[skipped].num_rows
            skipped += 1
        self._slices = _slices(groups[skipped:], start, width, slice_rows, buffer_bytes)
        self._width = width
        self._rest: Batch | None = None  # unread rows of the current slice

    def read(self, num_rows: int) -> Batch:
        """Return the next ``num_rows`` rows; fewer only at the end of the stream.

        The result is a view of Arrow's memory if one slice contains all rows, else a copy.

        Raises
        ------
        ValueError
            If a row does not have ``width`` numbers.
        """
        parts: list[Batch] = []
        while num_rows:
            rest = next(self._slices, None) if self._rest is None else self._rest
            if rest is None:
                break
            part = rest.rows(0, num_rows)
            num_rows -= len(part.row_key_B)
            self._rest = rest.rows(len(part.row_key_B), None) if len(part.row_key_B) < len(rest.row_key_B) else None
            parts.append(part)
        return parts[0] if len(parts) == 1 else Batch.joined([Batch.empty(0, self._width), *parts])

    def close(self) -> None:
        """Close the open file. Garbage collection could close it in an order that crashes Arrow."""
        self._slices.close()


def _slices(groups: Sequence[RowGroup], start: int, width: int, slice_rows: int, buffer_bytes: int) -> Generator[Batch]:
    for path, run in groupby(groups, key=lambda group: group.path):
        file = open_parquet(path, parquet_footer(path), buffer_bytes=buffer_bytes)
        numbers = [group.number for group in run]
        parts = file.iter_batches(slice_rows, row_groups=numbers, columns=["row_key", "x"], use_threads=False)
        try:
            for part in parts:
                if start < len(part):
                    yield _to_batch(part.slice(start), path, width)
                start = max(0, start - len(part))
        finally:
            parts.close()  # must happen before the file is closed
            file.close(force=True)


def _to_batch(part: pa.RecordBatch, path: str, width: int) -> Batch:
    row_key = part.column("row_key")
    try:
        # Arrow's to_numpy would import pandas, which costs each rank a second at the start and memory.
        keys = np.frombuffer(row_key.buffers()[1], np.int64, len(row_key), 8 * row_key.offset)
        return Batch(keys, unpacked(part.column("x"), width))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
