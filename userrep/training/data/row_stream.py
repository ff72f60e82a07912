"""Rows of Parquet files, one after the other: memory does not follow files or row groups.

Shapes: B rows, F numbers of a row: its inputs, then its targets.
"""

from collections.abc import Generator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.store.arrow import unpacked
from userrep.store.storage import open_parquet, parquet_footer


class Batch(NamedTuple):
    """Training rows: their keys and numbers."""

    row_key_B: NDArray[np.int64]
    x_BF: NDArray[np.float32]

    @classmethod
    def empty(cls, num_rows: int, width: int) -> "Batch":
        return cls(np.empty(num_rows, np.int64), np.empty((num_rows, width), np.float32))

    @classmethod
    def joined(cls, parts: Sequence["Batch"]) -> "Batch":
        """Copy rows together."""
        return cls(np.concatenate([part.row_key_B for part in parts]), np.concatenate([part.x_BF for part in parts]))

    def rows(self, start: int, stop: int | None) -> "Batch":
        """Return a view of some rows."""
        return Batch(self.row_key_B[start:stop], self.x_BF[start:stop])


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
    """The rows of ``groups`` in order, from row ``start`` on, decoded in slices of ``slice_rows``.

    Row groups before ``start`` are not read; of the one that it lies in, the rows before it are. Memory: a read buffer
    of ``buffer_bytes``, a slice (twice that while it grows), and the page that is being decoded.
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
        self._rest: Batch | None = None  # of the newest slice

    def read(self, num_rows: int) -> Batch:
        """Return the next rows, fewer than asked for at the end alone.

        They are Arrow's own memory where one slice has them all, else a copy.

        Raises
        ------
        ValueError
            If a row has not as many numbers as ``width``.
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
        """Close the file that is being read. Garbage collection would do it in an order that crashes Arrow."""
        self._slices.close()


def _slices(groups: Sequence[RowGroup], start: int, width: int, slice_rows: int, buffer_bytes: int) -> Generator[Batch]:
    for path, run in groupby(groups, key=lambda group: group.path):
        file = open_parquet(path, parquet_footer(path), buffer_bytes=buffer_bytes)
        wanted = [group.number for group in run]
        parts = file.iter_batches(slice_rows, row_groups=wanted, columns=["row_key", "x"], use_threads=False)
        try:
            for part in parts:
                if start < len(part):
                    yield _columns(part.slice(start), path, width)
                start = max(0, start - len(part))
        finally:
            parts.close()  # before the file
            file.close(force=True)


def _columns(part: pa.RecordBatch, path: str, width: int) -> Batch:
    row_key = part.column("row_key")
    try:
        # Arrow's own to_numpy imports pandas: a second of a rank's start, and its memory.
        keys = np.frombuffer(row_key.buffers()[1], np.int64, len(row_key), 8 * row_key.offset)
        return Batch(keys, unpacked(part.column("x"), width))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
