"""The days of a log's files: their fingerprints, the files with rows of given days, and a reader of these days.

A reader opens only files and partitions that may have rows of the days.
"""

from collections.abc import Collection, Sequence
from datetime import date, timedelta
from functools import reduce
from typing import NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep.config import Events
from userrep.errors import UsageError
from userrep.sources.open_log import KEY, OpenLog
from userrep.sources.partitions import folder_day, in_partitions, ranges
from userrep.sources.read import UNDATED, with_validity
from userrep.store.schemas import REJECTED_EVENTS, SOURCE_FILES
from userrep.store.tables import Tables

BYTES_PER_ROW = 32  # of a columnar file; estimates the number of rows that are not counted


def days_by_partition(log: OpenLog) -> DataFrame:
    """Return the days of a log that is partitioned by event date, in the columns of ``summed``, by a listing alone.

    A day's fingerprint depends on its files, so moving rows between files changes it. The numbers of rows are null. In
    a Delta log with deletion vectors, every new version changes all days.

    Raises
    ------
    UsageError
        If a file is in no folder of a day.
    """
    partition, delta = log.settings.partition, log.delta
    assert partition is not None
    dated = log.files.select(
        "*", folder_day(F.col("path"), partition).alias("event_date"), F.xxhash64(*KEY[:3]).alias("hash")
    )
    num_bytes = F.sum("size") if delta is None else F.count("*") * delta.bytes_per_file
    by_day = dated.groupBy("event_date").agg(
        F.concat_ws(":", F.count("*"), exact_sum("hash")).alias("content"),
        num_bytes.alias("num_bytes"),
        F.min("path").alias("path"),
    )
    misplaced = by_day.where("event_date IS NULL").first()
    if misplaced is not None:
        raise UsageError(
            f"{log.what}.partition.column: {misplaced.content.split(':')[0]} files are not in a folder such as "
            f"{partition.column}=2024-05-01, for example {misplaced.path}. Move them to one, or "
            "remove the partition setting."
        )
    unknown = F.lit(None).cast("bigint")
    return by_day.select(
        "event_date",
        unknown.alias("num_rows"),
        unknown.alias("num_rejected"),
        F.concat(F.lit("files:"), "content").alias("fingerprint"),
        "num_bytes",
    )


def summed(counts: DataFrame) -> DataFrame:
    """Sum the counts of files by day.

    Returns
    -------
    One row per event_date (null: rows without a readable time) with num_rows, num_rejected, fingerprint and num_bytes
    (0). ``num_rejected`` is null unless it is known for all files of the day. Days without rows are omitted.
    """
    by_day = counts.groupBy("event_date").agg(
        F.sum("num_rows").alias("num_rows"),
        F.when(F.count("num_rejected") == F.count("*"), F.sum("num_rejected")).alias("num_rejected"),
        F.sum("checksum").alias("checksum"),
    )
    return by_day.where("num_rows > 0").select(
        "event_date",
        "num_rows",
        "num_rejected",
        F.concat_ws(":", "num_rows", "checksum").alias("fingerprint"),
        F.lit(0).cast("bigint").alias("num_bytes"),
    )


class FileDay(NamedTuple):
    """The number of rows of a day in a file (``date.min``: rows without a readable time), and of all its rows.

    ``source``: the number of the log's source.
    """

    path: str
    day: date
    num_rows: int
    file_rows: int
    source: int = 0


def files_by_day(tables: Tables, log: OpenLog, days: Collection[date], *, undated: bool = False) -> list[FileDay]:
    """List the files with rows of these days or, with ``undated``, with rows without a readable time.

    Empty for a Delta log whose files do not show which rows are valid. Driver memory: one entry per file and day.
    """
    if log.delta is not None and not log.delta.is_plain:
        return []
    known = log.files.join(tables.read(SOURCE_FILES), on=list(KEY), how="left")
    is_wanted = F.coalesce(F.col("event_date").isin(list(days)), F.lit(undated)) & (F.col("num_rows") > 0)
    wanted_day = F.when(is_wanted, F.struct("event_date", "num_rows"))
    by_file = known.groupBy("path").agg(F.sum("num_rows").alias("file_rows"), F.collect_set(wanted_day).alias("days"))
    rows = by_file.where("size(days) > 0").collect()
    return [
        FileDay(row.path, day.event_date or date.min, day.num_rows, row.file_rows) for row in rows for day in row.days
    ]


def files_by_folder(log: OpenLog, days: Collection[date], *, late_days: int = 0) -> list[FileDay]:
    """List the files in the folders of these days and of ``late_days`` after each. Rows are estimated by size.

    Empty for a Delta log whose files do not show which rows are valid. Driver memory: one entry per file.
    """
    partition, delta = log.settings.partition, log.delta
    assert partition is not None
    if delta is not None and not delta.is_plain:
        return []
    num_bytes = F.col("size") if delta is None else F.lit(delta.bytes_per_file)
    listed = log.files.select("path", folder_day(F.col("path"), partition).alias("day"), num_bytes.alias("num_bytes"))
    in_range = F.lit(False)
    for first, last in ranges(days, reach=timedelta(days=late_days)):
        in_range |= F.col("day").between(F.lit(first), F.lit(last))
    rows = listed.where(in_range).collect()
    return [FileDay(row.path, row.day, *[1 + row.num_bytes // BYTES_PER_ROW] * 2) for row in rows]


def row_hash(columns: list[str]) -> Column:
    """Hash a row. The hash includes which columns are null, because xxhash64 skips nulls."""
    values = [F.col("raw").getField(name) for name in columns]
    nulls = F.concat(*(F.when(value.isNull(), "1").otherwise("0") for value in values))
    return F.xxhash64(*values, nulls, "corrupt")


def exact_sum(number: str) -> Column:
    """Sum 64-bit integers without overflow, as two halves, because sums of decimals are slow."""
    high, low = F.sum(F.shiftright(number, 32)), F.sum(F.col(number).bitwiseAND(2**32 - 1))
    return (high.cast("decimal(28,0)") * 2**32 + low).cast("decimal(38,0)")


def read_days(tables: Tables, logs: Sequence[OpenLog], days: Collection[date], *, undated: bool) -> DataFrame:
    """Read all rows of ``days``, and possibly rows of other days, in the columns of ``with_validity``.

    With several sources, ``event_id`` is prefixed by the source, and ``raw`` is a struct with one field per source,
    null except for the row's own. So equal rows of two sources are two events.

    Parameters
    ----------
    logs : all sources. ``undated``: whether to include rows without a day. A log that is partitioned by ingestion date
        is then read in full.

    Cost: plain files with rows of these days are read; of a partitioned log, the partitions that may contain them; a
    Delta log without partitions is read in full.
    """
    context = list(dict.fromkeys(name for log in logs for name in log.settings.columns.context))
    rows = [with_validity(_source_of_days(tables, log, days, undated=undated), log.settings, context) for log in logs]
    return rows[0] if len(rows) == 1 else reduce(DataFrame.unionByName, _with_source(rows))


def has_event_ids(events: Events) -> bool:
    """Return whether rows of any source may have an event id."""
    return any(log.columns.event_id is not None for log in events.all_sources.values())


def num_rejected_of(tables: Tables, revision: int, *, undated: bool) -> dict[date, int]:
    """Count the rejected rows of a revision by day. ``undated``: the revision includes undated rows, to be left out."""
    is_counted = F.col("revision") == revision
    if undated:
        is_counted &= ~F.col("reason").isin(*UNDATED)
    rows = tables.read(REJECTED_EVENTS).where(is_counted).groupBy("event_date").agg(F.count("*").alias("n")).collect()
    return {row.event_date: row.n for row in rows}


def _source_of_days(tables: Tables, log: OpenLog, days: Collection[date], *, undated: bool) -> DataFrame:
    partition = log.settings.partition
    if partition is not None and (partition.holds == "event_date" or not undated):
        if log.is_table:
            return log.source.where(in_partitions(log.source, partition, days, late_days=partition.late_days))
        files = files_by_folder(log, days, late_days=partition.late_days)
    elif log.is_table:
        return log.source
    else:
        files = files_by_day(tables, log, days, undated=undated)
    return log.rows_of(sorted({file.path for file in files}))


def _with_source(sources: list[DataFrame]) -> list[DataFrame]:
    """Give the rows of several sources the same columns, with values that differ by source."""
    kinds = [rows.schema["raw"].dataType for rows in sources]
    aligned = []
    for k, rows in enumerate(sources):
        raw = [F.col("raw") if j == k else F.lit(None).cast(kind) for j, kind in enumerate(kinds)]
        event_id = F.concat(F.lit(f"{k}:"), "event_id")
        whole = F.struct(*(column.alias(f"source_{j}") for j, column in enumerate(raw)))
        aligned.append(rows.withColumns({"event_id": event_id, "raw": whole}))
    return aligned
