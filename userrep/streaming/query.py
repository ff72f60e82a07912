"""The streaming queries: from arriving rows to the record sets of the users that a micro-batch changes.

Spark keeps the state in RocksDB, in the checkpoint: one set of records per user and window of ``open_days`` days. A
window ends at an as-of date and is dropped when the watermark has passed it.
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
from userrep.sources.read import is_plausible
from userrep.sources.tombstones import read_tombstones
from userrep.spark.session import shuffle_partitions
from userrep.store.schemas import REJECTED_EVENTS
from userrep.store.tables import Tables
from userrep.streaming.checkpoint import rejects_id
from userrep.streaming.micro_batches import MicroBatches
from userrep.streaming.records import checked_rows
from userrep.streaming.sources import ARRIVED, ORIGIN, arriving, stream_sources
from userrep.tiles.ledger import STREAM_REVISION

BatchWriter = Callable[[DataFrame, int], None]

_REJECTS_EVERY = "30 seconds"
_MOST_TASKS = 16  # of a micro-batch, each of which writes a file per space and as-of date
_INTERRUPTED = "py4j.protocol.Py4JJavaError: An error occurred while calling a batch: java.lang.InterruptedException"
_SETTINGS = {
    "spark.sql.streaming.stateStore.providerClass": (
        "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
    ),
    "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
    "spark.sql.streaming.numRecentProgressUpdates": "10",  # each batch is reported once, soon after its end
    "spark.sql.streaming.noDataMicroBatches.enabled": "false",  # expired state is dropped with the next batch
}


class Queries(NamedTuple):
    """The two queries over the same sources: one encodes users, one stores rejected rows."""

    embeddings: StreamingQuery
    rejects: StreamingQuery


def start_queries(
    config: Config, batches: MicroBatches, *, schemas: Mapping[str, str], since: date, folder: str, until_empty: bool
) -> Queries:
    """Start both queries from their checkpoints below ``folder``, or else from the beginning of the day ``since``.

    ``schemas`` are those of ``schemas_of`` when the stream was first started. With ``until_empty``, the queries end
    after processing all rows that have arrived.
    """
    stream, tables, query_id = config.streaming, batches.tables, batches.query_id
    num_tasks = {"spark.sql.shuffle.partitions": str(min(_MOST_TASKS, shuffle_partitions(tables.spark)))}
    for key, value in (_SETTINGS | num_tasks).items():
        tables.spark.conf.set(key, value)

    def write_rejects(rows: DataFrame, batch_id: int) -> None:
        rows = read_tombstones(tables).without_named(rows)
        tables.append(rows, REJECTED_EVENTS, transaction=(rejects_id(query_id), batch_id))

    def start(rows: DataFrame, name: str, kind: str, write: BatchWriter, every: str) -> StreamingQuery:
        trigger = {"availableNow": True} if until_empty else {"processingTime": every}
        writer = rows.writeStream.queryName(name).outputMode("update").option("checkpointLocation", f"{folder}/{kind}")
        return writer.trigger(**trigger).foreachBatch(_ending_quietly(write, batches.is_stopping)).start()

    rows = arrived_rows(tables, config, schemas, since=since)
    users = changed_users(rows, stream, since=since)
    embeddings = start(users, query_id, "embeddings", batches, _interval(stream.trigger))
    try:
        rejects = start(rejected(rows, since=since), rejects_id(query_id), "rejects", write_rejects, _REJECTS_EVERY)
    except Exception:  # of any kind: the next start needs the checkpoint of the first query
        embeddings.stop()
        raise
    return Queries(embeddings, rejects)


def arrived_rows(tables: Tables, config: Config, schemas: Mapping[str, str], *, since: date) -> DataFrame:
    """Read all sources as one stream of the rows of ``checked_rows``.

    Rows of users erased so far are left out, so that they never enter the state.
    """
    spark, sources, stream = tables.spark, stream_sources(config), config.streaming
    columns = {name: T.StructType.fromJson(json.loads(schema)) for name, schema in schemas.items()}
    arrived = {
        name: arriving(spark, source, stream, schema=columns[name], since=since) for name, source in sources.items()
    }
    rows = checked_rows(arrived, config, is_own_source=stream.events is not None, since=since)
    return read_tombstones(tables).without(rows)


def changed_users(rows: DataFrame, stream: Stream, *, since: date) -> DataFrame:
    """Collect all records of the open days for each user with new records.

    Parameters
    ----------
    rows : the rows of ``checked_rows``.
    since : UTC day; earlier records are ignored.

    Returns
    -------
    One row per as-of date and user that a micro-batch changes: as_of, user_id, newest_at, arrived_at, records. Cost:
    one shuffle of the new rows, and state for all records of the open windows, once per window.
    """
    valid = rows.where(F.col("reason").isNull() & (F.col("at") >= F.lit(since).cast("timestamp")))
    window = F.window("at", f"{stream.open_days} days", "1 day").alias("window")
    by_user = (
        valid.withWatermark("at", _interval(stream.late))
        .groupBy(window, "user_id")
        .agg(
            F.collect_set("record").alias("records"), F.max("at").alias("newest_at"), F.max(ARRIVED).alias("arrived_at")
        )
    )
    return by_user.select(F.to_date("window.end").alias("as_of"), "user_id", "newest_at", "arrived_at", "records")


def rejected(rows: DataFrame, *, since: date) -> DataFrame:
    """Return the rejected rows from the day ``since`` on, with the columns of ``rejected_events``.

    Earlier rows are left to the batch. ``event_date`` is the day of the row's own time, or of its arrival if that time
    is implausible. ``row`` is JSON with the row and its origin (``place``): a file, or topic, partition and offset.
    """
    day = F.when(is_plausible("at"), F.to_date("at"))
    return rows.where(F.col("reason").isNotNull() & (day.isNull() | (day >= F.lit(since)))).select(
        F.coalesce(day, F.to_date(ARRIVED)).alias("event_date"),
        F.lit(STREAM_REVISION).alias("revision"),
        "reason",
        F.to_json(F.struct(F.col(ORIGIN).alias("place"), "row")).alias("row"),
    )


def _ending_quietly(write: BatchWriter, is_stopping: Callable[[], bool]) -> BatchWriter:
    """Shorten the error of a batch that a stop has interrupted, so that Spark takes it for an interruption.

    Spark compares the text with a regular expression that overflows Java's stack on the trace of an aborted job.
    """

    def batch(rows: DataFrame, batch_id: int) -> None:
        try:
            write(rows, batch_id)
        except Exception:
            if is_stopping():
                raise RuntimeError(_INTERRUPTED) from None
            raise

    return batch


def _interval(span: timedelta) -> str:
    return f"{max(1, round(span.total_seconds() * 1000))} milliseconds"
