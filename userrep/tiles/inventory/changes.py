"""The days of a Delta log by its change data feed: rows that came count up, rows that went count down.

Needed where deletion vectors keep files from telling what is in them. Each range of versions that was read is kept in
``source_files`` like a file: path ``ID@FIRST``, size the last version; the range that begins at 0 is a whole table.
"""

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import EventSource
from userrep.sources.open_log import DeltaLog, meaning_hash
from userrep.sources.read import with_validity
from userrep.store.schemas import SOURCE_FILES
from userrep.store.tables import Tables
from userrep.tiles.inventory.listing import row_hash, summed

_CHANGE = ("_change_type", "_commit_version", "_commit_timestamp")


def days_by_changes(tables: Tables, log: EventSource, delta: DeltaLog) -> tuple[DataFrame, int]:
    """Read the changes since the version last seen; return the days as ``summed`` has them, and the ranges read (0, 1).

    A range whose changes can no longer be read (the feed was off, or its files are gone) is made up for by one read of
    the whole table. Cost otherwise: the changed rows.
    """
    known = _known(tables, log, delta).select("path", "size").distinct().collect()
    chain = _chain([(int(row.path.rpartition("@")[2]), row.size) for row in known])
    first = chain[-1][1] + 1 if chain else 0
    num_read = int(first <= delta.version)
    if num_read:
        try:
            tables.append(_counted(tables, log, delta, first), SOURCE_FILES)
        except (PySparkException, Py4JJavaError):  # of many kinds; a table that cannot be read at all fails again here
            first, chain = 0, []
            tables.append(_counted(tables, log, delta, first), SOURCE_FILES)
        chain.append((first, delta.version))
    paths = [(f"{delta.table_id}@{start}", end) for start, end in chain]
    wanted = tables.spark.createDataFrame(paths, "path STRING, size BIGINT")
    once = _known(tables, log, delta).dropDuplicates(["path", "size", "event_date"])
    return summed(once.join(F.broadcast(wanted), on=["path", "size"], how="left_semi")), num_read


def _known(tables: Tables, log: EventSource, delta: DeltaLog) -> DataFrame:
    mine = F.col("path").startswith(f"{delta.table_id}@") & (F.col("mapping") == meaning_hash(log))
    return tables.read(SOURCE_FILES).where(mine)


def _chain(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Choose ranges that follow each other from 0; of two that begin alike, as two runs at a time make, the longer."""
    chain: list[tuple[int, int]] = []
    start = 0
    while ends := [end for first, end in ranges if first == start]:
        chain.append((start, max(ends)))
        start = max(ends) + 1
    return chain


def _counted(tables: Tables, log: EventSource, delta: DeltaLog, first: int) -> DataFrame:
    """Count the rows of versions ``first`` to the newest by day: those that came less those that went."""
    reader = tables.spark.read.format("delta")
    if first == 0:
        reader = reader.option("versionAsOf", delta.version)
    else:
        reader = reader.option("readChangeFeed", True)
        reader = reader.option("startingVersion", first).option("endingVersion", delta.version)
    rows = reader.table(log.path) if log.format == "table" else reader.load(log.path)
    columns = [name for name in rows.columns if name not in _CHANGE]
    came = F.col("_change_type").isin("insert", "update_postimage") if first else F.lit(True)
    signed = rows.select(*(F.col(f"`{name}`") for name in columns), F.when(came, 1).otherwise(-1).alias("__sign"))
    counts = with_validity(signed, log).select(
        "event_date",
        F.col("raw.__sign").cast("bigint").alias("num_rows"),
        F.when(F.col("reason").isNotNull(), F.col("raw.__sign")).otherwise(0).cast("bigint").alias("num_rejected"),
        (row_hash(columns) * F.col("raw.__sign")).cast("decimal(38,0)").alias("checksum"),
    )
    # One row without a day is there in any case: it says that the range has been read.
    mark = tables.spark.createDataFrame([(None, 0, 0)], "event_date DATE, num_rows BIGINT, num_rejected BIGINT")
    marked = counts.unionByName(mark, allowMissingColumns=True)
    by_day = marked.groupBy("event_date").agg(*(F.sum(name).alias(name) for name in marked.columns[1:]))
    return by_day.select(
        F.lit(f"{delta.table_id}@{first}").alias("path"),
        F.lit(delta.version).cast("bigint").alias("size"),
        F.timestamp_seconds(F.lit(0)).alias("modified_at"),
        F.lit(meaning_hash(log)).alias("mapping"),
        *by_day.columns,
    )
