"""The files of a log with rows of given days, and a reader of these days.

A reader opens only files and partitions that may have rows of the days.
"""

from collections.abc import Collection, Sequence
from datetime import date, timedelta
from functools import reduce
from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import Partition
from userrep.sources.open_log import OpenLog
from userrep.sources.partitions import folder_day, in_partitions
from userrep.sources.read import with_validity
from userrep.store.schemas import REJECTED_EVENTS
from userrep.store.tables import Tables
from userrep.tiles.inventory.log_days import NO_DAY, recorded, rows_in
from userrep.tiles.ledger import UNDATED


class FileDay(NamedTuple):
    """The number of rows of a day in a file, and of all its rows.

    ``source``: the number of the log's source.
    """

    path: str
    day: date
    num_rows: int
    file_rows: int
    source: int = 0


def files_of_days(tables: Tables, log: OpenLog, days: Collection[date], *, undated: bool = False) -> list[FileDay]:
    """List the files that may have rows of these days or, with ``undated``, rows without a readable time.

    Of a partitioned log, these are the files in the folders of these days; their rows are estimated by size. Of other
    logs, and of undated rows in partitions by ingestion date, they are known from the inventory. Driver memory: one
    entry per file and day.
    """
    partition = log.settings.partition
    if partition is not None and _is_by_partition(partition, undated=undated):
        dates = {day + timedelta(days=late) for day in days for late in range(partition.late_days + 1)}
        folders = ((file, folder_day(file.path, partition)) for file in log.files)
        return [
            FileDay(file.path, day, *[1 + rows_in(log.num_bytes(file))] * 2) for file, day in folders if day in dates
        ]
    known, wanted = recorded(tables, log.mapping), {*days, *([NO_DAY] if undated else [])}
    return [
        FileDay(file.path, day, counts.num_rows, file_rows)
        for file in log.files
        for file_rows in [sum(counts.num_rows for counts in known.get(file, {}).values())]
        for day, counts in known.get(file, {}).items()
        if day in wanted and counts.num_rows > 0
    ]


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


def num_rejected_of(tables: Tables, revision: int, *, undated_on: date | None = None) -> dict[date, int]:
    """Count the rejected rows of a revision by day, without undated rows, which are stored under ``undated_on``."""
    rejected = tables.read(REJECTED_EVENTS, [{"revision": revision}])
    if undated_on:
        rejected = rejected.where(~(F.col("reason").isin(*UNDATED) & (F.col("event_date") == F.lit(undated_on))))
    return {row.event_date: row.n for row in rejected.groupBy("event_date").agg(F.count("*").alias("n")).collect()}


def _source_of_days(tables: Tables, log: OpenLog, days: Collection[date], *, undated: bool) -> DataFrame:
    partition = log.settings.partition
    if not log.is_table:
        return log.rows_of(sorted({file.path for file in files_of_days(tables, log, days, undated=undated)}))
    if partition is not None and _is_by_partition(partition, undated=undated):
        return log.source.where(in_partitions(log.source, partition, days, late_days=partition.late_days))
    return log.source


def _is_by_partition(partition: Partition, *, undated: bool) -> bool:
    """Return whether partitions show where rows are; a row without a day may have been ingested on any date."""
    return partition.holds == "event_date" or not undated


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
