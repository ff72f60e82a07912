"""The vectors of labels, read from the files of snapshots: labels go to where their users' vectors are.

Snapshots' files have ranges of user buckets (store/buckets.py), in order. Labels, which are narrow, are shuffled into
as many ranges and sorted; each task reads, of each snapshot, the row groups that have users of its labels, and passes
over both in step. Vectors are neither shuffled nor sorted.
Shapes: B labels of a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from userrep.joins.resolution import column
from userrep.store.buckets import ALL_BUCKETS, NUM_BUCKETS, BucketRange, bucket_of, ranges_of_groups
from userrep.store.storage import open_parquet, parquet_footer
from userrep.store.table_files import TableFile

_VECTORS = pa.list_(pa.float32())
_ROWS = {"user_id": pa.string(), "embedding": _VECTORS}
_MOST_USERS = 250_000  # of a snapshot, for one task
_HELD_GROUPS = 2  # row groups that a task keeps: one, and the next where a batch of labels goes over its end
_NONE = -1

Batch = tuple[pa.Array, pa.Array, pa.Array]  # of labels: users, snapshots' places, buckets


class _Files(NamedTuple):
    """The files of a snapshot, and the first and the last bucket in each."""

    uris: list[str]
    first_F: NDArray[np.int64]
    last_F: NDArray[np.int64]


class _RowGroup(NamedTuple):
    """A row group of a file, and the buckets that it may hold."""

    uri: str
    number: int
    held: BucketRange


def with_vectors(
    labels: DataFrame, snapshots: Sequence[Sequence[TableFile]], *, folder: str, user: str, time: str, min_tasks: int
) -> DataFrame:
    """Add __embedding, the vector of each label's user in the snapshot that counts; null where there is none.

    Parameters
    ----------
    labels : with __number, the place in ``snapshots`` of the one that counts, or null. snapshots : the files of each,
        below ``folder``. user, time : columns of labels.

    Returns
    -------
    Every label once. Cost: one shuffle of labels, and one pass over the row groups that have users of theirs. A task
    holds a batch of labels and two row groups of vectors; the driver one entry a file.
    """
    listed = [_files(files, folder) for files in snapshots]
    most_users = max((sum(file.num_rows for file in files) for files in snapshots), default=0)
    num_tasks = max(min_tasks, -(-most_users // _MOST_USERS))
    # Labels without a user go anywhere, not all to one task.
    anywhere = F.pmod(F.xxhash64(column(time)), F.lit(NUM_BUCKETS)).cast("int")
    bucket = F.when(column(user).isNull(), anywhere).otherwise(bucket_of(column(user)))
    task = F.floor(F.col("__bucket") * num_tasks / NUM_BUCKETS).cast("int")
    rows = labels.withColumn("__bucket", bucket)
    rows = rows.repartitionById(num_tasks, task).sortWithinPartitions("__number", "__bucket")
    # Nondeterministic: else Spark moves a filter on vectors to below the sort, and looks up labels that are not sorted.
    look_up = arrow_udf(_look_up(listed), "array<float>").asNondeterministic()  # type: ignore[call-overload]
    return rows.withColumn("__embedding", look_up(column(user), F.col("__number"), F.col("__bucket")))


def _files(files: Sequence[TableFile], folder: str) -> _Files:
    ends = [file.buckets or (ALL_BUCKETS.start, ALL_BUCKETS.stop - 1) for file in files]
    first_F, last_F = np.array(ends, np.int64).reshape(-1, 2).T
    return _Files([f"{folder}/{file.path}" for file in files], first_F, last_F)


def _look_up(snapshots: list[_Files]) -> Callable[[Iterator[Batch]], Iterator[pa.Array]]:
    """Return what a task does with its labels, which come sorted by snapshot and bucket."""

    def look_up(batches: Iterator[Batch]) -> Iterator[pa.Array]:
        read = lru_cache(maxsize=_HELD_GROUPS)(_read)
        for users, numbers, buckets in batches:
            yield _vectors(users, numbers.fill_null(_NONE).to_numpy(), buckets.to_numpy(), snapshots, read)

    return look_up


def _vectors(
    users: pa.Array,
    number_B: NDArray[np.int32],
    bucket_B: NDArray[np.int32],
    snapshots: list[_Files],
    read: Callable[[_RowGroup], pa.Table],
) -> pa.Array:
    """Return the vectors of a batch of labels."""
    place_B, found, num_found = np.full(len(users), _NONE), [pa.array([], _VECTORS)], 0
    edges = [0, *(np.flatnonzero(np.diff(number_B)) + 1), len(users)]
    for start, stop in pairwise(edges):
        if start == stop or number_B[start] == _NONE:
            continue
        of_one = bucket_B[start:stop]
        for group in _groups(snapshots[number_B[start]], of_one[0], of_one[-1]):
            first, last = start + np.searchsorted(of_one, group.held)
            if first == last:
                continue
            rows = read(group)
            row_B = pc.index_in(users.slice(first, last - first), value_set=rows["user_id"])
            is_there = row_B.is_valid().to_numpy(zero_copy_only=False)
            vectors = rows["embedding"].take(row_B.drop_null())
            place_B[first + np.flatnonzero(is_there)] = num_found + np.arange(len(vectors))
            num_found += len(vectors)
            found += vectors.chunks
    return pa.concat_arrays(found).take(pa.array(place_B, mask=place_B == _NONE))


def _groups(files: _Files, first: int, last: int) -> Iterator[_RowGroup]:
    """Yield the row groups that may have buckets in ``[first, last]``, in the order of their files."""
    for k in np.flatnonzero((files.first_F <= last) & (files.last_F >= first)):
        for group in _row_groups(files.uris[k]):
            if group.held.meets(BucketRange(first, last + 1)):
                yield group


@lru_cache(maxsize=4096)
def _row_groups(uri: str) -> list[_RowGroup]:
    return [_RowGroup(uri, k, held) for k, held in enumerate(ranges_of_groups(parquet_footer(uri)))]


def _read(group: _RowGroup) -> pa.Table:
    with open_parquet(group.uri, parquet_footer(group.uri)) as file:
        rows = file.read_row_group(group.number, columns=["user_id", "embedding"], use_threads=False)
        return pa.table({name: rows[name].combine_chunks().cast(kind) for name, kind in _ROWS.items()})
