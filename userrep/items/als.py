"""Behavior vectors: implicit-feedback ALS (Hu, Koren, Volinsky 2008) on events before a version's date.

One task fits versions with the library ``implicit``, on all users or on a sample of them that fits into its memory.
``solver: spark`` uses Spark ML on the whole cluster instead.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import TaskContext
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep.config import AlsVectors
from userrep.items.als_fit import event_counts, fit_item_factors, free_bytes, initial_factors, largest, needed_bytes
from userrep.items.numbers import with_dense_numbers
from userrep.items.vectors import aligned_directions
from userrep.store.arrow import combined, listed, stacked

if TYPE_CHECKING:
    from pyspark.ml.recommendation import ALSModel

TOO_LITTLE_MEMORY = "too little memory for ALS"  # begins the message of a task that cannot hold its interactions
_INPUT = pa.schema(
    [("user_hash", pa.int64()), ("user_bucket", pa.int32()), ("item_index", pa.int32()), ("valid_from", pa.date32()),
     ("num_events", pa.int64()), ("vector", pa.list_(pa.float32()))]
)  # fmt: skip
_PAIRS_PER_BLOCK = 1_000_000  # of Spark's ALS; from the data, so that a session's settings do not change the result


def interactions(tiles: DataFrame, item_index: DataFrame, bucket_limits: Mapping[date, int]) -> DataFrame:
    """Count events by user, item and the first version whose date lies past them.

    Parameters
    ----------
    tiles : user_item_days before the last version. item_index : item_id, item_index. bucket_limits : versions, each
        with the user bucket below which users are in its sample; a later version has the same or a lower one.

    Returns
    -------
    One row per user_hash (long; with its user_bucket), item_index, valid_from: num_events. A fit for version V takes
    the rows with valid_from at or before V of the users in its sample. Cost: one shuffle by user and item, one join.
    """
    first_past, is_sampled = F.lit(None).cast("date"), F.lit(False)
    for version, limit in sorted(bucket_limits.items(), reverse=True):
        is_past = F.col("event_date") < F.lit(version)
        first_past = F.when(is_past, F.lit(version)).otherwise(first_past)
        is_sampled = F.when(is_past, F.col("user_bucket") < limit).otherwise(is_sampled)
    widest = max(bucket_limits.values(), default=0)  # a filter that row groups can be skipped by
    counts = (
        tiles.where((F.col("user_bucket") < widest) & is_sampled)
        .groupBy(F.xxhash64("user_id").alias("user_hash"), "user_bucket", "item_id", first_past.alias("valid_from"))
        .agg(F.sum("num_events").alias("num_events"))
    )
    return counts.join(item_index, on="item_id", how="inner").select(
        "user_hash", "user_bucket", "item_index", "valid_from", "num_events"
    )


@dataclass(frozen=True)
class PlannedFit:
    """A version to be fitted, on the users below a bucket. ``before``: the version whose axes it gets, None: its own.

    ``starts_there``: whether the fit starts from that version's vectors; it does from an earlier one.
    """

    version: date
    bucket_limit: int
    before: date | None
    starts_there: bool


def behaviour_vectors(
    pairs: DataFrame, plan: Sequence[PlannedFit], known: DataFrame | None, *, settings: AlsVectors
) -> DataFrame:
    """Fit ALS on the interactions of some versions and rotate the item factors of each onto another version.

    A vector is a factor's direction, of length 1. The length of a factor mostly says how popular the item is, so a mean
    of factors would be dominated by popular items.

    Parameters
    ----------
    pairs : rows of ``interactions``; those of a user and an item are added up. plan : in order; each may have the axes
        of one before it. known : valid_from, item_index, vector of the stored versions that the plan refers to.

    Returns
    -------
    One row per version and item with an event: valid_from, item_index, vector. Lazy. Neither the order and the
    partitions of the rows nor which versions are fitted together change the result. Cost: one task that receives all
    rows and fits them with ``spark.task.cpus`` threads; with ``solver: spark``, one version at a time, ``iterations`` x
    2 shuffles of the interactions, and no start from ``before``.
    """
    fit: VersionFits | Alignment
    if settings.solver == "spark":
        (only,) = plan
        mine = pairs.where((F.col("valid_from") <= F.lit(only.version)) & (F.col("user_bucket") < only.bucket_limit))
        if mine.isEmpty():  # Spark's ALS fails without a pair
            return mine.select("valid_from", "item_index", F.array().cast("array<float>").alias("vector"))
        users = mine.select("user_hash").distinct()
        numbers = with_dense_numbers(users, column="user_hash", number="user_number", start=0)
        factors = fit_als(mine.join(numbers, on="user_hash", how="inner"), settings=settings).itemFactors
        shared = {name: F.lit(0) for name in ("user_hash", "user_bucket", "num_events")}
        named = {"valid_from": F.lit(only.version), "item_index": F.col("id"), "vector": F.col("features")}
        rows, fit = factors.select(*_input_columns(**shared, **named)), Alignment(settings.dim, only.version)
    else:
        # An empty list and no null: Spark's Arrow writer goes through all nulls of a list column again for each row.
        is_wanted = F.col("valid_from") <= F.lit(max(planned.version for planned in plan))
        rows, fit = pairs.where(is_wanted).select(*_input_columns(vector=F.array())), VersionFits(settings, tuple(plan))
    if known is not None:
        nulls = {name: F.lit(None) for name in ("user_hash", "user_bucket", "num_events")}
        rows = rows.unionByName(known.select(*_input_columns(**nulls)))
    return rows.repartition(1, F.lit(0)).mapInArrow(fit, "valid_from DATE, item_index INT, vector ARRAY<FLOAT>")


def _input_columns(**other: Column) -> list[Column]:
    """Return the columns that a task receives, those in ``other`` from there.

    Rows with a ``user_hash`` are what is to be fitted or rotated, the others vectors of stored versions.
    """
    types = {
        "user_hash": "long", "user_bucket": "int", "item_index": "int", "valid_from": "date", "num_events": "long",
        "vector": "array<float>",
    }  # fmt: skip
    return [other.get(name, F.col(name)).cast(kind).alias(name) for name, kind in types.items()]


@dataclass(frozen=True)
class VersionFits:
    """Fits versions in one task, one after the other."""

    settings: AlsVectors
    plan: tuple[PlannedFit, ...]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield valid_from, item_index, vector of the items with an event before each version.

        Raises
        ------
        MemoryError
            If a fit of the interactions does not fit into the memory that is free, with ``TOO_LITTLE_MEMORY``.
        """
        rows, known = _split(self._checked(batches))
        num_items = 1 + max(largest(part.column("item_index")) for part in (rows, known))
        vectors = {
            version: _matrix(known.filter(pc.equal(known.column("valid_from"), version)), num_items, self.settings.dim)
            for version in known.column("valid_from").unique().to_pylist()
        }
        for k, planned in enumerate(self.plan):
            is_mine = pc.and_(
                pc.less_equal(rows.column("valid_from"), planned.version),
                pc.less(rows.column("user_bucket"), planned.bucket_limit),
            )
            mine, is_last = rows.filter(is_mine), k == len(self.plan) - 1
            if is_last:
                del rows  # the fit takes its memory
            before_ID = vectors.get(planned.before) if planned.before else None
            needed = {later.before for later in self.plan[k + 1 :]}
            vectors = {version: matrix for version, matrix in vectors.items() if version in needed}
            if not mine.num_rows:
                continue
            items, vector_ID = self._fitted(mine, before_ID, num_items, starts_there=planned.starts_there)
            if not is_last:
                vectors[planned.version] = np.zeros((num_items, self.settings.dim), np.float32)
                vectors[planned.version][items] = vector_ID
            yield _batch(planned.version, items, vector_ID)

    def _fitted(
        self, rows: pa.Table, before_ID: NDArray[np.float32] | None, num_items: int, *, starts_there: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the items with an event, and their vectors."""
        settings = self.settings
        nothing_ID = np.zeros((num_items, settings.dim), np.float32)
        before_ID = nothing_ID if before_ID is None else before_ID
        start_ID = initial_factors(before_ID if starts_there else nothing_ID, settings.seed)
        counts_UI = event_counts(rows, num_items)
        items = np.unique(counts_UI.indices)  # the others would pull at the users' factors
        _check(needed_bytes(0, counts_UI.shape[0] + len(items), settings.dim), counts_UI.nnz, free_bytes())
        context = TaskContext.get()
        num_threads = context.cpus() if context else 1
        factors_ID = fit_item_factors(counts_UI[:, items], start_ID[items], settings=settings, num_threads=num_threads)
        return items, aligned_directions(factors_ID, before_ID[items])

    def _checked(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Pass the input on, as long as a fit of what has arrived would fit into memory."""
        free, num_rows, num_items = free_bytes(), 0, 0
        for batch in batches:
            num_rows += batch.num_rows
            num_items = max(num_items, 1 + largest(batch.column("item_index")))
            _check(needed_bytes(num_rows, num_items, self.settings.dim), num_rows, free)
            yield batch


@dataclass(frozen=True)
class Alignment:
    """Rotates factors that were fitted elsewhere onto the vectors of another version, in one task."""

    dim: int
    version: date

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield valid_from, item_index, vector of the factors. Memory: both versions."""
        factors, before = _split(batches)
        if factors.num_rows:
            items = factors.column("item_index").to_numpy()
            num_items = 1 + max(largest(part.column("item_index")) for part in (factors, before))
            factors_ID, before_ID = (_matrix(part, num_items, self.dim) for part in (factors, before))
            yield _batch(self.version, items, aligned_directions(factors_ID[items], before_ID[items]))


def _split(batches: Iterable[pa.RecordBatch]) -> tuple[pa.Table, pa.Table]:
    """Return the rows to fit or rotate, and those of another version."""
    received = list(batches)
    table = pa.Table.from_batches(received) if received else _INPUT.empty_table()
    is_own = pc.is_valid(table.column("user_hash"))
    return table.filter(is_own), table.filter(pc.invert(is_own))


def _matrix(rows: pa.Table, num_items: int, dim: int) -> NDArray[np.float32]:
    """Return the vectors of item_index, vector by item number; zeros for items without one."""
    vector_ID = np.zeros((num_items, dim), np.float32)
    if rows.num_rows:
        vector_ID[rows.column("item_index").to_numpy()] = stacked(combined(rows.column("vector")), dim)
    return vector_ID


def _batch(version: date, items: NDArray[np.int32], vectors_ID: NDArray[np.float32]) -> pa.RecordBatch:
    columns = [pa.repeat(pa.scalar(version), len(items)), pa.array(items, pa.int32()), listed(vectors_ID)]
    return pa.RecordBatch.from_arrays(columns, ["valid_from", "item_index", "vector"])


def _check(needed: int, num_rows: int, free: int) -> None:
    """Raise MemoryError if more bytes are needed than are free; 0 free bytes: unknown."""
    if free and needed > free:
        raise MemoryError(
            f"{TOO_LITTLE_MEMORY}: {num_rows:,} or more pairs of users and items need {needed / 1e9:.1f} GB in one "
            f"task, and {free / 1e9:.1f} GB are free."
        )


def fit_als(pairs: DataFrame, *, settings: AlsVectors) -> "ALSModel":
    """Fit implicit ALS by Spark ML on rows of user_number, item_index, num_events; those of a pair are added up.

    Preference is log(1 + events). The ridge is ``regularization`` times the number of pairs of the user or item. Cost:
    ``iterations`` x 2 shuffles of the interactions.
    """
    from pyspark.ml.recommendation import ALS  # where it is asked for only: it loads pandas

    ratings = pairs.groupBy("user_number", "item_index").agg(F.log1p(F.sum("num_events")).cast("float").alias("rating"))
    ratings = ratings.cache()
    try:
        num_blocks = min(1000, max(2, ratings.count() // _PAIRS_PER_BLOCK))
        # Fixed partitions in a fixed order: ALS's sums then don't depend on the session's shuffle partitions.
        in_order = ratings.repartition(num_blocks, "user_number").sortWithinPartitions("user_number", "item_index")
        als = ALS(
            rank=settings.dim,
            maxIter=settings.iterations,
            regParam=settings.regularization,
            implicitPrefs=True,
            alpha=settings.alpha,
            seed=settings.seed,
            userCol="user_number",
            itemCol="item_index",
            ratingCol="rating",
            numUserBlocks=num_blocks,
            numItemBlocks=num_blocks,
        )
        return als.fit(in_order)
    finally:
        ratings.unpersist()
