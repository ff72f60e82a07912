"""The inventory that a run would take, from listings, footers and ledgers, without Spark. Reads no row."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import Row

from userrep.config import Events, EventSource
from userrep.errors import UsageError
from userrep.ids import short_hash
from userrep.sources.listing import DataFile, Listings, as_spark_reads, read_footer, spread
from userrep.sources.open_log import DRIVER_SEES
from userrep.store.schemas import SOURCE_FILES, TILE_DAYS
from userrep.store.tables import Tables
from userrep.tiles.inventory.day_files import BYTES_PER_ROW
from userrep.tiles.inventory.footers import times_of_footer
from userrep.tiles.inventory.inventory import Inventory, merged
from userrep.utc import EPOCH, last_event_day, numbered_day, utc_now

_NEW = "new"  # fingerprint of a day with rows that no run has read
_MOST_FOOTERS = 100  # of new files; others are assumed to be like these

Key = tuple[str, int, datetime]  # path, size and time of a file, as in ``source_files``
RowsByDay = Mapping[date | None, int]


class LogFile(NamedTuple):
    """A file of the log. ``rows``: its rows by day (None: without a readable time), or None if only a read shows it."""

    path: str
    num_bytes: int
    is_new: bool
    rows: RowsByDay | None


class _Day(NamedTuple):
    """A day of a source, in the columns of ``summed``."""

    event_date: date | None
    num_rows: int | None
    num_rejected: int | None
    fingerprint: str
    num_bytes: int


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
    those of their footers: of 100 new files, if there are more. A day with rows of new files counts as changed. In a
    log that is partitioned by event date, a day counts as changed if its number of files is another one, or if a file
    is newer than its tiles. Times without a zone are taken for UTC.

    Cost: a listing of the log, the footers of new files and two ledgers. Driver memory: one entry per file and day.

    Raises
    ------
    UsageError
        If a source is a table of a catalog, which only Spark can list.
    """
    known, ledger = (
        _known_files(tables),
        tables.ledger(TILE_DAYS, ("event_date", "revision", "fingerprint", "built_at")),
    )
    newest = {row.event_date: row for row in sorted(ledger, key=lambda row: row.revision)}
    files: list[LogFile] = []
    sources: list[list[_Day]] = []
    for number, (what, log) in enumerate(events.all_sources.items()):
        if log.format == "table":
            raise UsageError(
                f"{what}: format table needs Spark, which --dry-run does not start. Run without --dry-run."
            )
        listed = listings.files(log, what)
        if log.partition is not None and log.partition.holds == "event_date":
            prefix = f"{number}=" if len(events.all_sources) > 1 else ""
            days, found = _of_partitions(log, listed, newest, prefix)
        else:
            days, found = _of_files(log, listed, known[short_hash(log.meaning)])
        sources.append(days)
        files += found
    all_days, undated = merged(sources)
    within = [day for day in all_days if day.day <= last_event_day(utc_now())]
    num_undated, fingerprint = (undated.num_rows or 0, undated.fingerprint) if undated else (0, "")
    inventory = Inventory(within, num_undated, sum(file.is_new for file in files), undated_fingerprint=fingerprint)
    return Forecast(inventory, files)


def _known_files(tables: Tables) -> dict[str, dict[Key, dict[date | None, Row]]]:
    """Return what earlier inventories have recorded, by mapping, file and day."""
    known: dict[str, dict[Key, dict[date | None, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in tables.ledger(SOURCE_FILES):
        known[row.mapping][row.path, row.size, row.modified_at][row.event_date] = row
    return known


def _of_files(
    log: EventSource, listed: Sequence[DataFile], known: Mapping[Key, Mapping[date | None, Row]]
) -> tuple[list[_Day], list[LogFile]]:
    """Return the days and the files of a source whose files are recorded in ``source_files``."""
    keys = {file.path: _key(log, file) for file in listed}
    new = [file for file in listed if keys[file.path] not in known]
    rows_of_new = _rows_of_new(log, new)
    recorded: dict[date | None, list[Row]] = defaultdict(list)
    files, changed = [], Counter[date | None]()
    for file in listed:
        entries = known.get(keys[file.path])
        if entries is None:
            rows = rows_of_new.get(file.path)
            changed.update(rows or {})
        else:
            rows = {day: row.num_rows for day, row in entries.items() if row.num_rows}
            for day in rows:
                recorded[day].append(entries[day])
        files.append(LogFile(file.path, file.size, entries is None, rows))
    return [_day(day, recorded[day], changed.get(day)) for day in {*recorded, *changed}], files


def _day(day: date | None, recorded: Sequence[Row], num_new: int | None) -> _Day:
    """Sum the recorded rows of a day, as ``summed`` does; ``num_new``: the rows of new files, None without any."""
    num_rows = sum(row.num_rows for row in recorded)
    if num_new is not None:
        return _Day(day, num_rows + num_new, None, _NEW, 0)
    rejected = [row.num_rejected for row in recorded]
    checksum = sum(int(row.checksum) for row in recorded)
    return _Day(day, num_rows, None if None in rejected else sum(rejected), f"{num_rows}:{checksum}", 0)


def _of_partitions(
    log: EventSource, listed: Sequence[DataFile], newest: Mapping[date | None, Row], prefix: str
) -> tuple[list[_Day], list[LogFile]]:
    """Return the days and the files of a source that is partitioned by event date. ``prefix``: see ``merged``."""
    assert log.partition is not None
    by_day: dict[date, list[DataFile]] = defaultdict(list)
    for file in listed:
        by_day[_folder_day(file, log.partition.column)].append(file)
    days, files = [], []
    for day, day_files in by_day.items():
        built = (
            re.search(rf"(?:^|[+]){prefix}(files:{len(day_files)}:-?\d+)", newest[day].fingerprint)
            if day in newest
            else None
        )
        is_changed = built is None or max(file.modified_at for file in day_files) > newest[day].built_at
        num_bytes = sum(file.size for file in day_files)
        days.append(_Day(day, None, None, _NEW if is_changed or built is None else built[1], num_bytes))
        files += [LogFile(file.path, file.size, is_changed, {day: file.size // BYTES_PER_ROW}) for file in day_files]
    return days, files


def _folder_day(file: DataFile, column: str) -> date:
    try:
        return date.fromisoformat(file.partitions.get(column, ""))
    except ValueError:
        raise UsageError(
            f"events.partition.column: {file.path} is not in a folder such as {column}=2024-05-01. Move it to one, or "
            "remove the partition setting."
        ) from None


def _key(log: EventSource, file: DataFile) -> Key:
    """Return the key of a file in ``source_files``, with the path in Spark's notation."""
    if DRIVER_SEES.match(as_spark_reads(log.path)):
        path = f"file:{file.path}"
    else:
        path = "/".join([*log.path.split("/", 3)[:3], file.path.partition("/")[2]])  # scheme and bucket, then the key
    return (path, 0, EPOCH) if log.format == "delta" else (path, file.size, file.modified_at)


def _rows_of_new(log: EventSource, new: Sequence[DataFile]) -> dict[str, dict[date | None, int]]:
    """Return the rows of new files by day, from footers. Files that are missing here show nothing without a read."""
    if log.format not in ("parquet", "delta"):
        return {}
    rows = {file.path: _rows_of(file, log.columns.event_at) for file in spread(new, _MOST_FOOTERS)}
    looked_at = {path: by_day for path, by_day in rows.items() if by_day is not None}
    num_bytes = sum(file.size for file in new if file.path in looked_at)
    total: Counter[date | None] = Counter()
    for by_day in looked_at.values():
        total.update(by_day)
    return looked_at | {
        file.path: {day: round(num * file.size / num_bytes) for day, num in total.items()}
        for file in new
        if file.path not in rows and looked_at
    }


def _rows_of(file: DataFile, event_at: str) -> dict[date | None, int] | None:
    """Return the rows of a Parquet file by day, None if its footer lacks times. A row group is spread over its days."""
    try:
        groups = list(times_of_footer(read_footer(file), event_at))
    except (OSError, pa.ArrowException, PySparkException):  # the last for types that Spark does not have
        return None
    rows: Counter[date | None] = Counter()
    for times, num_rows in groups:
        if times is None or not times.is_plausible:
            return None
        for day in times.days:
            rows[numbered_day(day)] += -(-num_rows // len(times.days))
    return dict(rows)
