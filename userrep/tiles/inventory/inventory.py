"""What the log holds, day by day: how many rows, and a fingerprint of each day's content."""

import re
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import Row

from userrep.config import Events
from userrep.errors import RejectedShareError, UsageError, UserrepError, in_one_line
from userrep.ids import short_hash
from userrep.sources.open_log import OpenLog, open_logs
from userrep.sources.partitions import ranges
from userrep.sources.read import has_naive_time
from userrep.sources.schema_history import check_schema
from userrep.store.tables import Tables
from userrep.tiles.inventory.changes import days_by_changes
from userrep.tiles.inventory.listing import BYTES_PER_ROW, days_by_partition
from userrep.tiles.inventory.scan_files import days_by_files
from userrep.utc import utc_now


@dataclass(frozen=True)
class LogDay:
    """A UTC day of the log. Its rows are counted by the inventory, or (None) when its tiles are built.

    ``fingerprint`` depends on the rows alone where they are counted by the inventory, else on the files.
    """

    day: date
    num_rows: int | None
    num_rejected: int | None
    fingerprint: str
    num_bytes: int = 0

    @property
    def expected_rows(self) -> int:
        """How many rows there are, or may be by the size of the files."""
        return self.num_bytes // BYTES_PER_ROW if self.num_rows is None else self.num_rows


@dataclass(frozen=True)
class Inventory:
    """The log's days in order, the rows whose time could not be read, and what its owner should know of the log.

    Days after tomorrow (UTC) are not among them: their ``num_ahead`` rows are held back until their time comes.
    """

    days: list[LogDay]
    num_undated: int
    num_new_files: int
    undated_fingerprint: str = ""  # of the content of the undated rows; empty without any
    warnings: tuple[str, ...] = ()
    num_ahead: int = 0
    logs: tuple[OpenLog, ...] = ()

    @property
    def first_day(self) -> date:
        return self.days[0].day

    @property
    def last_day(self) -> date:
        return self.days[-1].day

    def check_as_of(self, as_of: date) -> None:
        """Refuse an as-of date that has no event before it, or lies past the day after the log's last."""
        check_within(as_of, self.first_day, self.last_day)

    def check_window(self, as_of: date, window_days: int) -> None:
        """Refuse an as-of date whose longest window, ``[as_of - window_days, as_of)``, holds no event."""
        before = max((day.day for day in self.days if day.day < as_of), default=None)
        if before is None or (as_of - before).days > window_days:
            raise UsageError(
                f"--as-of {as_of}: the longest window, {window_days} days, is empty; the last day with events before "
                f"it is {before}. Choose another date or a longer window in windows_days."
            )

    def check_days(self, events: Events, days: Collection[date]) -> None:
        """Refuse ``days`` that are too small or hold too many malformed rows; days that are not counted pass."""
        self.check_rejects(events.max_rejected_share, days)
        self.check_sizes(events.min_day_share, days)

    def check_sizes(self, least: float, days: Collection[date]) -> None:
        """Refuse ``days`` if one of them has less than a share of the rows of the log's median day."""
        median = statistics.median([day.num_rows for day in self.days if day.num_rows is not None] or [0])
        small = [d for d in self.days if d.day in days and d.num_rows is not None and d.num_rows < least * median]
        if small:
            faults = [f"{day.day} has {day.num_rows} rows" for day in small[:10]]
            more = [f"and {len(small) - 10} more days"] if len(small) > 10 else []
            raise UsageError(
                f"events: {'; '.join(faults + more)}; the log's median day has {median:,.0f}, and events.min_day_share "
                f"wants {least:.1%} of it. Nothing of these days is written. Load what is missing, or lower the share."
            )

    def counted(self, counts: Mapping[date, tuple[int, int]]) -> "Inventory":
        """Fill in rows and rejects of days whose rejects the inventory has not counted."""
        days = [
            replace(day, num_rows=counts[day.day][0], num_rejected=counts[day.day][1])
            if day.num_rejected is None and day.day in counts
            else day
            for day in self.days
        ]
        return replace(self, days=days)

    def check_rejects(self, limit: float, days: Collection[date]) -> None:
        """Refuse ``days`` if one of them, or the log's undated rows, are over the limit of malformed rows."""
        bad = [day for day in self.days if day.day in days and (day.num_rejected or 0) > limit * (day.num_rows or 0)]
        without_day = self.num_undated + self.num_ahead
        num_rows = sum(day.num_rows or 0 for day in self.days) + without_day
        faults = [f"{d.day}: {d.num_rejected} of {d.num_rows} rows are malformed" for d in bad[:10]]
        if len(bad) > 10:
            faults.append(f"and {len(bad) - 10} more days")
        if without_day > limit * num_rows:
            faults.append(f"{without_day} of {num_rows} rows have no readable time, or one after tomorrow")
        if faults:
            raise RejectedShareError(
                f"events: {'; '.join(faults)}; events.max_rejected_share allows {limit:.1%}. Nothing of these days is "
                "written. Mend the log or the columns' mapping, or raise the limit."
            )


def check_within(as_of: date, first_day: date, last_day: date) -> None:
    """Refuse an as-of date that has no event before it, or lies past the day after the log's last."""
    first, last = first_day + timedelta(days=1), last_day + timedelta(days=1)
    if not first <= as_of <= last:
        raise UsageError(
            f"--as-of {as_of}: outside the log, whose days are {first_day} to {last_day}; "
            f"choose a date from {first} to {last}."
        )


def take_inventory(tables: Tables, events: Events, logs: Sequence[OpenLog] = ()) -> Inventory:
    """Look what days the log has, and what of them is new.

    Of each source only what is new or changed is read, once for each meaning of the columns; the days of its files and
    the checksum of each day's rows are kept in ``source_files``. A day's fingerprint adds up over files, so moving or
    compacting files changes no day. A log that is partitioned by event date is not read at all: its listing tells.
    What is the future is decided here alone, by the clock at the start; the days of files are kept whatever it says.
    ``logs``: the sources, where they have been opened already. Cost: a listing of the log, else, and one read of its
    new files; driver memory grows with days.

    Raises
    ------
    UsageError
        If the log is not there, lacks columns or days that it should have, has columns of other types than it should
        have or than it had, or is empty. Nothing of it is read before its columns are as they should be.
    UserrepError
        If one of its files is torn, or has a column in another type than the others.
    """
    tomorrow = utc_now().date() + timedelta(days=1)  # clocks may be a little wrong
    logs = logs or open_logs(tables.spark, events)
    for log in logs:
        check_schema(tables, log)
    try:
        found = [_days_of(tables, log) for log in logs]
    except (PySparkException, Py4JJavaError) as error:
        raise UserrepError(
            f"events: the log's new files could not be read: {_why_unreadable(error)}. Write the file anew as the "
            "others are, or take it out of the log."
        ) from None
    known, undated = _merged([rows for rows, _ in found])
    days, ahead = [day for day in known if day.day <= tomorrow], [day for day in known if day.day > tomorrow]
    if not days:
        raise UsageError(f"events: all rows lie after tomorrow, {tomorrow}: the first of them on {ahead[0].day}.")
    warnings = [*(warning for log in logs for warning in _naive_times(log)), *_of_the_future(ahead)]
    missing = _missing([day.day for day in days])
    if missing and events.require_all_days:
        raise UsageError(f"{missing}. Load them, or set events.require_all_days: false.")
    return Inventory(
        days,
        undated.num_rows or 0 if undated else 0,
        sum(num_new for _, num_new in found),
        undated_fingerprint=undated.fingerprint if undated else "",
        warnings=(*warnings, *([missing] if missing else [])),
        num_ahead=_num_rows(ahead),
        logs=tuple(logs),
    )


def _why_unreadable(error: Exception) -> str:
    """Say which file it is, and what is wrong with it, of all that Spark says of a job that failed."""
    text = str(error)
    found = re.search(r"reading file (\S+?)\.?(\s[^\n]*?)?\s*(SQLSTATE|\n|$)", text)
    last = re.findall(r"^(?:[\w.]+\.)?(?:Arrow\w+|OSError|FileNotFoundError): .*", text, re.MULTILINE)
    if last:  # of a task that reads by pyarrow
        return str(last[-1])[:300].rstrip(".")
    return f"{found[1]}:{found[2] or ''}"[:400].rstrip(".: ") if found else in_one_line(error)


def mapping_of(events: Events) -> str:
    """Hash what the columns of all sources mean: a change of it changes every day, as a change of the rows does."""
    return short_hash(events.meaning)


def _days_of(tables: Tables, log: OpenLog) -> tuple[list[Row], int]:
    """Take the inventory of one source in the cheapest way that sees every change of it."""
    settings, delta = log.settings, log.delta
    if delta is not None and delta.hides_deletes and delta.has_changes:
        days, num_new = days_by_changes(tables, settings, delta)
    elif settings.partition is not None and settings.partition.holds == "event_date":
        days, num_new = days_by_partition(log), 0
    else:
        days, num_new = days_by_files(tables, log)
    rows = days.collect()
    if not any(row.event_date for row in rows):
        raise UsageError(f"{log.what}.path {settings.path}: no row with a readable time in it.")
    return rows, num_new


def _merged(sources: list[list[Row]]) -> tuple[list[LogDay], LogDay | None]:
    """Add up the sources' days; return them in order, and the rows without a day."""
    by_day: dict[date | None, list[tuple[int, Row]]] = {}
    for k, rows in enumerate(sources):
        for row in rows:
            by_day.setdefault(row.event_date, []).append((k, row))
    days = {
        day: LogDay(
            day or date.min,
            _sum(row.num_rows for _, row in parts),
            _sum(row.num_rejected for _, row in parts),
            parts[0][1].fingerprint if len(sources) == 1 else "+".join(f"{k}={row.fingerprint}" for k, row in parts),
            sum(row.num_bytes for _, row in parts),
        )
        for day, parts in by_day.items()
    }
    return [days[day] for day in sorted(day for day in days if day is not None)], days.get(None)


def _sum(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def _naive_times(log: OpenLog) -> list[str]:
    """Say once that times without a zone are taken for UTC, unless the configuration says of which zone they are."""
    if "time_zone" in log.settings.model_fields_set or not has_naive_time(log.source, log.settings):
        return []
    return [f"{log.what}.columns.event_at {log.settings.columns.event_at!r} has no time zone: read as UTC"]


def _num_rows(days: list[LogDay]) -> int:
    """Add up the rows of days, as far as they are counted."""
    return sum(day.num_rows or 0 for day in days)


def _of_the_future(ahead: list[LogDay]) -> list[str]:
    """Return a warning that names the days that are held back, if there are any."""
    if not ahead:
        return []
    rows = f"{_num_rows(ahead):,} rows" if all(day.num_rows is not None for day in ahead) else "rows"
    span = f"{ahead[0].day}" if len(ahead) == 1 else f"{len(ahead)} days ({ahead[0].day} to {ahead[-1].day})"
    return [f"events: {rows} of {span} are held back: they count once their day has come"]


def _missing(days: list[date]) -> str:
    """Say which days are missing between the first and the last; nothing where none is."""
    gaps = [
        (end + timedelta(days=1), start - timedelta(days=1))
        for (_, end), (start, _) in zip(ranges(days)[:-1], ranges(days)[1:], strict=True)
    ]
    if not gaps:
        return ""
    shown = [str(first) if first == last else f"{first} to {last}" for first, last in gaps[:10]]
    more = [f"and {len(gaps) - 10} more gaps"] if len(gaps) > 10 else []
    num_days = sum((last - first).days + 1 for first, last in gaps)
    return f"events: {num_days} days within the log have no row: {', '.join(shown + more)}"
