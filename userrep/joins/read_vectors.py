"""Look up the vectors of labels in the files of snapshots.

The files of a snapshot contain ordered ranges of user buckets (store/buckets.py). Labels, which are narrow, are
shuffled into such ranges and sorted. Each task then reads, for each snapshot, the row groups that may contain its
labels' users, in the order of the labels. Vectors are neither shuffled nor sorted.
Shapes: B labels of a batch, F files of a snapshot.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from userrep.joins.options import column
from userrep.store import xxhash
from userrep.store.bucket_reader import BucketFiles, read_row_groups, row_group_ranges
from userrep.store.buckets import NUM_BUCKETS, bucket_column, slice_number

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import Column, DataFrame

    from userrep.spark.releases import Arrays

_VECTORS = pa.list_(pa.float32())
_ROWS = {"user_id": pa.string(), "embedding": _VECTORS}
_MOST_USERS = 250_000  # maximum users of a snapshot per task
_CACHED_GROUPS = 2  # row groups that a task caches: the current one, and the next if a batch of labels spans both
_LEAST_LABELS = 10_000  # of a thread
_NONE = -1
NO_STEP = -1  # snapshot number of a label for which no vector is looked up

_LABELS = (pa.string(), pa.int32(), pa.int32())  # of a batch: user ids, snapshot numbers, user buckets


def with_vectors(
    labels: DataFrame, snapshots: Sequence[BucketFiles], *, user: str, time: str, min_tasks: int
) -> DataFrame:
    """Add __embedding: the vector of each label's user in the label's snapshot, or null if the user is not in it.

    Parameters
    ----------
    labels : with __number, the index of the label's snapshot in ``snapshots``, or null. snapshots : the files of each
        snapshot. user, time : columns of the labels.

    Returns
    -------
    Every label once. Cost: one shuffle of the labels, and one pass over the row groups that may contain their users. A
    task keeps a batch of labels and two row groups of vectors in memory; the driver keeps one entry per file.
    """
    from pyspark.sql import functions as F

    from userrep.spark.releases import arrow_udf, repartition_by_number

    most_users = max((files.num_rows for files in snapshots), default=0)
    num_tasks = max(min_tasks, -(-most_users // _MOST_USERS))
    rows = labels.withColumn("__bucket", bucket_of_label(user, time))
    rows = repartition_by_number(rows, num_tasks, slice_number(num_tasks, "__bucket"))
    # Nondeterministic, or Spark would push a filter on vectors below the sort and look up unsorted labels.
    vector = arrow_udf(look_up(snapshots), "array<float>", *_LABELS).asNondeterministic()
    rows = rows.sortWithinPartitions("__number", "__bucket")
    return rows.withColumn("__embedding", vector(column(user), F.col("__number"), F.col("__bucket")))


def bucket_of_label(user: str, time: str) -> Column:
    """Return the bucket of a label's user. Labels without one are spread over all buckets."""
    from pyspark.sql import functions as F

    any_bucket = F.pmod(F.xxhash64(column(time)), F.lit(NUM_BUCKETS)).cast("int")
    return F.when(column(user).isNull(), any_bucket).otherwise(bucket_column(column(user)))


def find_vectors(users: pa.Array, number_N: NDArray[np.int64], snapshots: Sequence[BucketFiles]) -> pa.Array:
    """Return the vector of each label's user in the label's snapshot, or null, without Spark; see ``with_vectors``.

    Labels may be in any order. ``number_N``: index of the label's snapshot in ``snapshots``, or NO_STEP. Each thread of
    up to one per core looks up a part of the labels, and keeps two row groups.
    """
    bucket_N = xxhash.bucket_of(users.fill_null(""))
    order_N = np.lexsort((bucket_N, number_N))

    def vectors_of(part_N: NDArray[np.int64]) -> pa.Array:
        labels = users.take(pa.array(part_N)), pa.array(number_N[part_N]), pa.array(bucket_N[part_N])
        return next(look_up(snapshots)(iter([labels])))

    parts = np.array_split(order_N, min(os.cpu_count() or 1, 1 + len(users) // _LEAST_LABELS))
    with ThreadPoolExecutor(len(parts)) as pool:
        vectors = pa.concat_arrays(list(pool.map(vectors_of, parts)))
    return vectors.take(pa.array(np.argsort(order_N)))


def look_up(snapshots: Sequence[BucketFiles]) -> Callable[[Arrays], Iterator[pa.Array]]:
    """Return the function that a task applies to its labels, which arrive sorted by snapshot and bucket.

    It takes batches of user ids, snapshot numbers (null or NO_STEP for none) and user buckets, and returns vectors.
    """

    def vectors_of(batches: Arrays) -> Iterator[pa.Array]:
        read = lru_cache(maxsize=_CACHED_GROUPS)(_read)
        for users, numbers, buckets in batches:
            yield _vectors(users, numbers.fill_null(NO_STEP).to_numpy(), buckets.to_numpy(), snapshots, read)

    return vectors_of


def _vectors(
    users: pa.Array,
    number_B: NDArray[np.signedinteger[Any]],
    bucket_B: NDArray[np.int32],
    snapshots: Sequence[BucketFiles],
    read: Callable[[str, int], pa.Table],
) -> pa.Array:
    """Return the vector of each label of a batch, null where the snapshot has no such user."""
    index_B, chunks, num_vectors = np.full(len(users), _NONE), [pa.array([], _VECTORS)], 0
    edges = [0, *(np.flatnonzero(np.diff(number_B)) + 1), len(users)]
    for start, stop in pairwise(edges):  # the labels of one snapshot
        if start == stop or number_B[start] == NO_STEP:
            continue
        buckets = bucket_B[start:stop]
        for uri, group, group_first, group_last in _groups(snapshots[number_B[start]], buckets[0], buckets[-1]):
            first, last = start + np.searchsorted(buckets, (group_first, group_last + 1))
            if first == last:
                continue
            rows = read(uri, group)
            row_B = pc.index_in(users.slice(first, last - first), value_set=rows["user_id"])
            has_vector = row_B.is_valid().to_numpy(zero_copy_only=False)
            vectors = rows["embedding"].take(row_B.drop_null())
            index_B[first + np.flatnonzero(has_vector)] = num_vectors + np.arange(len(vectors))
            num_vectors += len(vectors)
            chunks += vectors.chunks
    return pa.concat_arrays(chunks).take(pa.array(index_B, mask=index_B == _NONE))


def _groups(files: BucketFiles, first: int, last: int) -> Iterator[tuple[str, int, int, int]]:
    """Yield the row groups that may contain buckets from ``first`` to ``last``, in the order of their files.

    Each is a file, the number of the row group in it, and the group's first and last bucket.
    """
    for k in files.ranges.meeting(first, last):
        first_G, last_G = ranges = row_group_ranges(files.uris[k])
        for group in ranges.meeting(first, last):
            yield files.uris[k], group, first_G[group], last_G[group]


def _read(uri: str, group: int) -> pa.Table:
    rows = read_row_groups(uri, [group], list(_ROWS))
    return pa.table({name: rows[name].combine_chunks().cast(kind) for name, kind in _ROWS.items()})
