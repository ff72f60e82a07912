"""How rows are laid out by user: tables that are sorted by one hash of the user id meet without a shuffle.

A user's ``user_bucket`` is a hash in ``[0, NUM_BUCKETS)``. A table's files are cut into slices, equal ranges of
buckets, and sorted by bucket within: ``user_slice`` names a file's slice ("3-of-16"), and the statistics of its row
groups say where in the file a range of buckets is. Numbers of slices are powers of two, so that ranges nest. Item
vectors are laid out likewise, by ``item_bucket``: the same hash, of the item id.
"""

import math
import re
from typing import NamedTuple
from urllib.parse import unquote

import pyarrow.parquet as pq
from pyspark.sql import Column
from pyspark.sql import functions as F

NUM_BUCKETS = 2**20
HASH_SEED = 5_381  # another hash than Spark's own, which deals rows to partitions


class BucketRange(NamedTuple):
    """The buckets ``[start, stop)``."""

    start: int
    stop: int

    def meets(self, other: "BucketRange") -> bool:
        """Say whether the two have a bucket in common."""
        return self.start < other.stop and other.start < self.stop


ALL_BUCKETS = BucketRange(0, NUM_BUCKETS)


def buckets_of_share(share: float) -> int:
    """Return below which bucket there are some ``share`` of all users; of one or more, all."""
    return math.ceil(NUM_BUCKETS * min(1.0, share))


def bucket_of(text: str | Column) -> Column:
    """Return the bucket of a text, an int: a user id's or an item id's."""
    return F.pmod(F.xxhash64(text, F.lit(HASH_SEED)), F.lit(NUM_BUCKETS)).cast("int")


def user_bucket() -> Column:
    """Return the bucket of ``user_id``, an int."""
    return bucket_of("user_id").alias("user_bucket")


def item_bucket() -> Column:
    """Return the bucket of ``item_id``, an int."""
    return bucket_of("item_id").alias("item_bucket")


def slice_number(num_slices: int, bucket: str | Column = "user_bucket") -> Column:
    """Return the slice that a bucket lies in, of ``num_slices``."""
    bucket = F.col(bucket) if isinstance(bucket, str) else bucket
    return F.floor(bucket / (NUM_BUCKETS // num_slices)).cast("int")


def user_slice(num_slices: int) -> Column:
    """Name the slice that ``user_bucket`` lies in: ``3-of-16``."""
    return F.concat(slice_number(num_slices), F.lit(f"-of-{num_slices}")).alias("user_slice")


def range_of(number: int, num_slices: int) -> BucketRange:
    """Return the buckets of slice ``number`` of ``num_slices``."""
    width = NUM_BUCKETS // num_slices
    return BucketRange(number * width, (number + 1) * width)


def power_of_two(at_least: float) -> int:
    """Return the smallest power of two that is not below ``at_least``; never more than there are buckets."""
    return min(NUM_BUCKETS, 1 << max(0, math.ceil(at_least) - 1).bit_length())


def ranges_of_groups(footer: pq.FileMetaData, column: str = "user_bucket") -> list[BucketRange]:
    """Return the buckets that each row group may hold, by its statistics; all where it has none."""
    place = footer.schema.names.index(column)
    found = (footer.row_group(k).column(place).statistics for k in range(footer.num_row_groups))
    return [
        ALL_BUCKETS if ends is None or not ends.has_min_max else BucketRange(ends.min, ends.max + 1) for ends in found
    ]


def partition_values(path: str) -> dict[str, str]:
    """Read the partition columns' values from a file's path, as Spark writes them."""
    return {name: unquote(value) for name, value in re.findall(r"([a-z_]+)=([^/]+)/", path)}


def range_of_slice(user_slice: str) -> BucketRange:
    """Return the buckets of a slice by its name."""
    number, num_slices = user_slice.split("-of-")
    return range_of(int(number), int(num_slices))
