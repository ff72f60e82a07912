"""Streaming of training rows from Parquet files, with memory independent of the sizes of files and row groups.

Shapes: B rows, F numbers per row: its inputs, then its targets.
"""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.store.arrow import unpacked
from userrep.store.filesystem import open_parquet, parquet_footer

Item = TypeVar("Item")


class Batch(NamedTuple):
    """Training rows: their keys and their numbers."""

    row_key_B: NDArray[np.int64]
    x_BF: NDArray[np.float32]

    @classmethod
    def empty(cls, num_rows: int, width: int) -> "Batch":
        return cls(np.empty(num_rows, np.int64), np.empty((num_rows, width), np.float32))

    @classmethod
    def joined(cls, parts: Sequence["Batch"]) -> "Batch":
        """Concatenate batches into a copy; a single one is returned as it is."""
        if len(parts) == 1:
            return parts[0]
        return cls(np.concatenate([part.row_key_B for part in parts]), np.concatenate([part.x_BF for part in parts]))

    def rows(self, start: int, stop: int) -> "Batch":
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


def row_batches(
    groups: Sequence[RowGroup], *, start: int, num_rows: int, width: int, buffer_bytes: int
) -> Generator[Batch]:
    """Yield the rows of ``groups`` in order from row ``start``, ``num_rows`` at a time; the last batch may be smaller.

    Row groups that end before ``start`` are not read. A batch is a view of Arrow's memory if one decoded slice contains
    all its rows, else a copy. Memory: a read buffer of ``buffer_bytes``, a batch (up to twice that while it is
    decoded), and one page. Close the generator: garbage collection could close its file in an order that crashes Arrow.

    Raises
    ------
    ValueError
        If a row does not have ``width`` numbers.
    """
    skipped = 0
    while skipped < len(groups) and start >= groups[skipped].num_rows:
        start -= groups[skipped].num_rows
        skipped += 1
    parts, num_missing = list[Batch](), num_rows
    with closing(_slices(groups[skipped:], start, width, num_rows, buffer_bytes)) as slices:
        for rows in slices:
            num_used = 0
            while num_used < len(rows.row_key_B):
                parts.append(rows.rows(num_used, num_used + num_missing))
                num_used += len(parts[-1].row_key_B)
                num_missing -= len(parts[-1].row_key_B)
                if not num_missing:
                    yield Batch.joined(parts)
                    parts, num_missing = [], num_rows
    if parts:
        yield Batch.joined(parts)


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


def prefetched(source: Generator[Item], depth: int = 5) -> Generator[Item]:
    """Yield the items of ``source``, none of which is None, which a thread runs ahead by up to ``depth`` items.

    Memory: ``depth`` waiting items and the consumer's one. With a depth of 5 and global batches of 512 rows, a rank has
    ``6 * 512 / ranks`` training rows in batches. The thread ends when this generator is closed or exhausted. Exceptions
    of the source are raised here. The process does not exit while the thread waits for a read.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    ahead = deque(pool.submit(next, source, None) for _ in range(depth))
    try:
        while (item := ahead.popleft().result()) is not None:
            ahead.append(pool.submit(next, source, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
        source.close()
