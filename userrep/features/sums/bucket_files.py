"""Merge of many Parquet files sorted by ``user_bucket``: the rows of a range of user buckets, without a shuffle.

A task uses Parquet statistics to find the row groups of each file that can contain its buckets. It walks through all
files together, in steps of similar weight, and reads each row group once. Memory: the rows of one step, and the rest of
one row group per file.
"""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from userrep.features.sums.chunk import Chunk, schema_of
from userrep.store.bucket_reader import row_group_ranges
from userrep.store.buckets import BucketRange
from userrep.store.filesystem import is_local, open_parquet, parquet_footer

STEP_ROWS = 131_072
_WEIGHT = {"tiles": 1, "sums": 16, "profiles": 1}  # size of a row relative to a tile
MAX_STEP_ROWS = 4 * STEP_ROWS  # a larger step, for example of one heavy user, is split into several chunks
_READERS = 8  # concurrent reads from an object store; on a local disk, sequential reads are faster


class BucketedFile(NamedTuple):
    """A Parquet file sorted by user_bucket, and the buckets that it can contain.

    ``day``: day of its tiles or as-of date of its sums, in days since 1970. ``before``, ``after``: whether its tiles
    count in the old and in the new sums.
    """

    kind: str
    path: str
    buckets: BucketRange
    day: int = 0
    before: bool = False
    after: bool = True


def chunks_of_files(files: list[BucketedFile], within: BucketRange, *, context: bool) -> Iterator[Chunk]:
    """Yield the rows of a range of buckets in steps, each of which contains all rows of its users.

    A step is usually one chunk, or several if a few buckets have very many rows.
    """
    with ThreadPoolExecutor(_READERS) as readers:
        read_map = map if all(is_local(file.path) for file in files) else readers.map
        cursors = list(read_map(lambda file: _Cursor(file, within, context=context), files))
        for stop in _stops(cursors, within):
            list(read_map(partial(_Cursor.fill, stop=stop), cursors))
            yield from _chunks_of_step(cursors, stop)


def _stops(cursors: list["_Cursor"], within: BucketRange) -> list[int]:
    """Split the range into equal steps of about STEP_ROWS tiles. Users are hashed, so steps are similar in size."""
    groups = [group for cursor in cursors for group in cursor.groups]
    if not groups:
        return []
    first, last, rows = (np.array(values, float) for values in list(zip(*groups, strict=True))[1:])
    inside = np.minimum(last + 1, within.stop) - np.maximum(first, within.start)
    num_steps = max(1, round(float(rows @ (inside / (last + 1 - first))) / STEP_ROWS))
    stops = np.linspace(within.start, within.stop, num_steps + 1)[1:]
    return np.unique(np.ceil(stops).astype(int)).tolist()  # type: ignore[no-any-return]


def _chunks_of_step(cursors: list["_Cursor"], stop: int) -> Iterator[Chunk]:
    """Collect the rows below bucket ``stop`` from all files."""
    tables_by_kind: dict[str, list[pa.Table]] = defaultdict(list)
    num_rows = 0
    for cursor in cursors:
        for table in cursor.rows_below(stop):
            if num_rows >= MAX_STEP_ROWS:
                yield _chunk(tables_by_kind, is_last=False)
                tables_by_kind, num_rows = defaultdict(list), 0
            tables_by_kind[cursor.source.kind].append(table)
            num_rows += table.num_rows * _WEIGHT[cursor.source.kind]
    if num_rows:
        yield _chunk(tables_by_kind, is_last=True)


def _chunk(tables_by_kind: dict[str, list[pa.Table]], *, is_last: bool) -> Chunk:
    return Chunk(is_last=is_last, **{kind: pa.concat_tables(tables) for kind, tables in tables_by_kind.items()})


class _Cursor:
    """Read position in one file: the remaining row groups, and rows that were read but not yet returned."""

    def __init__(self, source: BucketedFile, within: BucketRange, *, context: bool) -> None:
        self.source = source
        self._schema = schema_of(source.kind, context=context)
        self._within = within
        footer = parquet_footer(source.path)
        self._file = open_parquet(source.path, footer)
        self._columns = [name for name in self._schema.names if name in self._file.schema_arrow.names]
        first_G, last_G = ranges = row_group_ranges(source.path)
        self.groups = [  # number, first bucket, last bucket, weight in rows of tiles
            (number, first_G[number], last_G[number], footer.row_group(number).num_rows * _WEIGHT[source.kind])
            for number in ranges.meeting(within.start, within.stop - 1)
        ]
        in_order = all(a[2] <= b[1] for a, b in pairwise(self.groups))
        self._remaining_groups = self.groups.copy() if in_order else []
        self._rest = self._read([] if in_order else [group[0] for group in self.groups])  # unordered: sorted together

    def fill(self, stop: int) -> bool:
        """Read the next row group if it is needed for the rows below a bucket. Returns whether it was."""
        is_due = not self._rest.num_rows and bool(self._remaining_groups) and self._remaining_groups[0][1] < stop
        if is_due:
            self._rest = self._read([self._remaining_groups.pop(0)[0]])
        return is_due

    def rows_below(self, stop: int) -> Iterator[pa.Table]:
        """Return the rows below a bucket, at most one row group at a time."""
        while self._rest.num_rows or self.fill(stop):
            end = int(np.searchsorted(self._rest.column("user_bucket").to_numpy(), stop))
            if end:
                yield self._rest.slice(0, end)
            self._rest = self._rest.slice(end)
            if self._rest.num_rows:
                return

    def _read(self, groups: list[int]) -> pa.Table:
        """Read row groups and return their rows within the range, in the schema of chunks."""
        table = self._file.read_row_groups(groups, columns=self._columns, use_threads=False)
        bucket_N = table.column("user_bucket").to_numpy()
        if np.any(bucket_N[1:] < bucket_N[:-1]):
            table = table.sort_by("user_bucket")
            bucket_N = table.column("user_bucket").to_numpy()
        begin, end = np.searchsorted(bucket_N, self._within)
        return self._as_chunk(table.slice(begin, end - begin))

    def _as_chunk(self, table: pa.Table) -> pa.Table:
        """Add the file's constants as columns and cast times and numbers to the types of chunks."""
        constants = {"day": self.source.day, "before": self.source.before, "after": self.source.after}
        for field in self._schema:
            if field.name in constants:
                values = pa.repeat(pa.scalar(constants[field.name], field.type), table.num_rows)
                table = table.append_column(field, values)
        return table.select(self._schema.names).cast(self._schema)
