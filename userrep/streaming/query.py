"""The streaming query: from rows that arrive to the sets of records of the users that a micro-batch touches.

State is Spark's: for each user and window of ``open_days`` days the set of records, in RocksDB, in the checkpoint. A
window ends at an as-of date, and goes when the watermark has passed it.
"""

import json
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.streaming.query import StreamingQuery

from userrep.config import Config, Stream
from userrep.sources.source import is_plausible
from userrep.sources.tombstones import read_tombstones
from userrep.store.schemas import REJECTED_EVENTS
from userrep.store.tables import Tables
from userrep.streaming.arriving import ARRIVED, PLACE, arriving, sources_of
from userrep.streaming.batches import MicroBatches
from userrep.streaming.records import checked_rows
from userrep.tiles.tiles import STREAM_REVISION

_REJECTS_EVERY = "30 seconds"
_SETTINGS = {
    "spark.sql.streaming.stateStore.providerClass": (
        "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
    ),
    "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
    "spark.sql.streaming.numRecentProgressUpdates": "10",  # of each batch one is told, soon after its end
    "spark.sql.streaming.noDataMicroBatches.enabled": "false",  # state that is over goes with the next batch
}


class Queries(NamedTuple):
    """The two queries over the same sources: one encodes, one keeps what was rejected."""

    embeddings: StreamingQuery
    rejects: StreamingQuery


def start_queries(
    config: Config, batches: MicroBatches, *, schemas: Mapping[str, str], since: date, folder: str, until_empty: bool
) -> Queries:
    """Start the queries from their checkpoints below ``folder``, or where there are none, from the day ``since`` on.

    ``schemas``: of the sources, as ``schemas_of`` gave them when the stream was begun. ``until_empty``: take what is
    there, and end.
    """
    stream = config.streaming
    for key, value in _SETTINGS.items():
        batches.tables.spark.conf.set(key, value)
    every = {"availableNow": True} if until_empty else {"processingTime": _text(stream.trigger)}
    rows = checked(batches.tables, config, schemas, since=since)
    embeddings = (
        users_met(rows, stream, since=since)
        .writeStream.queryName(batches.query_id)
        .outputMode("update")
        .option("checkpointLocation", f"{folder}/embeddings")
        .trigger(**every)
        .foreachBatch(batches)
        .start()
    )
    rejects = (
        rejected(rows)
        .writeStream.queryName(f"{batches.query_id}-rejects")
        .option("checkpointLocation", f"{folder}/rejects")
        .trigger(**(every if until_empty else {"processingTime": _REJECTS_EVERY}))
        .foreachBatch(_keeping(batches.tables, batches.query_id))
        .start()
    )
    return Queries(embeddings, rejects)


def checked(tables: Tables, config: Config, schemas: Mapping[str, str], *, since: date) -> DataFrame:
    """Read all sources as a stream, each row with what it records or why it does not count.

    Rows of users who have been erased by now are left out, before any of them gets into the state.
    """
    spark, sources, stream = tables.spark, sources_of(config), config.streaming
    columns = {what: T.StructType.fromJson(json.loads(schema)) for what, schema in schemas.items()}
    arrived = {
        what: arriving(spark, source, stream, schema=columns[what], since=since) for what, source in sources.items()
    }
    rows = checked_rows(arrived, config, in_kafka=sources["events"].topic is not None, since=since)
    return read_tombstones(tables).without(rows)


def users_met(rows: DataFrame, stream: Stream, *, since: date) -> DataFrame:
    """Gather, of each user that something has arrived of, all that is known of the open days.

    Parameters
    ----------
    rows : what ``checked_rows`` returns. ``since``: the UTC day from which on they count.

    Returns
    -------
    One row per as-of date and user that a micro-batch changes: as_of, user_id, newest_at, arrived_at, records. Cost:
    one shuffle of what has arrived; state of all records since the oldest open window, once for each window.
    """
    good = rows.where(F.col("reason").isNull() & (F.col("at") >= F.lit(since).cast("timestamp")))
    window = F.window("at", f"{stream.open_days} days", "1 day").alias("window")
    by_user = (
        good.withWatermark("at", _text(stream.late))
        .groupBy(window, "user_id")
        .agg(
            F.collect_set("record").alias("records"), F.max("at").alias("newest_at"), F.max(ARRIVED).alias("arrived_at")
        )
    )
    return by_user.select(F.to_date("window.end").alias("as_of"), "user_id", "newest_at", "arrived_at", "records")


def rejected(rows: DataFrame) -> DataFrame:
    """Bring what was rejected to rows of ``rejected_events``; ``row`` has the place: a file, or topic and offset.

    A row stands under its own day, or that of its arrival where its time is not one.
    """
    day = F.when(is_plausible("at"), F.to_date("at"))
    return rows.where(F.col("reason").isNotNull()).select(
        F.coalesce(day, F.to_date(ARRIVED)).alias("event_date"),
        F.lit(STREAM_REVISION).alias("revision"),
        "reason",
        F.to_json(F.struct(F.col(PLACE).alias("place"), "row")).alias("row"),
    )


def _keeping(tables: Tables, query_id: str) -> Callable[[DataFrame, int], None]:
    def keep(rows: DataFrame, batch_id: int) -> None:
        rows = read_tombstones(tables).without_named(rows)
        tables.append(rows, REJECTED_EVENTS, transaction=(f"{query_id}-rejects", batch_id))

    return keep


def _text(span: timedelta) -> str:
    return f"{max(1, round(span.total_seconds() * 1000))} milliseconds"
