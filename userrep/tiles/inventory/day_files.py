"""The files of a log with rows of given days, and a reader of these days.

A reader opens only files and partitions that may have rows of the days.
"""

from collections.abc import Collection, Sequence
from datetime import date, timedelta
from functools import reduce
from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import Events
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


def files_by_day(tables: Tables, log: OpenLog, days: Collection[date], *, undated: bool = False) -> list[FileDay]:
    """List the files with rows of these days or, with ``undated``, with rows without a readable time.

    Driver memory: one entry per file and day.
    """
    known, wanted = recorded(tables, log.mapping), {*days, *([NO_DAY] if undated else [])}
    return [
        FileDay(file.path, day, counts.num_rows, file_rows)
        for file in log.files
        for file_rows in [sum(counts.num_rows for counts in known.get(file, {}).values())]
        for day, counts in known.get(file, {}).items()
        if day in wanted and counts.num_rows > 0
    ]


def files_by_folder(log: OpenLog, days: Collection[date], *, late_days: int = 0) -> list[FileDay]:
    """List the files in the folders of these days and of ``late_days`` after each. Rows are estimated by size.

    Driver memory: one entry per file.
    """
    partition = log.settings.partition
    assert partition is not None
    wanted = {day + timedelta(days=late) for day in days for late in range(late_days + 1)}
    folders = ((file, folder_day(file.path, partition)) for file in log.files)
    return [FileDay(file.path, day, *[1 + rows_in(log.num_bytes(file))] * 2) for file, day in folders if day in wanted]


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


def num_rejected_of(tables: Tables, revision: int, *, undated_on: date | None = None) -> dict[date, int]:
    """Count the rejected rows of a revision by day, without undated rows, which are stored under ``undated_on``."""
    is_counted = F.col("revision") == revision
    if undated_on:
        is_counted &= ~(F.col("reason").isin(*UNDATED) & (F.col("event_date") == F.lit(undated_on)))
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
