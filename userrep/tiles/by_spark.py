"""Activity tiles by Spark SQL, for any log and days of any size."""

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from userrep.store.buckets import user_bucket, user_slice

PARTS_OF_DAY = {"num_night": 0, "num_morning": 1, "num_afternoon": 2, "num_evening": 3}


def tiles_of(events: DataFrame, *, context: Sequence[str], has_event_id: bool, slices: int, tasks: int) -> DataFrame:
    """Deduplicate valid events within each day and aggregate them.

    Of rows with the same ``event_id``, the latest is kept; if several are equally late, the largest by all columns.
    Rows without an ``event_id`` are copies if all columns are equal.

    Parameters
    ----------
    events : valid rows of ``with_validity``. ``context``: names of the context columns. ``slices``: files per day, by
        user. ``tasks``: partitions of the shuffle.

    Returns
    -------
    One row per event_date, user_id, item_id, event_type, sorted by event_date, user_bucket, user_id. Cost: one shuffle
    by day and slice of users. If rows have an ``event_id`` and days have several slices, a second one, because copies
    of an event may name different users.
    """
    contexts = [f"context_{k}" for k in range(len(context))]
    unique = _deduplicated(events, contexts, has_event_id=has_event_id, slices=slices, tasks=tasks)
    keys = ["event_date", "user_slice", "user_bucket", "user_id", "item_id", "event_type"]
    part = F.floor(F.hour("event_at") / 6)
    by_context = unique.groupBy(*keys, *contexts).agg(
        F.count("*").cast("int").alias("num_events"),
        F.sum("weight").alias("weight"),
        F.max("event_at").alias("last_event_at"),
        *(F.count_if(part == k).cast("int").alias(name) for name, k in PARTS_OF_DAY.items()),
    )
    tiles = _over_contexts(by_context, keys, context)
    return tiles.sortWithinPartitions("event_date", "user_slice", "user_bucket", "user_id")


def _over_contexts(by_context: DataFrame, keys: Sequence[str], context: Sequence[str]) -> DataFrame:
    """Merge the rows of each tile, one per combination of context values, into one row with a map of counts.

    The input is aggregated already, because a bot may have millions of events of one item.
    """
    if not context:
        return by_context.withColumn("num_by_context", F.lit(None).cast("map<string,bigint>"))
    counts = ("num_events", *PARTS_OF_DAY)
    return by_context.groupBy(*keys).agg(
        *(F.sum(name).cast("int").alias(name) for name in counts),
        F.sum("weight").alias("weight"),
        F.max("last_event_at").alias("last_event_at"),
        _summed_maps(_context_map(context)).alias("num_by_context"),
    )


def _deduplicated(events: DataFrame, contexts: list[str], *, has_event_id: bool, slices: int, tasks: int) -> DataFrame:
    """Keep one row of each event. The result is partitioned by event_date and user_slice."""
    payload = ["user_id", "item_id", "event_type", "event_at", "weight", *contexts]
    if not has_event_id:
        by = ["event_date", "user_slice"] if slices > 1 else ["event_date"]
        by_user = _with_slice(events, slices).repartition(tasks, *by)
        keys = ["event_date", "user_slice", "user_bucket", *payload]
        return by_user.groupBy(*keys, "raw").agg(F.lit(1)).select(*keys)
    share = F.pmod(F.xxhash64(F.coalesce("event_id", "user_id")), F.lit(slices))
    by = ["event_date", "share"] if slices > 1 else ["event_date"]  # with one slice, a day needs no second shuffle
    by_id = events.withColumn("share", share).repartition(tasks, *by)
    whole_row = F.when(F.col("event_id").isNull(), F.col("raw"))
    copies = Window.partitionBy(*by, "event_id", whole_row).orderBy(F.desc("event_at"), F.desc("raw"))
    unique = by_id.withColumn("copy", F.row_number().over(copies)).where("copy = 1")
    by_user = _with_slice(unique.select("event_date", *payload), slices)
    return by_user.repartition(tasks, "event_date", "user_slice") if slices > 1 else by_user


def _with_slice(events: DataFrame, slices: int) -> DataFrame:
    return events.withColumn("user_bucket", user_bucket()).withColumn("user_slice", user_slice(slices))


def _context_map(context: Sequence[str]) -> Column:
    """Return a row's context values as ``{"column=value": num_events}``, without the columns that its source lacks."""
    keys = F.array_compact(
        F.array(*(F.concat(F.lit(f"{name}="), F.col(f"context_{k}")) for k, name in enumerate(context)))
    )
    return F.map_from_arrays(keys, F.array_repeat(F.col("num_events").cast("bigint"), F.size(keys)))


def _summed_maps(maps: Column) -> Column:
    empty = F.create_map().cast("map<string,bigint>")

    def add(total: Column, counts: Column) -> Column:
        return F.map_zip_with(total, counts, lambda _, a, b: F.coalesce(a, F.lit(0)) + F.coalesce(b, F.lit(0)))

    return F.aggregate(F.collect_list(maps), empty, add)
