"""Rows of a range of user buckets from many Parquet files that are sorted by ``user_bucket``: a merge, no shuffle.

Each task reads, of every file, the row groups that may hold its buckets (Parquet's statistics say which), and walks
through all files together in steps of about as many rows. A row group is read once. In memory at a time: the rows of a
step, and of each file what is left of one row group.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from userrep.features.sums.chunk import KINDS, Chunk, names_of
from userrep.store.buckets import BucketRange, ranges_of_groups
from userrep.store.storage import is_local, open_parquet, parquet_footer

STEP_ROWS = 131_072
_WEIGHT = {"tiles": 1, "sums": 16, "profiles": 1}  # of a row against a tile's, in bytes
MOST_ROWS = 4 * STEP_ROWS  # a step with more than that, of one user say, comes in several chunks
_READERS = 8  # files of an object store that are read at once; on a disk one after the other is faster


class BucketedFile(NamedTuple):
    """A Parquet file sorted by user_bucket. ``day``: of its tiles, or the as-of date of its sums, since 1970.

    ``before``, ``after``: whether its tiles count in the sums before and after.
    """

    kind: str
    path: str
    day: int
    before: bool
    after: bool


def steps(files: list[BucketedFile], within: BucketRange, *, context: bool) -> Iterator[Iterator[Chunk]]:
    """Yield the rows of a range of buckets step by step, all rows of a user in one step.

    A step is nearly always one chunk; where a few buckets hold very many rows it is several, each with some of the
    rows of each user.
    """
    with ThreadPoolExecutor(_READERS) as readers:
        at_once = map if all(is_local(file.path) for file in files) else readers.map
        cursors = list(at_once(lambda file: _Cursor(file, within, context=context), files))
        for stop in _stops(cursors, within):
            list(at_once(partial(_Cursor.fill, stop=stop), cursors))
            yield _chunks(cursors, stop)


def _stops(cursors: list["_Cursor"], within: BucketRange) -> list[int]:
    """Cut the range so that each step weighs STEP_ROWS tiles, going by the row groups' first and last buckets."""
    groups = [group for cursor in cursors for group in cursor.groups]
    if not groups:
        return []
    first, last, rows = (np.array(values, float) for values in list(zip(*groups, strict=True))[1:])
    rows_per_bucket = rows / (last + 1 - first)  # of one group, even over its buckets
    edges = np.concatenate([first, last + 1])
    order = np.argsort(edges)
    edges, slope = edges[order], np.cumsum(np.concatenate([rows_per_bucket, -rows_per_bucket])[order])
    rows_before = np.concatenate([[0], np.cumsum(slope[:-1] * np.diff(edges))])
    begin, end = np.interp(within, edges, rows_before)
    num_steps = max(1, round((end - begin) / STEP_ROWS))
    wanted = np.linspace(begin, end, num_steps + 1)[1:-1]
    inner = np.unique(np.ceil(np.interp(wanted, rows_before, edges)).astype(int))
    return [*(int(stop) for stop in inner if within.start < stop < within.stop), within.stop]


def _chunks(cursors: list["_Cursor"], stop: int) -> Iterator[Chunk]:
    """Gather the rows below ``stop`` of all files."""
    waiting: dict[str, list[pa.Table]] = {kind: [] for kind in KINDS}
    num_rows = 0
    for cursor in cursors:
        for table in cursor.rows_below(stop):
            waiting[cursor.source.kind].append(table)
            num_rows += table.num_rows * _WEIGHT[cursor.source.kind]
            if num_rows >= MOST_ROWS:
                yield _chunk(waiting)
                waiting, num_rows = {kind: [] for kind in KINDS}, 0
    if num_rows:
        yield _chunk(waiting)


def _chunk(waiting: dict[str, list[pa.Table]]) -> Chunk:
    return Chunk.of(**{kind: pa.concat_tables(tables) for kind, tables in waiting.items() if tables})


class _Cursor:
    """A place in one file: row groups still to be read, and rows that were read and not yet taken."""

    def __init__(self, source: BucketedFile, within: BucketRange, *, context: bool) -> None:
        self.source = source
        self._names = names_of(source.kind, context=context)
        self._within = within
        self._file = open_parquet(source.path, parquet_footer(source.path))
        meta = self._file.metadata
        self._columns = [name for name in self._names if name in self._file.schema_arrow.names]
        found = [
            (number, held.start, held.stop - 1, meta.row_group(number).num_rows * _WEIGHT[source.kind])
            for number, held in enumerate(ranges_of_groups(meta))
            if held.meets(within)
        ]
        self.groups = found  # number, first bucket, last bucket, weight in rows of tiles
        in_order = all(a[2] <= b[1] for a, b in pairwise(found))
        self._groups_left = list(found) if in_order else []
        self._left = self._read([] if in_order else [group[0] for group in found])  # out of order: sorted as one

    def fill(self, stop: int) -> None:
        """Read ahead one row group if the next rows are not there yet."""
        if self._groups_left and not self._left.num_rows and self._groups_left[0][1] < stop:
            self._read_next()

    def rows_below(self, stop: int) -> Iterator[pa.Table]:
        """Take the rows below a bucket, in pieces of one row group at most."""
        while True:
            if self._left.num_rows:
                bucket_N = self._left.column("user_bucket").to_numpy()
                end = int(np.searchsorted(bucket_N, stop))
                if end:
                    yield self._left.slice(0, end)
                self._left = self._left.slice(end)
                if self._left.num_rows:
                    return
            if not self._groups_left or self._groups_left[0][1] >= stop:
                return
            self._read_next()

    def _read_next(self) -> None:
        self._left = self._read([self._groups_left.pop(0)[0]])

    def _read(self, groups: list[int]) -> pa.Table:
        """Read row groups, only rows within the range, in the chunk's schema."""
        table = self._file.read_row_groups(groups, columns=self._columns, use_threads=False)
        bucket_N = table.column("user_bucket").to_numpy()
        if np.any(bucket_N[1:] < bucket_N[:-1]):
            table = table.sort_by("user_bucket")
            bucket_N = table.column("user_bucket").to_numpy()
        begin, end = np.searchsorted(bucket_N, self._within)
        return self._as_chunk(table.slice(begin, end - begin))

    def _as_chunk(self, table: pa.Table) -> pa.Table:
        """Add what the file is about, and bring times and numbers to the chunk's types."""
        fixed = {"day": self.source.day, "before": self.source.before, "after": self.source.after}
        schema, columns = KINDS[self.source.kind], []
        for field in map(schema.field, self._names):
            if field.name in fixed:
                columns.append(pa.repeat(pa.scalar(fixed[field.name], field.type), table.num_rows))
            else:
                column = table.column(field.name)
                columns.append(column if column.type == field.type else column.cast(field.type))
        return pa.Table.from_arrays(columns, names=self._names)
