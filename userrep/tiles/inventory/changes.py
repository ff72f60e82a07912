"""The inventory of a Delta log by its change data feed: inserted rows are added, deleted rows subtracted.

Needed if deletion vectors hide which rows of a file are deleted. Each range of versions that was read is recorded in
``source_files`` like a file, with path ``ID@FIRST`` and the last version as size. The range that starts at version 0 is
a read of the whole table.
"""

from collections.abc import Iterable

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from userrep.sources.open_log import DeltaLog, ListedFile, OpenLog
from userrep.sources.read import table_name, with_validity
from userrep.store.sql import sql_name
from userrep.store.tables import Tables
from userrep.tiles.inventory.log_days import NO_DAY, Counts, DaysOfFile, LogDay, record, recorded, summed
from userrep.tiles.inventory.new_rows import row_hash
from userrep.utc import EPOCH

_CHANGE = ("_change_type", "_commit_version", "_commit_timestamp")


def days_by_changes(tables: Tables, log: OpenLog, delta: DeltaLog) -> tuple[list[LogDay], int]:
    """Read the changes since the last recorded version; return the days, as ``summed`` does, and the number of reads.

    The number is 0 or 1. If changes can no longer be read, because the feed was off or its files were removed, the
    whole table is read instead. Cost otherwise: a read of the changed rows. Driver memory: one entry per range and day.
    """
    known = recorded(tables, log.mapping)
    ranges = [
        (int(file.path.rpartition("@")[2]), file.size) for file in known if file.path.startswith(f"{delta.table_id}@")
    ]
    chain = _chain(ranges)
    first = chain[-1][1] + 1 if chain else 0
    num_read = int(first <= delta.version)
    if num_read:
        try:
            days = _counted(log, delta, first)
        except (PySparkException, Py4JJavaError):  # of many kinds; if the table cannot be read at all, this fails, too
            first, chain = 0, []
            days = _counted(log, delta, first)
        read = {_as_file(delta, first, delta.version): days}
        record(tables, log.mapping, read)
        known |= read
        chain.append((first, delta.version))
    return summed(known[_as_file(delta, *versions)] for versions in chain), num_read


def _as_file(delta: DeltaLog, first: int, last: int) -> ListedFile:
    return ListedFile(f"{delta.table_id}@{first}", last, EPOCH)


def _chain(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Choose consecutive ranges from version 0; of ranges with the same start, by concurrent runs, the longest."""
    chain: list[tuple[int, int]] = []
    start = 0
    while ends := [end for first, end in ranges if first == start]:
        chain.append((start, max(ends)))
        start = max(ends) + 1
    return chain


def _counted(log: OpenLog, delta: DeltaLog, first: int) -> DaysOfFile:
    """Count by day the rows inserted less those deleted, from version ``first`` to the version of ``delta``."""
    settings = log.settings
    reader = log.source.sparkSession.read.format("delta")
    if first == 0:
        reader = reader.option("versionAsOf", delta.version)
    else:
        reader = reader.option("readChangeFeed", True)
        reader = reader.option("startingVersion", first).option("endingVersion", delta.version)
    rows = reader.table(table_name(settings)) if settings.format == "table" else reader.load(settings.path)
    columns = [name for name in rows.columns if name not in _CHANGE]
    is_insert = F.col("_change_type").isin("insert", "update_postimage") if first else F.lit(True)
    signed = rows.select(*map(sql_name, columns), F.when(is_insert, 1).otherwise(-1).alias("__sign"))
    sign = F.col("raw.__sign")
    counts = with_validity(signed, settings).select(
        "event_date",
        sign.cast("bigint").alias("num_rows"),
        F.when(F.col("reason").isNotNull(), sign).otherwise(0).cast("bigint").alias("num_rejected"),
        (row_hash(columns) * sign).cast("decimal(38,0)").alias("checksum"),
    )
    by_day = counts.groupBy("event_date").agg(*(F.sum(name).alias(name) for name in Counts._fields)).collect()
    return {row.event_date or NO_DAY: Counts(row.num_rows, row.num_rejected, int(row.checksum)) for row in by_day}
