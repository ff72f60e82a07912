"""The inventory of a Delta log by its change data feed: inserted rows are added, deleted rows subtracted.

Needed if deletion vectors hide which rows of a file are deleted. Each range of versions that was read is recorded in
``source_files`` like a file, with path ``ID@FIRST`` and the last version as size. The range that starts at version 0 is
a read of the whole table.
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
from userrep.tiles.inventory.day_files import row_hash, summed

_CHANGE = ("_change_type", "_commit_version", "_commit_timestamp")


def days_by_changes(tables: Tables, log: EventSource, delta: DeltaLog) -> tuple[DataFrame, int]:
    """Read the changes since the last recorded version; return the days, as ``summed`` does, and the number of reads.

    The number is 0 or 1. If changes can no longer be read, because the feed was off or its files were removed, the
    whole table is read instead. Cost otherwise: a read of the changed rows.
    """
    ranges = _known(tables, log, delta).select("path", "size").distinct().collect()
    chain = _chain([(int(row.path.rpartition("@")[2]), row.size) for row in ranges])
    first = chain[-1][1] + 1 if chain else 0
    num_read = int(first <= delta.version)
    if num_read:
        try:
            tables.append(_counted(tables, log, delta, first), SOURCE_FILES)
        except (
            PySparkException,
            Py4JJavaError,
        ):  # of many kinds; if the table cannot be read at all, the next line fails
            first, chain = 0, []
            tables.append(_counted(tables, log, delta, first), SOURCE_FILES)
        chain.append((first, delta.version))
    paths = [(f"{delta.table_id}@{start}", end) for start, end in chain]
    chosen = tables.spark.createDataFrame(paths, "path STRING, size BIGINT")
    known_days = _known(tables, log, delta).dropDuplicates(["path", "size", "event_date"])
    return summed(known_days.join(F.broadcast(chosen), on=["path", "size"], how="left_semi")), num_read


def _known(tables: Tables, log: EventSource, delta: DeltaLog) -> DataFrame:
    of_table = F.col("path").startswith(f"{delta.table_id}@") & (F.col("mapping") == meaning_hash(log))
    return tables.read(SOURCE_FILES).where(of_table)


def _chain(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Choose consecutive ranges from version 0; of ranges with the same start, by concurrent runs, the longest."""
    chain: list[tuple[int, int]] = []
    start = 0
    while ends := [end for first, end in ranges if first == start]:
        chain.append((start, max(ends)))
        start = max(ends) + 1
    return chain


def _counted(tables: Tables, log: EventSource, delta: DeltaLog, first: int) -> DataFrame:
    """Count by day the rows inserted less those deleted, from version ``first`` to the version of ``delta``."""
    reader = tables.spark.read.format("delta")
    if first == 0:
        reader = reader.option("versionAsOf", delta.version)
    else:
        reader = reader.option("readChangeFeed", True)
        reader = reader.option("startingVersion", first).option("endingVersion", delta.version)
    rows = reader.table(log.path) if log.format == "table" else reader.load(log.path)
    columns = [name for name in rows.columns if name not in _CHANGE]
    is_insert = F.col("_change_type").isin("insert", "update_postimage") if first else F.lit(True)
    signed = rows.select(*(F.col(f"`{name}`") for name in columns), F.when(is_insert, 1).otherwise(-1).alias("__sign"))
    counts = with_validity(signed, log).select(
        "event_date",
        F.col("raw.__sign").cast("bigint").alias("num_rows"),
        F.when(F.col("reason").isNotNull(), F.col("raw.__sign")).otherwise(0).cast("bigint").alias("num_rejected"),
        (row_hash(columns) * F.col("raw.__sign")).cast("decimal(38,0)").alias("checksum"),
    )
    # A row without a day is always written, because it records that the range was read.
    marker = tables.spark.createDataFrame([(None, 0, 0)], "event_date DATE, num_rows BIGINT, num_rejected BIGINT")
    with_marker = counts.unionByName(marker, allowMissingColumns=True)
    by_day = with_marker.groupBy("event_date").agg(*(F.sum(name).alias(name) for name in with_marker.columns[1:]))
    return by_day.select(
        F.lit(f"{delta.table_id}@{first}").alias("path"),
        F.lit(delta.version).cast("bigint").alias("size"),
        F.timestamp_seconds(F.lit(0)).alias("modified_at"),
        F.lit(meaning_hash(log)).alias("mapping"),
        *by_day.columns,
    )
