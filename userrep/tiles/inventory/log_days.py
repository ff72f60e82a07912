"""The days of the log: what ``source_files`` records of each file, and what all files add up to."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from userrep.config import Partition
from userrep.errors import UsageError, plural
from userrep.ids import short_hash
from userrep.sources.open_log import ListedFile
from userrep.sources.partitions import folder_day
from userrep.store.schemas import SOURCE_FILES
from userrep.store.tables import Tables

NO_DAY = date.min  # stands for the day of rows without a readable time
_BYTES_PER_ROW = 32  # of a columnar file; estimates the number of rows that are not counted


@dataclass(frozen=True)
class LogDay:
    """A UTC day of the log. Counts are None if rows are counted only when the day's tiles are built.

    ``fingerprint`` changes if a row changes; it may also change if files are written again (docs/decisions/0002).
    """

    day: date
    num_rows: int | None
    num_rejected: int | None
    fingerprint: str
    num_bytes: int = 0

    @property
    def expected_rows(self) -> int:
        """The number of rows, estimated by the size of the files if they are not counted."""
        return rows_in(self.num_bytes) if self.num_rows is None else self.num_rows


class Counts(NamedTuple):
    """The rows of a day in a file. ``num_rejected``: None if they are counted only when tiles are built."""

    num_rows: int
    num_rejected: int | None
    checksum: int


DaysOfFile = Mapping[date, Counts]


def rows_in(num_bytes: int) -> int:
    """Estimate the number of rows in files of this size."""
    return num_bytes // _BYTES_PER_ROW


def recorded(tables: Tables, mapping: str) -> dict[ListedFile, DaysOfFile]:
    """Return the files that were read under a mapping of the columns. Driver memory: one entry per file and day."""
    files: dict[ListedFile, dict[date, Counts]] = defaultdict(dict)
    columns = (*ListedFile._fields, "event_date", *Counts._fields)
    for path, size, modified_at, day, num_rows, num_rejected, checksum in tables.ledger(
        SOURCE_FILES, columns, mapping=mapping
    ):
        counts = Counts(num_rows, num_rejected, int(checksum or 0))
        files[ListedFile(path, size, modified_at)][day or NO_DAY] = counts
    return dict(files)


def record(tables: Tables, mapping: str, files: Mapping[ListedFile, DaysOfFile]) -> None:
    """Record files that were read, in one commit. A file without rows has one entry without a day."""
    rows = [
        file._asdict()
        | counts._asdict()
        | {"mapping": mapping, "event_date": None if day == NO_DAY else day, "checksum": Decimal(counts.checksum)}
        for file, days in files.items()
        for day, counts in (days or {NO_DAY: Counts(0, 0, 0)}).items()
    ]
    if rows:
        tables.add(SOURCE_FILES, rows)


def summed(files: Iterable[DaysOfFile]) -> list[LogDay]:
    """Add up the days of files. ``num_rejected`` is None unless it is known for all files of the day."""
    by_day: dict[date, list[Counts]] = defaultdict(list)
    for days in files:
        for day, counts in days.items():
            by_day[day].append(counts)
    return [
        LogDay(day, num_rows, total_of(part.num_rejected for part in parts), f"{num_rows}:{checksum}")
        for day, parts in by_day.items()
        if (num_rows := sum(part.num_rows for part in parts)) > 0
        for checksum in [sum(part.checksum for part in parts)]
    ]


def days_by_partition(what: str, partition: Partition, files: Mapping[ListedFile, int]) -> list[LogDay]:
    """Return the days of a log that is partitioned by event date, by its listing alone. ``files``: with their sizes.

    A day's fingerprint depends on its files, so moving rows between files changes it. In a Delta log with deletion
    vectors, every new version changes all days.

    Raises
    ------
    UsageError
        If a file is in no folder of a day.
    """
    by_day: dict[date | None, list[ListedFile]] = defaultdict(list)
    for file in files:
        by_day[folder_day(file.path, partition)].append(file)
    if misplaced := by_day.get(None):
        raise UsageError(
            f"{what}.partition.column: the log has {plural(len(misplaced), 'file')} outside of folders such as "
            f"{partition.column}=2024-05-01, for example {min(file.path for file in misplaced)}. Move them to one, or "
            "remove the partition setting."
        )
    return [
        LogDay(day, None, None, f"files:{short_hash(sorted(part))}", sum(files[file] for file in part))
        for day, part in by_day.items()
        if day is not None
    ]


def merged(sources: Sequence[Sequence[LogDay]]) -> tuple[list[LogDay], LogDay]:
    """Add up the days of all sources; return them in order, and the entry of the rows without a day.

    Without such rows, that entry has an empty fingerprint.
    """
    by_day: dict[date, list[tuple[int, LogDay]]] = defaultdict(list)
    for k, days in enumerate(sources):
        for day in days:
            by_day[day.day].append((k, day))
    total = {
        day: LogDay(
            day,
            total_of(part.num_rows for _, part in parts),
            total_of(part.num_rejected for _, part in parts),
            parts[0][1].fingerprint if len(sources) == 1 else "+".join(f"{k}={part.fingerprint}" for k, part in parts),
            sum(part.num_bytes for _, part in parts),
        )
        for day, parts in sorted(by_day.items())
    }
    undated = total.pop(NO_DAY, LogDay(NO_DAY, 0, 0, ""))
    return list(total.values()), undated


def total_of(counts: Iterable[int | None]) -> int | None:
    """Add up counts; None if one of them is not known."""
    known = list(counts)
    return None if None in known else sum(count or 0 for count in known)
