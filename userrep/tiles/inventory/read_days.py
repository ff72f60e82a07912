"""Some days of the log, all sources as one: only the files and partitions that hold them are read."""

from collections.abc import Collection, Sequence
from datetime import date
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import Events
from userrep.sources.open_log import OpenLog
from userrep.sources.partitions import in_partitions
from userrep.sources.read import UNDATED, with_validity
from userrep.store.schemas import REJECTED_EVENTS
from userrep.store.tables import Tables
from userrep.tiles.inventory.listing import files_by_day, files_by_folder


def read_days(tables: Tables, logs: Sequence[OpenLog], days: Collection[date], *, undated: bool) -> DataFrame:
    """Read rows as ``with_validity`` gives them: all of ``days``, perhaps some of others.

    Of several sources, ``event_id`` tells the source too, and ``raw`` is a struct with one field per source, null but
    for the row's own: equal rows of two sources are two events.

    Parameters
    ----------
    logs : all sources. undated : whether rows without a day are wanted too; of a log in partitions by ingestion date
        all is read then.

    Cost: plain files are read that hold rows of these days; of a log in partitions, those that may hold them; of a
    Delta log without partitions, the whole.
    """
    context = list(dict.fromkeys(name for log in logs for name in log.settings.columns.context))
    rows = [with_validity(_source_of_days(tables, log, days, undated=undated), log.settings, context) for log in logs]
    return rows[0] if len(rows) == 1 else reduce(DataFrame.unionByName, _told_apart(rows))


def has_event_ids(events: Events) -> bool:
    """Say whether rows of any source may have an event id."""
    return any(log.columns.event_id is not None for log in events.all_sources.values())


def num_rejected_of(tables: Tables, revision: int, *, undated: bool) -> dict[date, int]:
    """Count the rejected rows of a revision, by day. ``undated``: rows without a day, which don't count, are there."""
    mine = F.col("revision") == revision
    if undated:
        mine &= ~F.col("reason").isin(*UNDATED)
    rows = tables.read(REJECTED_EVENTS).where(mine).groupBy("event_date").agg(F.count("*").alias("n")).collect()
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
    return log.rows_of(sorted({of.path for of in files}))


def _told_apart(sources: list[DataFrame]) -> list[DataFrame]:
    """Give the rows of several sources one shape that tells them apart."""
    kinds = [rows.schema["raw"].dataType for rows in sources]
    told = []
    for k, rows in enumerate(sources):
        raw = [F.col("raw") if j == k else F.lit(None).cast(kind) for j, kind in enumerate(kinds)]
        event_id = F.concat(F.lit(f"{k}:"), "event_id")
        whole = F.struct(*(column.alias(f"source_{j}") for j, column in enumerate(raw)))
        told.append(rows.withColumns({"event_id": event_id, "raw": whole}))
    return told
