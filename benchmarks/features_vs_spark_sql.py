"""How long does a full build of user features take, compared with common ways to write it in Spark?

10M events of 100k users in a year, 20k items, windows of 7, 30 and 180 days and the default history window, 2
modalities with vectors of 64 numbers. All run in the same warm session, read the same tiles and write Parquet. The
fastest of these is the peer:

- exploded_vectors: a row per tile and vector component, summed by user and component, collected to arrays;
- summed_columns: one aggregation with a sum for each component and ring;
- collected_counts: weights by user, item and ring, collect_list by user, a CSR product in mapInArrow, which packs a
  user's vectors into one column as ours does;
- summarizer: Spark ML's Summarizer, by user and window.

The others write lists, since Spark's functions cannot pack numbers. Each has a limit of LIMIT_SECONDS. The line
contains all that finished.

    make bench-features-vs-spark-sql
    python -m benchmarks.features_vs_spark_sql --small
"""

import threading
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.sparse
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.ml.stat import Summarizer
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.answers import check_features
from benchmarks.logs import AS_OF, DIM, MODALITIES, WINDOWS_DAYS, WITH_HISTORY, LogSize, Site, open_site
from benchmarks.report import Line, Skipped, alternating, progress, ratio_line, run, seconds_of
from userrep.features.build import build_features
from userrep.features.spec import POOLED
from userrep.store.arrow import packed
from userrep.tiles.ledger import read_tiles

SIZE = LogSize(events=10_000_000, users=100_000)
LIMIT_SECONDS = 300

_PARTS = ("num_night", "num_morning", "num_afternoon", "num_evening")
_BLOCKS = [(modality, window) for modality in MODALITIES for window in WITH_HISTORY]
_LONGEST = WINDOWS_DAYS[-1]


def measure(spark: SparkSession, size: LogSize, root: Path, runs: int) -> Line:
    """Run every way once, then alternate the fastest with ours."""
    with open_site(spark, size, root) as site:

        def build() -> None:
            build_features(site.tables, site.config, site.versions, [AS_OF])

        build()
        taken = {}
        for name, way in WAYS.items():
            seconds = _within_limit(spark, lambda way=way, name=name: _write(site, way, name))
            if seconds is not None:
                progress(f"{name}: {seconds:.1f} s")
                check_features(site, site.folder / name)
                taken[name] = round(seconds, 3)
        if not taken:
            raise Skipped(f"none of {', '.join(WAYS)} finished within {LIMIT_SECONDS} s")
        fastest = min(taken, key=taken.__getitem__)
        seconds = alternating(
            build,
            lambda: _write(site, WAYS[fastest], fastest),
            check=lambda: check_features(site, site.folder / fastest),
            runs=runs,
        )
        return ratio_line(
            "features_vs_spark_sql",
            size.facts(),
            seconds,
            peer=fastest,
            all_peers_seconds=taken | {name: f"over {LIMIT_SECONDS}" for name in WAYS if name not in taken},
        )


def _write(site: Site, way: Callable[[DataFrame, DataFrame], DataFrame], name: str) -> None:
    spark = site.tables.spark
    tiles = read_tiles(site.tables, start=None, end=AS_OF).select("*", _age().alias("age"))
    tiles = tiles.where(F.col("age") <= WITH_HISTORY[-1])
    items = spark.read.parquet(str(site.items)).where("vec IS NOT NULL")
    items = items.select("item_id", *(F.col("vec").alias(modality) for modality in MODALITIES))
    pooled, counts = way(tiles, items), _counts(tiles)
    columns = _packed(pooled) if POOLED in pooled.columns else _lists()
    features = counts.join(pooled, on="user_id", how="left").select(*counts.columns, *columns)
    features.write.mode("overwrite").parquet(str(site.folder / name))


def _packed(pooled: DataFrame) -> list[Column]:
    """Return the columns of packed vectors and flags; users without an item that has a vector have zeros."""
    zeros = F.lit(bytes(4 * DIM * len(_BLOCKS)))
    flags = [name for name in pooled.columns if name.startswith("has_")]
    return [F.coalesce(POOLED, zeros).alias(POOLED), *(F.coalesce(name, F.lit(False)).alias(name) for name in flags)]


def _lists() -> list[Column]:
    """Return the columns of lists and flags; a window without vectors has zeros."""
    zeros = F.array_repeat(F.lit(0.0).cast("float"), DIM)
    return [
        column.alias(name)
        for modality, window in _BLOCKS
        for name, column in (
            (f"{modality}_{window}d", F.coalesce(F.col(f"{modality}_{window}d").cast("array<float>"), zeros)),
            (f"has_{modality}_{window}d", F.col(f"{modality}_{window}d").isNotNull()),
        )
    ]


def _within_limit(spark: SparkSession, work: Callable[[], None]) -> float | None:
    """Return the seconds of ``work``; None if it was stopped at the limit."""
    context, over = spark.sparkContext, threading.Event()

    def stop() -> None:
        over.set()
        context.cancelAllJobs()

    timer = threading.Timer(LIMIT_SECONDS, stop)
    timer.start()
    try:
        return seconds_of(work)
    except Exception:
        if not over.is_set():
            raise
        return None
    finally:
        timer.cancel()


def _age() -> Column:
    return F.date_diff(F.lit(AS_OF), F.col("event_date"))


def _counts(tiles: DataFrame) -> DataFrame:
    """Compute all features except vectors, one row per user. Sums by day come first, so no distinct count is needed."""
    days = tiles.groupBy("user_id", "event_date", "age").agg(
        *(F.sum(name).alias(name) for name in ("num_events", "weight", *_PARTS)),
        F.max("last_event_at").alias("last_event_at"),
    )
    columns, is_recent = [], F.col("age") <= _LONGEST
    for window in WITH_HISTORY:
        inside = F.col("age") <= window
        columns += [
            F.sum(F.when(inside, F.col("num_events")).otherwise(0)).alias(f"num_events_{window}d"),
            F.sum(F.when(inside, F.col("weight")).otherwise(0.0)).alias(f"weight_{window}d"),
            F.count_if(inside).alias(f"num_active_days_{window}d"),
        ]
    last_us = F.unix_micros(F.max("last_event_at"))
    midnight_us = F.unix_micros(F.lit(AS_OF).cast("timestamp"))
    recent = F.when(is_recent, F.col("num_events")).otherwise(0)
    by_day = [F.sum(F.when(F.weekday("event_date") == day, recent).otherwise(0)) for day in range(7)]
    by_part = [F.sum(F.when(is_recent, F.col(part)).otherwise(0)) for part in _PARTS]
    rows = days.groupBy("user_id").agg(
        *columns,
        ((midnight_us - last_us) / 86_400_000_000).alias("days_since_last_event"),
        F.max(F.when(is_recent, F.col("age"))).cast("double").alias("days_since_first_event"),
        _shares(by_part, F.sum(recent)).alias(f"part_of_day_{_LONGEST}d"),
        _shares(by_day, F.sum(recent)).alias(f"weekday_{_LONGEST}d"),
    )
    return rows.where(f"num_events_{_LONGEST}d > 0")  # events in the history alone do not count


def _shares(counts: list[Column], total: Column) -> Column:
    return F.array(*(F.try_divide(count, total) for count in counts)).cast("array<float>")


def exploded_vectors(tiles: DataFrame, items: DataFrame) -> DataFrame:
    """Explode vectors, sum by user and component, collect the sums to arrays."""
    first, *others = MODALITIES
    rows = tiles.join(F.broadcast(items), on="item_id", how="inner").select(
        "user_id", "age", "weight", *others, F.posexplode(first).alias("component", f"{first}_x")
    )
    rows = rows.select(
        "user_id", "age", "weight", "component", f"{first}_x",
        *(F.get(other, F.col("component")).alias(f"{other}_x") for other in others),
    )  # fmt: skip

    def mean(modality: str, window: int) -> Column:
        inside = F.col("age") <= window
        total = F.sum(F.when(inside, F.col("weight") * F.col(f"{modality}_x")))
        return F.try_divide(total, F.sum(F.when(inside, F.col("weight")))).alias(f"{modality}_{window}d")

    by_component = rows.groupBy("user_id", "component").agg(*(mean(*block) for block in _BLOCKS))
    gathered = by_component.groupBy("user_id").agg(
        F.sort_array(F.collect_list(F.struct("component", *(f"{m}_{w}d" for m, w in _BLOCKS)))).alias("rows")
    )
    return gathered.select("user_id", *(_null_if_empty(F.col(f"rows.{m}_{w}d")).alias(f"{m}_{w}d") for m, w in _BLOCKS))


def summed_columns(tiles: DataFrame, items: DataFrame) -> DataFrame:
    """Sum each component by ring in its own aggregate, then add rings to windows."""
    rows = tiles.join(F.broadcast(items), on="item_id", how="inner")
    rings = list(zip([0, *WITH_HISTORY], WITH_HISTORY, strict=False))
    weights = {f"w{r}": F.when(F.col("age").between(a + 1, b), F.col("weight")) for r, (a, b) in enumerate(rings)}
    rows = rows.select("user_id", *MODALITIES, *(column.alias(name) for name, column in weights.items()))
    sums = [F.coalesce(F.sum(name), F.lit(0.0)).alias(name) for name in weights]
    sums += [
        F.coalesce(F.sum(F.col(w) * F.get(modality, F.lit(k))), F.lit(0.0)).alias(f"{modality}_{w}_{k}")
        for modality in MODALITIES
        for w in weights
        for k in range(DIM)
    ]
    by_user = rows.groupBy("user_id").agg(*sums)
    columns = []
    for modality in MODALITIES:
        for r, window in enumerate(WITH_HISTORY):
            used = [f"w{k}" for k in range(r + 1)]
            total = _added([F.col(w) for w in used])
            means = F.array(*(_added([F.col(f"{modality}_{w}_{k}") for w in used]) / total for k in range(DIM)))
            columns.append(F.when(total > 0, means).alias(f"{modality}_{window}d"))
    return by_user.select("user_id", *columns)


def collected_counts(tiles: DataFrame, items: DataFrame) -> DataFrame:
    """Sum weights by user, item and ring, collect them by user, multiply in Arrow batches."""
    numbered = items.coalesce(1).orderBy("item_id").toArrow()
    vectors = np.concatenate(
        [numbered.column(m).combine_chunks().flatten().to_numpy().reshape(-1, DIM) for m in MODALITIES], axis=1
    )
    shared = tiles.sparkSession.sparkContext.broadcast(vectors.astype(np.float64))
    index = tiles.sparkSession.createDataFrame(
        pa.table({"item_id": numbered.column("item_id"), "item": pa.array(np.arange(len(numbered), dtype=np.int32))})
    )
    ring = reduce(lambda total, w: total + (F.col("age") > w).cast("int"), WITH_HISTORY[:-1], F.lit(0))
    counts = tiles.join(F.broadcast(index), on="item_id", how="inner").groupBy(
        "user_id", "item", ring.alias("ring")
    ).agg(F.sum("weight").alias("weight"))  # fmt: skip
    collected = counts.groupBy("user_id").agg(F.collect_list(F.struct("item", "ring", "weight")).alias("rows"))
    flags = ", ".join(f"has_{m}_{w}d BOOLEAN" for m, w in _BLOCKS)

    def pool(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield _pooled(batch, shared.value)

    return collected.mapInArrow(pool, f"user_id STRING, {POOLED} BINARY, {flags}")


def _pooled(batch: pa.RecordBatch, vectors: np.ndarray) -> pa.RecordBatch:
    """Multiply one batch of collected counts with the vectors."""
    lists, num_rings = batch.column("rows"), len(WITH_HISTORY)
    rows = lists.flatten()
    item, ring, weight = (rows.field(name).to_numpy() for name in ("item", "ring", "weight"))
    cell = np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy()) * num_rings + ring
    weights = scipy.sparse.coo_matrix((weight, (cell, item)), shape=(len(lists) * num_rings, len(vectors))).tocsr()
    pooled = (weights @ vectors).reshape(len(lists), num_rings, -1).cumsum(axis=1)
    total = np.asarray(weights.sum(axis=1)).reshape(len(lists), num_rings).cumsum(axis=1)
    means = pooled / np.where(total > 0, total, 1)[:, :, None]
    by_modality = means.reshape(len(lists), num_rings, len(MODALITIES), DIM).swapaxes(1, 2)
    flags = {f"has_{m}_{w}d": pa.array(total[:, WITH_HISTORY.index(w)] > 0) for m, w in _BLOCKS}
    vectors_column = packed(by_modality.reshape(len(lists), -1).astype(np.float32))
    return pa.RecordBatch.from_pydict({"user_id": batch.column("user_id"), POOLED: vectors_column, **flags})


def summarizer(tiles: DataFrame, items: DataFrame) -> DataFrame:
    """Take Spark ML's weighted means by user and window; a row is repeated for each window that contains it."""
    as_vectors = items.select("item_id", *(array_to_vector(modality).alias(modality) for modality in MODALITIES))
    windows = F.array(*(F.lit(window) for window in WITH_HISTORY))
    rows = tiles.where("weight > 0").join(F.broadcast(as_vectors), on="item_id", how="inner").select(
        "user_id", "weight", *MODALITIES, F.explode(F.filter(windows, lambda w: w >= F.col("age"))).alias("window")
    )  # fmt: skip
    means = rows.groupBy("user_id", "window").agg(
        *(Summarizer.mean(F.col(modality), F.col("weight")).alias(modality) for modality in MODALITIES)
    )
    return means.groupBy("user_id").agg(
        *(
            F.first(F.when(F.col("window") == w, vector_to_array(m, "float32")), ignorenulls=True).alias(f"{m}_{w}d")
            for m, w in _BLOCKS
        )
    )


def _added(columns: list[Column]) -> Column:
    return reduce(lambda total, column: total + column, columns)


def _null_if_empty(means: Column) -> Column:
    """Return null for a window without events, instead of an array of nulls."""
    return F.when(F.get(means, F.lit(0)).isNotNull(), means)


WAYS: dict[str, Callable[[DataFrame, DataFrame], DataFrame]] = {
    "collected_counts": collected_counts,
    "summed_columns": summed_columns,
    "exploded_vectors": exploded_vectors,
    "summarizer": summarizer,
}


if __name__ == "__main__":
    run("features_vs_spark_sql", measure, SIZE, runs=3)
