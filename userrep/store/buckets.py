"""Layout of rows by a hash of the user id, so that tables can be joined without a shuffle.

A user's ``user_bucket`` is a hash in ``[0, NUM_BUCKETS)``. Tables are split into slices, which are equal ranges of
buckets, and files are sorted by bucket. ``user_slice`` is the name of a file's slice ("3-of-16"), and row group
statistics locate a range of buckets within a file. The number of slices is a power of two, so that ranges nest. Item
vectors use the same layout by ``item_bucket``, the same hash of the item id.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import Column


NUM_BUCKETS = 2**20
HASH_SEED = 5_381  # makes the hash independent of the one with which Spark assigns rows to partitions


class BucketRange(NamedTuple):
    """The buckets ``[start, stop)``."""

    start: int
    stop: int


ALL_BUCKETS = BucketRange(0, NUM_BUCKETS)


def buckets_of_share(share: float) -> int:
    """Return the bucket below which approximately ``share`` of all users lie; all buckets for shares of 1 or more."""
    return math.ceil(NUM_BUCKETS * min(1.0, share))


def bucket_column(text: str | Column) -> Column:
    """Return the bucket of a user id or item id, as an int column."""
    from pyspark.sql import functions as F

    return F.pmod(F.xxhash64(text, F.lit(HASH_SEED)), F.lit(NUM_BUCKETS)).cast("int")


def user_bucket() -> Column:
    """Return the bucket of the column ``user_id``, as an int column."""
    return bucket_column("user_id").alias("user_bucket")


def item_bucket() -> Column:
    """Return the bucket of the column ``item_id``, as an int column."""
    return bucket_column("item_id").alias("item_bucket")


def slice_number(num_slices: int, bucket: str | Column = "user_bucket") -> Column:
    """Return the number of the slice, out of any number of equal ones, that contains a bucket."""
    from pyspark.sql import functions as F

    bucket = F.col(bucket) if isinstance(bucket, str) else bucket
    return F.floor(bucket.cast("long") * num_slices / NUM_BUCKETS).cast("int")  # an int would overflow


def user_slice(num_slices: int) -> Column:
    """Return the name of the slice that contains ``user_bucket``, such as ``3-of-16``."""
    from pyspark.sql import functions as F

    return F.concat(slice_number(num_slices), F.lit(f"-of-{num_slices}")).alias("user_slice")


def range_of(number: int, num_slices: int) -> BucketRange:
    """Return the buckets of slice ``number`` of ``num_slices``."""
    width = NUM_BUCKETS // num_slices
    return BucketRange(number * width, (number + 1) * width)


def power_of_two(at_least: float) -> int:
    """Return the smallest power of two that is at least ``at_least``, but at most the number of buckets."""
    return min(NUM_BUCKETS, 1 << max(0, math.ceil(at_least) - 1).bit_length())


def partition_values(path: str) -> dict[str, str]:
    """Return the partition values in a file's path, as Spark writes them (``name=value/``, URL-quoted)."""
    return {name: unquote(value) for name, value in re.findall(r"([a-z_]+)=([^/]+)/", path)}


def range_of_slice(user_slice: str) -> BucketRange:
    """Return the buckets of a slice with a name such as ``3-of-16``."""
    return range_of(*map(int, user_slice.split("-of-")))
