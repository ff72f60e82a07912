"""Reads of only those row groups of a file that may contain given hash buckets (``store/buckets.py``).

Parquet statistics tell the buckets of a row group. Each process reads the footer of a file once.
Shapes: N ranges of buckets.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.store.buckets import ALL_BUCKETS
from userrep.store.filesystem import open_parquet, parquet_footer


class BucketRanges(NamedTuple):
    """The buckets of several files or row groups: the first and last bucket of each, both included."""

    first_N: NDArray[np.int64]
    last_N: NDArray[np.int64]

    @classmethod
    def of(cls, ends: Sequence[tuple[int, int] | None]) -> "BucketRanges":
        """Return ranges with these first and last buckets. None means that any bucket is possible."""
        known = [pair or (ALL_BUCKETS.start, ALL_BUCKETS.stop - 1) for pair in ends]
        return cls(*np.array(known, np.int64).reshape(-1, 2).T)

    def meeting(self, first: int, last: int) -> NDArray[np.int64]:
        """Return the numbers of the ranges that contain a bucket from ``first`` to ``last``, both included."""
        return np.flatnonzero((self.first_N <= last) & (self.last_N >= first))

    def containing(self, buckets: NDArray[np.signedinteger[Any]]) -> NDArray[np.int64]:
        """Return the numbers of the ranges that contain any of some buckets, which are sorted and at least one."""
        near = self.meeting(buckets[0], buckets[-1])
        num_before = np.searchsorted(buckets, self.first_N[near])
        return near[num_before < np.searchsorted(buckets, self.last_N[near], side="right")]


@lru_cache(maxsize=4096)
def row_group_ranges(uri: str, column: str = "user_bucket") -> BucketRanges:
    """Return the buckets in each row group of a table's file, by its statistics."""
    footer = parquet_footer(uri)
    index = footer.schema.names.index(column)
    stats = [footer.row_group(k).column(index).statistics for k in range(footer.num_row_groups)]
    return BucketRanges.of([(each.min, each.max) if each is not None and each.has_min_max else None for each in stats])


def read_row_groups(uri: str, numbers: Iterable[int], columns: Sequence[str], *, use_threads: bool = False) -> pa.Table:
    """Read row groups of a table's file."""
    with open_parquet(uri, parquet_footer(uri)) as file:
        return file.read_row_groups(list(map(int, numbers)), columns=list(columns), use_threads=use_threads)
