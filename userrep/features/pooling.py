"""User features in Spark: one shuffle by user, then sums over Arrow batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from userrep.arrow import stacked
from userrep.features.accumulate import EVENT, PICK, PROFILE, ItemMatrix, Rows, Sums, accumulate, features
from userrep.features.spec import PARTS_OF_DAY, FeatureSpec
from userrep.storage import read_parquet

_CHUNK_ROWS = (
    16_384  # a task holds at most that many users x windows x vector widths float64, however heavy one user is
)


class VectorFiles(NamedTuple):
    """The Parquet files of one version of item vectors, by modality, as the driver has pinned them."""

    num_items: int
    files: tuple[tuple[str, tuple[str, ...]], ...]


def rows_by_user(
    tiles: DataFrame, item_index: DataFrame, *, users: DataFrame | None, picks: DataFrame | None, context: bool
) -> DataFrame:
    """Bring all that is known of a user into one partition, sorted by user.

    Parameters
    ----------
    tiles : user_item_days of the windows. item_index : item_id, item_index.
    users : user_id, registered_at, attributes array<string>. picks : user_id, item_id, event_at.

    Returns
    -------
    One row per tile, pick and profile. Cost: the one shuffle, on user_id; and a join by item, which Spark broadcasts
    where the index is small.
    """
    none = F.lit(None)
    parts = [f"num_{part}" for part in PARTS_OF_DAY]
    by_context = F.col("num_by_context") if context else none.cast("map<string,bigint>")
    rows = tiles.select(
        "user_id", F.lit(EVENT).alias("kind"), F.unix_date("event_date").alias("day"), "item_id", "weight",
        "num_events", F.unix_micros("last_event_at").alias("at_us"), *parts, by_context.alias("num_by_context"),
        none.cast("array<string>").alias("attributes"),
    )  # fmt: skip
    empty = [none.cast("bigint").alias(part) for part in parts]
    no_context = none.cast("map<string,bigint>").alias("num_by_context")
    if picks is not None:
        rows = rows.unionByName(
            picks.select(
                "user_id", F.lit(PICK).alias("kind"), F.unix_date(F.to_date("event_at")).alias("day"), "item_id",
                F.lit(1.0).alias("weight"), F.lit(0).cast("bigint").alias("num_events"),
                F.unix_micros("event_at").alias("at_us"), *empty, no_context,
                none.cast("array<string>").alias("attributes"),
            )
        )  # fmt: skip
    if users is not None:
        rows = rows.unionByName(
            users.select(
                "user_id", F.lit(PROFILE).alias("kind"), F.unix_date(F.to_date("registered_at")).alias("day"),
                none.cast("string").alias("item_id"), F.lit(0.0).alias("weight"),
                F.lit(0).cast("bigint").alias("num_events"), F.unix_micros("registered_at").alias("at_us"), *empty,
                no_context, "attributes",
            )
        )  # fmt: skip
    numbered = rows.join(item_index, on="item_id", how="left").drop("item_id", *([] if context else ["num_by_context"]))
    return numbered.repartition("user_id").sortWithinPartitions("user_id", "kind", "attributes", "at_us")


def pooled_features(
    rows: DataFrame, *, spec: FeatureSpec, as_ofs: Sequence[tuple[date, VectorFiles]], schema: StructType
) -> DataFrame:
    """Sum, divide and count per user, for each as-of date with its version of the item vectors.

    Parameters
    ----------
    rows : of ``rows_by_user``. as_ofs : dates with the version that each of them uses.

    Returns
    -------
    One row per as-of date and user known by then (see ``FeatureSpec``). Narrow: no shuffle. Each worker reads each
    version once and keeps it: items x vector widths x 8 bytes.
    """
    pool = _pooler(spec, as_ofs)
    return rows.mapInArrow(pool, schema)


def _pooler(
    spec: FeatureSpec, as_ofs: Sequence[tuple[date, VectorFiles]]
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def pool(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        carried: list[Sums] = []
        carried_user: str | None = None
        for table, is_last in _chunks(batches):
            rows = Rows.of(table)
            continues = carried_user is not None and rows.user_ids[0] == carried_user
            if carried_user is not None and not continues:
                for (as_of, files), sums in zip(as_ofs, carried, strict=True):
                    yield features(sums, [carried_user], item_matrix(files, spec), spec, as_of)
            whole = len(rows.user_ids) - (0 if is_last else 1)
            still_open: list[Sums] = []
            for k, (as_of, files) in enumerate(as_ofs):
                matrix = item_matrix(files, spec)
                sums = accumulate(rows, matrix, spec, as_of)
                if continues:
                    sums.merge_into_first(carried[k])
                if not is_last:
                    still_open.append(sums.pick(slice(whole, None)))
                yield features(sums.pick(slice(0, whole)), rows.user_ids[:whole], matrix, spec, as_of)
            carried, carried_user = still_open, None if is_last else rows.user_ids[-1]

    return pool


def _chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.Table, bool]]:
    """Gather batches to chunks of some 16,384 rows; say of the last one that it is."""
    waiting: list[pa.RecordBatch] = []
    ready: pa.Table | None = None
    for batch in batches:
        if batch.num_rows:
            waiting.append(batch)
        if sum(b.num_rows for b in waiting) >= _CHUNK_ROWS:
            if ready is not None:
                yield ready, False
            ready, waiting = pa.Table.from_batches(waiting), []
    if waiting:
        if ready is not None:
            yield ready, False
        ready = pa.Table.from_batches(waiting)
    if ready is not None:
        yield ready, True


@lru_cache(maxsize=64)
def _read_matrix(version: VectorFiles, dims: tuple[tuple[str, int], ...]) -> ItemMatrix:
    vectors_IE = np.zeros((version.num_items, sum(dim for _, dim in dims)))
    has_IM = np.zeros((version.num_items, len(dims)))
    files, start = dict(version.files), 0
    for m, (modality, dim) in enumerate(dims):
        for path in files.get(modality, ()):
            table = read_parquet(path, ["item_index", "vector"])
            index = table.column("item_index").to_numpy()
            vectors_IE[index, start : start + dim] = stacked(table.column("vector").combine_chunks(), dim)
            has_IM[index, m] = 1
        start += dim
    return ItemMatrix(vectors_IE, has_IM, float(np.abs(vectors_IE).max(initial=0)))


def item_matrix(version: VectorFiles, spec: FeatureSpec) -> ItemMatrix:
    """Read a version of the item vectors, once per worker."""
    return _read_matrix(version, tuple(spec.modalities.items()))
