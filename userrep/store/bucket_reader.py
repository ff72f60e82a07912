"""Reads of only those files and row groups that may contain given hash buckets (``store/buckets.py``).

Parquet statistics give the buckets of a row group. Each process reads the footer of a file once.
Shapes: N ranges of buckets, or rows.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from userrep.store.buckets import NUM_BUCKETS, user_bucket
from userrep.store.data_files import TableFile, matches
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import open_parquet, parquet_footer
from userrep.store.schemas import TableSchema
from userrep.store.tables import Keys, Tables
from userrep.store.xxhash import bucket_of

_BATCH_ROWS = 8_192


class BucketRanges(NamedTuple):
    """The buckets of several files or row groups: the first and last bucket of each, both included."""

    first_N: NDArray[np.int64]
    last_N: NDArray[np.int64]

    @classmethod
    def of(cls, ends: Sequence[tuple[int, int]]) -> "BucketRanges":
        """Return ranges with these first and last buckets."""
        return cls(*np.array(ends, np.int64).reshape(-1, 2).T)

    def meeting(self, first: int, last: int) -> NDArray[np.int64]:
        """Return the numbers of the ranges that contain a bucket from ``first`` to ``last``, both included."""
        return np.flatnonzero((self.first_N <= last) & (self.last_N >= first))

    def containing(self, buckets: NDArray[np.signedinteger[Any]]) -> NDArray[np.int64]:
        """Return the numbers of the ranges that contain any of ``buckets``. ``buckets``: sorted, not empty."""
        near = self.meeting(buckets[0], buckets[-1])
        num_before = np.searchsorted(buckets, self.first_N[near])
        return near[num_before < np.searchsorted(buckets, self.last_N[near], side="right")]


class BucketFiles(NamedTuple):
    """Files of a table that is laid out by user bucket, the buckets in each, and their number of rows in total."""

    uris: list[str]
    ranges: BucketRanges
    num_rows: int

    @classmethod
    def of(cls, files: Sequence[TableFile]) -> "BucketFiles":
        ranges = BucketRanges.of([file.possible_buckets for file in files])
        return cls([file.uri for file in files], ranges, sum(file.num_rows for file in files))

    def rows_of_users(self, user_ids: pa.Array, columns: Sequence[str]) -> pa.Table:
        """Read the rows of users (strings without nulls). ``columns`` must include user_id.

        Cost: one or two row groups per user. If no row group can contain any of them, the columns have the null type.
        """
        buckets, tables = np.unique(bucket_of(user_ids)), [_no_rows(columns)]
        for number in self.ranges.containing(buckets) if len(buckets) else ():
            uri = self.uris[number]
            groups = row_group_ranges(uri).containing(buckets)
            if len(groups):
                rows = read_row_groups(uri, groups, columns)
                tables.append(rows.filter(pc.is_in(rows["user_id"], value_set=user_ids)))
        return pa.concat_tables(tables, promote_options="permissive")


@lru_cache(maxsize=4096)
def row_group_ranges(uri: str, column: str = "user_bucket") -> BucketRanges:
    """Return the buckets in each row group of a table's file, by its statistics; any bucket without them."""
    footer = parquet_footer(uri)
    index = footer.schema.names.index(column)
    stats = [footer.row_group(k).column(index).statistics for k in range(footer.num_row_groups)]
    return BucketRanges.of(
        [(each.min, each.max) if each and each.has_min_max else (0, NUM_BUCKETS - 1) for each in stats]
    )


def read_row_groups(uri: str, numbers: Iterable[int], columns: Sequence[str], *, use_threads: bool = False) -> pa.Table:
    """Read row groups of a table's file."""
    with open_parquet(uri, parquet_footer(uri)) as file:
        return file.read_row_groups(list(map(int, numbers)), columns=list(columns), use_threads=use_threads)


def rows_below(limit: int, tables: Tables, table: TableSchema, keys: Keys, columns: Sequence[str]) -> pa.Table:
    """Read the rows of some partitions whose users are in buckets below ``limit``. ``columns`` must include user_id.

    These are the same users in every table and at every date.

    Cost: the row groups up to the last of these users in each file that may have one, without Spark below a root; a
    Spark job in a catalog. Memory: the rows, and one row group.
    """
    if not isinstance(tables, FileTables):
        return tables.read(table, keys).where(user_bucket() < limit).select(*columns).toArrow()
    parts = [_no_rows(columns)]
    for file in tables.files(table, matches(keys)):
        if file.possible_buckets[0] >= limit:
            continue
        for rows in open_parquet(file.uri).iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            is_sampled_N = bucket_of(rows.column("user_id")) < limit
            parts.append(pa.Table.from_batches([rows.filter(pa.array(is_sampled_N))]))
            if not is_sampled_N.all():  # rows are sorted by bucket within a file
                break
    return pa.concat_tables(parts, promote_options="permissive")


def rows_of_users(
    user_ids: pa.StringArray, tables: Tables, table: TableSchema, keys: Keys, columns: Sequence[str]
) -> pa.Table:
    """Read the rows of some partitions that are of some users. ``columns`` must include user_id.

    Cost: the row groups that may contain the users, one at a time, without Spark below a root; one pass and a broadcast
    of the ids in a catalog. Memory: the rows.
    """
    if not isinstance(tables, FileTables):
        from pyspark.sql import functions as F

        ids = tables.spark.createDataFrame(pa.table({"user_id": user_ids}))
        rows = tables.read(table, keys).join(F.broadcast(ids), on="user_id", how="left_semi")
        return rows.select(*columns).toArrow()
    return BucketFiles.of(tables.files(table, matches(keys))).rows_of_users(user_ids, columns)


def _no_rows(columns: Sequence[str]) -> pa.Table:
    return pa.table({name: pa.nulls(0) for name in columns})
