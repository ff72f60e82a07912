"""Behavior vectors: implicit-feedback ALS (Hu, Koren, Volinsky 2008) on events before a version's date.

By default, one task fits versions with the library ``implicit``, on all users or on a sample that fits into its memory.
``solver: spark`` uses Spark ML on the whole cluster instead.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import TaskContext
from pyspark.errors import PythonException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from userrep.config import AlsVectors
from userrep.errors import UserrepError
from userrep.items.als_fit import event_counts, fit_item_factors, free_bytes, initial_factors, largest, needed_bytes
from userrep.items.als_on_spark import item_factors
from userrep.items.vectors import aligned_directions
from userrep.store.arrow import combined, listed, stacked

NOT_ENOUGH_MEMORY = "not enough memory for ALS"  # start of the error message of a task with too many interactions
_WARM_DIVISOR = 3  # a fit that starts from an earlier version takes 1/3 of the iterations (decision 0001)
_INPUT = pa.schema(
    [("user_hash", pa.int64()), ("user_bucket", pa.int32()), ("item_index", pa.int32()), ("valid_from", pa.date32()),
     ("num_events", pa.int64()), ("vector", pa.list_(pa.float32()))]
)  # fmt: skip


def interactions(tiles: DataFrame, item_index: DataFrame, bucket_limits: Mapping[date, int]) -> DataFrame:
    """Count events by user, item and the first version that includes them.

    Parameters
    ----------
    tiles : user_item_days before the last version. item_index : item_id, item_index. bucket_limits : versions, each
        with the exclusive upper user bucket of its sample; a later version has the same or a lower limit.

    Returns
    -------
    One row per user_hash (long; with its user_bucket), item_index, valid_from: num_events. A fit for version V uses the
    rows of its sample with valid_from at or before V. Cost: one shuffle by user and item, one join.
    """
    first_version, is_sampled = F.lit(None).cast("date"), F.lit(False)
    for version, limit in sorted(bucket_limits.items(), reverse=True):
        is_before = F.col("event_date") < F.lit(version)
        first_version = F.when(is_before, F.lit(version)).otherwise(first_version)
        is_sampled = F.when(is_before, F.col("user_bucket") < limit).otherwise(is_sampled)
    widest = max(bucket_limits.values(), default=0)  # a static filter, so that row groups can be skipped
    counts = (
        tiles.where((F.col("user_bucket") < widest) & is_sampled)
        .groupBy(F.xxhash64("user_id").alias("user_hash"), "user_bucket", "item_id", first_version.alias("valid_from"))
        .agg(F.sum("num_events").alias("num_events"))
    )
    return counts.join(item_index, on="item_id", how="inner").select(
        "user_hash", "user_bucket", "item_index", "valid_from", "num_events"
    )


class PlannedFit(NamedTuple):
    """A version to fit, on the users below a bucket.

    ``axes_from``: the version whose axes the result is rotated onto; None keeps the fit's own axes. If that version is
    earlier, the fit also starts from its vectors, and takes a third of the iterations.
    """

    version: date
    bucket_limit: int
    axes_from: date | None


def behaviour_vectors(
    pairs: DataFrame, plan: Sequence[PlannedFit], known: DataFrame | None, *, settings: AlsVectors
) -> DataFrame:
    """Fit ALS on the interactions of some versions and rotate the item factors of each onto another version.

    A vector is the direction of a factor, with norm 1. The norm of a factor mostly reflects the item's popularity, so
    means of unscaled factors would be dominated by popular items.

    Parameters
    ----------
    pairs : rows of ``interactions``; rows of the same user and item add up. plan : fits in order; each may use the axes
        of an earlier fit. known : valid_from, item_index, vector of the stored versions that the plan refers to.

    Returns
    -------
    One row per version and item with an event: valid_from, item_index, vector. Lazy. The result depends neither on the
    order and partitions of the rows nor on which versions are fitted together. Cost: one task receives all rows and
    fits them with ``spark.task.cpus`` threads, or with all cores of a local session, which are idle meanwhile. With
    ``solver: spark``: one version at a time, without warm start, with ``iterations`` x 2 shuffles of the interactions.
    """
    if settings.solver == "spark":
        (planned,) = plan
        is_used = (F.col("valid_from") <= F.lit(planned.version)) & (F.col("user_bucket") < planned.bucket_limit)
        constants = {name: F.lit(0) for name in ("user_hash", "user_bucket", "num_events")}
        factors = item_factors(pairs.where(is_used), settings=settings)
        rows = factors.select(*_input_columns(**constants, valid_from=F.lit(planned.version)))
    else:
        # Empty lists instead of nulls: Spark's Arrow writer rescans all nulls of a list column for each row.
        is_used = F.col("valid_from") <= F.lit(max(planned.version for planned in plan))
        rows = pairs.where(is_used).select(*_input_columns(vector=F.array()))
    if known is not None:
        nulls = {name: F.lit(None) for name in ("user_hash", "user_bucket", "num_events")}
        rows = rows.unionByName(known.select(*_input_columns(**nulls)))
    schema, num_threads = "valid_from DATE, item_index INT, vector ARRAY<FLOAT>", _local_cores(rows.sparkSession)
    return rows.repartition(1, F.lit(0)).mapInArrow(
        lambda batches: fit_versions(batches, settings, plan, num_threads), schema
    )


def _local_cores(spark: SparkSession) -> int | None:
    """Return the number of cores of a session with ``local[N]`` as its master; None on a cluster."""
    local = re.match(r"local\[(\d+|\*)", spark.conf.get("spark.master", "") or "")
    if local is None:
        return None
    return int(local[1]) if local[1] != "*" else os.cpu_count()


@contextmanager
def memory_error_with_advice() -> Iterator[None]:
    """Turn the error of a task with too many interactions into one line with advice."""
    try:
        yield
    except PythonException as error:
        _, found, details = str(error).partition(NOT_ENOUGH_MEMORY)
        if not found:
            raise
        raise UserrepError(
            f"item_vectors: {found}{details.splitlines()[0]} Lower max_tiles to fit fewer users, or give executors "
            "more memory (spark.executor.memoryOverhead)."
        ) from error


def _input_columns(**replacements: Column) -> list[Column]:
    """Return the columns that a task receives, taken from ``replacements`` where given.

    Rows with a ``user_hash`` are interactions or factors to process; rows without one are vectors of stored versions.
    """
    fields = from_arrow_schema(_INPUT).fields
    return [replacements.get(field.name, F.col(field.name)).cast(field.dataType).alias(field.name) for field in fields]


def fit_versions(
    batches: Iterable[pa.RecordBatch], settings: AlsVectors, plan: Sequence[PlannedFit], num_threads: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Fit versions in one task, one after the other, or take the factors that Spark ML has fitted.

    Rotates the factors of each version onto the axes of another one. Yields valid_from, item_index, vector of the
    items with an event before each version. ``num_threads``: by default ``spark.task.cpus``.

    Raises
    ------
    MemoryError
        If a fit needs more memory than is free. The message starts with ``NOT_ENOUGH_MEMORY``.
    """
    received = batches if settings.solver == "spark" else _checked_batches(batches, settings.dim)
    rows, vectors, num_items = _split(received, settings.dim)
    for k, planned in enumerate(plan):
        is_used = pc.and_(
            pc.less_equal(rows.column("valid_from"), planned.version),
            pc.less(rows.column("user_bucket"), planned.bucket_limit),
        )
        fit_rows, is_last = rows.filter(is_used), k == len(plan) - 1
        if is_last:
            del rows  # free memory for the fit
        before_ID = vectors.get(planned.axes_from, np.zeros((num_items, settings.dim), np.float32))
        needed = {later.axes_from for later in plan[k + 1 :]}
        vectors = {version: matrix for version, matrix in vectors.items() if version in needed}
        if not fit_rows.num_rows:
            continue
        is_earlier = planned.axes_from is not None and planned.axes_from < planned.version
        is_warm = is_earlier and bool(before_ID.any())
        start_ID = before_ID if is_warm else np.zeros_like(before_ID)
        iterations = max(1, settings.iterations // _WARM_DIVISOR) if is_warm else settings.iterations
        items, factors_ID = _factors(fit_rows, start_ID, settings, iterations, num_threads)
        vector_ID = aligned_directions(factors_ID, before_ID[items])
        if not is_last:
            vectors[planned.version] = np.zeros((num_items, settings.dim), np.float32)
            vectors[planned.version][items] = vector_ID
        dates = pa.repeat(pa.scalar(planned.version), len(items))
        columns = {"valid_from": dates, "item_index": pa.array(items, pa.int32()), "vector": listed(vector_ID)}
        yield pa.RecordBatch.from_pydict(columns)


def _factors(
    rows: pa.Table, before_ID: NDArray[np.float32], settings: AlsVectors, iterations: int, num_threads: int | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the items with an event, and their factors. ``before_ID``: vectors to start a fit from."""
    if settings.solver == "spark":
        return rows.column("item_index").to_numpy(), stacked(combined(rows.column("vector")), settings.dim)
    start_ID, counts_UI = initial_factors(before_ID, settings.seed), event_counts(rows, len(before_ID))
    items = np.unique(counts_UI.indices)  # items without events would distort the users' factors
    _check(needed_bytes(0, counts_UI.shape[0] + len(items), settings.dim), counts_UI.nnz, free_bytes())
    context = TaskContext.get()
    num_threads = num_threads or (context.cpus() if context else 1)
    factors_ID = fit_item_factors(
        counts_UI[:, items], start_ID[items], settings=settings, iterations=iterations, num_threads=num_threads
    )
    return items, factors_ID


def _checked_batches(batches: Iterable[pa.RecordBatch], dim: int) -> Iterator[pa.RecordBatch]:
    """Pass the batches on while a fit of all received rows would fit into memory."""
    free, num_rows, num_items = free_bytes(), 0, 0
    for batch in batches:
        num_rows += batch.num_rows
        num_items = max(num_items, 1 + largest(batch.column("item_index")))
        _check(needed_bytes(num_rows, num_items, dim), num_rows, free)
        yield batch


def _split(batches: Iterable[pa.RecordBatch], dim: int) -> tuple[pa.Table, dict[date | None, NDArray[np.float32]], int]:
    """Return the rows to fit or rotate, the vectors of stored versions by item number, and the number of items.

    An item without a vector has zeros.
    """
    received = list(batches)
    table = pa.Table.from_batches(received) if received else _INPUT.empty_table()
    num_items, is_input = 1 + largest(table.column("item_index")), pc.is_valid(table.column("user_hash"))
    known, vectors = table.filter(pc.invert(is_input)), {}
    for version in known.column("valid_from").unique().to_pylist():
        stored = known.filter(pc.equal(known.column("valid_from"), version))
        vectors[version] = np.zeros((num_items, dim), np.float32)
        vectors[version][stored.column("item_index").to_numpy()] = stacked(combined(stored.column("vector")), dim)
    return table.filter(is_input), vectors, num_items


def _check(needed: int, num_rows: int, free: int) -> None:
    """Raise MemoryError if more bytes are needed than are free. ``free`` 0: unknown, not checked."""
    if free and needed > free:
        raise MemoryError(
            f"{NOT_ENOUGH_MEMORY}: at least {num_rows:,} user-item pairs need {needed / 1e9:.1f} GB in one task, "
            f"got {free / 1e9:.1f} GB of free memory."
        )
