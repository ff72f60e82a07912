"""The inventory that a run would take, from listings, footers and ledgers, without Spark. Reads no rows."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import pyarrow as pa

from userrep.config import Events, EventSource, Partition
from userrep.errors import UsageError
from userrep.ids import short_hash
from userrep.sources.listing import DataFile, Listings, deletions_version, read_footer, spread
from userrep.sources.open_log import ListedFile
from userrep.sources.partitions import folder_day
from userrep.store.tables import Tables
from userrep.tiles.inventory.footers import times_of_footer
from userrep.tiles.inventory.inventory import Inventory
from userrep.tiles.inventory.log_days import DaysOfFile, LogDay, days_by_partition, merged, recorded, rows_in, summed
from userrep.tiles.ledger import tile_ledger
from userrep.utc import EPOCH, last_event_day, numbered_day, utc_now

_NEW = "new"  # fingerprint of a day with rows that no run has read
_MOST_FOOTERS = 100  # of new files; others are assumed to be like these

RowsByDay = Mapping[date, int]


class LogFile(NamedTuple):
    """A file of the log. ``rows``: its rows by day (``NO_DAY``: without one), or None if only a read shows them."""

    path: str
    num_bytes: int
    is_new: bool
    rows: RowsByDay | None


@dataclass(frozen=True)
class Forecast:
    """The inventory as far as it is known, and the files of the log. Rows of new files are estimates."""

    inventory: Inventory
    files: Sequence[LogFile]

    @property
    def new_files(self) -> list[LogFile]:
        """The files that a run would read for its inventory, or at least their footers."""
        return [file for file in self.files if file.is_new]

    @property
    def unread_files(self) -> list[LogFile]:
        """The new files whose days are not known before they are read."""
        return [file for file in self.files if file.rows is None]

    def files_of(self, days: Collection[date]) -> list[LogFile]:
        """Return the files that may have rows of these days."""
        return [file for file in self.files if file.rows is None or not file.rows.keys().isdisjoint(days)]


def forecast(tables: Tables, events: Events, listings: Listings) -> Forecast:
    """Return the inventory that ``take_inventory`` would take now.

    Days of files that were read before are known, and so are days of partitions. The days of new Parquet files are
    those of their footers: of 100 new files, if there are more. A day with rows of new files counts as changed. Times
    without a zone are taken for UTC.

    Cost: a listing of the log, the footers of new files and two ledgers. Driver memory: one entry per file and day.

    Raises
    ------
    UsageError
        If a source is a table of a catalog, which only Spark can list.
    """
    built = {day: entry.fingerprint for day, entry in tile_ledger(tables).days.items()}
    files: list[LogFile] = []
    sources: list[list[LogDay]] = []
    for what, log in events.all_sources.items():
        if log.format == "table":
            raise UsageError(
                f"{what}: format table needs Spark, which --dry-run does not start. Run without --dry-run."
            )
        listed = _listed(log, listings.files(log, what))
        if log.partition is not None and log.partition.holds == "event_date":
            days, log_files = _of_partitions(what, log.partition, listed, built)
        else:
            days, log_files = _of_files(log, listed, recorded(tables, short_hash(log.reading)))
        sources.append(days)
        files += log_files
    all_days, undated = merged(sources)
    within = [day for day in all_days if day.day <= last_event_day(utc_now())]
    num_new = sum(file.is_new for file in files)
    return Forecast(Inventory(within, undated.num_rows or 0, num_new, undated_fingerprint=undated.fingerprint), files)


def _listed(log: EventSource, files: Sequence[DataFile]) -> dict[ListedFile, DataFile]:
    """Return files by what ``source_files`` records of them."""
    listed = {ListedFile.of(log, file): file for file in files}
    if log.format != "delta":
        return listed
    version = deletions_version(log.path)
    return {ListedFile(file.path, version, EPOCH): data for file, data in listed.items()}


def _of_files(
    log: EventSource, listed: Mapping[ListedFile, DataFile], known: Mapping[ListedFile, DaysOfFile]
) -> tuple[list[LogDay], list[LogFile]]:
    """Return the days and the files of a source whose files are recorded in ``source_files``."""
    rows_of_new = _rows_of_new(log, [data for file, data in listed.items() if file not in known])
    days = {day.day: day for day in summed(known[file] for file in listed if file in known)}
    files, changed = [], Counter[date]()
    for file, data in listed.items():
        if file in known:
            rows: RowsByDay | None = {day: counts.num_rows for day, counts in known[file].items() if counts.num_rows}
        else:
            rows = rows_of_new.get(data.path)
            changed.update(rows or {})
        files.append(LogFile(data.path, data.size, file not in known, rows))
    for day, num_new in changed.items():
        num_known = (days[day].num_rows or 0) if day in days else 0
        days[day] = LogDay(day, num_known + num_new, None, _NEW)
    return list(days.values()), files


def _of_partitions(
    what: str, partition: Partition, listed: Mapping[ListedFile, DataFile], built: Mapping[date, str]
) -> tuple[list[LogDay], list[LogFile]]:
    """Return the days and the files of a source that is partitioned by event date. ``built``: fingerprints by day."""
    days = days_by_partition(what, partition, {file: data.size for file, data in listed.items()})
    is_changed = {day.day: day.fingerprint not in built.get(day.day, "") for day in days}
    files = []
    for file, data in listed.items():
        day = folder_day(file.path, partition)
        assert day is not None
        files.append(LogFile(data.path, data.size, is_changed[day], {day: rows_in(data.size)}))
    return days, files


def _rows_of_new(log: EventSource, new: Sequence[DataFile]) -> dict[str, dict[date, int]]:
    """Return the rows of new files by day, from footers. Files that are missing here show nothing without a read."""
    if log.format not in ("parquet", "delta"):
        return {}
    footers = {file.path: _rows_of(file, log.columns.event_at) for file in spread(new, _MOST_FOOTERS)}
    rows = {path: by_day for path, by_day in footers.items() if by_day is not None}
    num_bytes = sum(file.size for file in new if file.path in rows)
    total = sum(map(Counter, rows.values()), Counter[date]())
    others = [file for file in new if file.path not in footers] if rows else []
    return rows | {
        file.path: {day: round(num * file.size / num_bytes) for day, num in total.items()} for file in others
    }


def _rows_of(file: DataFile, event_at: str) -> dict[date, int] | None:
    """Return the rows of a Parquet file by day, None if its footer lacks times. A row group is spread over its days."""
    try:
        groups = times_of_footer(read_footer(file), event_at)
    except (OSError, pa.ArrowException):
        return None
    rows: Counter[date] = Counter()
    for times, num_rows in groups:
        if times is None or not times.is_plausible:
            return None
        for day in times.days:
            rows[numbered_day(day)] += -(-num_rows // len(times.days))
    return dict(rows)
