"""The inventory of the event log: the number of rows and a content fingerprint of each day."""

import re
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException

from userrep.config import Events
from userrep.errors import (
    LogIncompleteError,
    RejectedShareError,
    UsageError,
    UserrepError,
    in_one_line,
    plural,
    shortened,
)
from userrep.ids import short_hash
from userrep.sources.open_log import OpenLog, open_logs
from userrep.sources.partitions import ranges
from userrep.sources.read import has_naive_time
from userrep.sources.schema_history import check_schema
from userrep.store.tables import Tables
from userrep.tiles.inventory.changes import days_by_changes
from userrep.tiles.inventory.log_days import NO_DAY, LogDay, days_by_partition, merged, total_of
from userrep.tiles.inventory.new_rows import days_by_files
from userrep.utc import last_event_day, utc_now


@dataclass(frozen=True)
class Inventory:
    """The days of the log in order, the number of rows without a readable time, and warnings about the log.

    Days after tomorrow (UTC) are not included. Their ``num_ahead`` rows are held back until their day has come.
    """

    days: list[LogDay]
    num_undated: int
    num_new_files: int
    undated_fingerprint: str = ""  # of the rows without a readable time; empty if there are none
    warnings: tuple[str, ...] = ()
    num_ahead: int = 0
    logs: tuple[OpenLog, ...] = ()

    @property
    def first_day(self) -> date:
        return self.days[0].day

    @property
    def last_day(self) -> date:
        return self.days[-1].day

    def check_as_of(self, as_of: date, *, retry_within: timedelta | None = None) -> None:
        """Raise an error for an as-of date outside the log, as ``check_within`` does."""
        check_within(as_of, self.first_day, self.last_day, retry_within=retry_within)

    def has_events(self, as_of: date, window_days: int) -> bool:
        """Return whether a window has an event: the days ``[as_of - window_days, as_of)``."""
        return any(as_of - timedelta(days=window_days) <= day.day < as_of for day in self.days)

    def check_window(self, as_of: date, window_days: int) -> None:
        """Raise ``UsageError`` if the longest window, ``[as_of - window_days, as_of)``, has no event."""
        if not self.has_events(as_of, window_days):
            before = max((day.day for day in self.days if day.day < as_of), default=None)
            raise UsageError(
                f"as-of date {as_of}: the longest window, {window_days} days, is empty; the last day with events "
                f"before the date is {before}. Choose another date or a longer window in windows_days."
            )

    def check_days(self, events: Events, days: Collection[date]) -> None:
        """Raise an error if some of ``days`` have too few rows or too many malformed ones. Uncounted days pass."""
        self.check_rejects(events.max_rejected_share, days)
        self.check_sizes(events.min_day_share, days)

    def check_sizes(self, least: float, days: Collection[date]) -> None:
        """Raise ``UsageError`` if some of ``days`` have less than the share ``least`` of the rows of the median day."""
        median = statistics.median([day.num_rows for day in self.days if day.num_rows is not None] or [0])
        small = [d for d in self.days if d.day in days and d.num_rows is not None and d.num_rows < least * median]
        if small:
            faults = shortened([f"{day.day} has {day.num_rows} rows" for day in small], noun="day", separator="; ")
            raise UsageError(
                f"events: {faults}; the log's median day has {median:,.0f}, and events.min_day_share "
                f"requires {least:.1%} of it. No rows of these days are written. "
                "Load the missing rows, or lower the share."
            )

    def counted(self, counts: Mapping[date, tuple[int, int]]) -> "Inventory":
        """Return the inventory with (rows without copies, rejected rows) filled in where a day lacks these counts."""
        filled = []
        for day in self.days:
            num_rows, num_rejected = counts.get(day.day, (None, None))
            filled.append(
                replace(
                    day,
                    num_rows=num_rows if day.num_rows is None else day.num_rows,
                    num_rejected=num_rejected if day.num_rejected is None else day.num_rejected,
                )
            )
        return replace(self, days=filled)

    def check_rejects(self, limit: float, days: Collection[date]) -> None:
        """Raise an error if the share of malformed rows in some of ``days``, or of undated rows, exceeds a limit."""
        bad = [day for day in self.days if day.day in days and (day.num_rejected or 0) > limit * (day.num_rows or 0)]
        without_day = self.num_undated + self.num_ahead
        num_rows = sum(day.expected_rows for day in self.days) + without_day
        of_days = [f"{day.day}: {day.num_rejected} of {day.num_rows} rows are malformed" for day in bad]
        faults = [shortened(of_days, noun="day", separator="; ")] if bad else []
        if without_day > limit * num_rows:
            faults.append(f"{without_day} of {num_rows} rows have no readable time, or one after tomorrow")
        if faults:
            raise RejectedShareError(
                f"events: {'; '.join(faults)}; events.max_rejected_share allows {limit:.1%}. No rows of these days "
                "are written. Fix the log or the mapping of its columns (`userrep inspect` counts missing values), or "
                "raise the limit."
            )


def check_within(as_of: date, first_day: date | None, last_day: date, *, retry_within: timedelta | None = None) -> None:
    """Check that an as-of date has an event before it and is not past the day after the log's last.

    ``first_day`` is None if it is not known; then only the end of the log is checked.

    Raises
    ------
    LogIncompleteError
        If the date is not in the future, and at most ``retry_within`` past the end of the log's last day.
    UsageError
        If the date is outside the log otherwise.
    """
    last = last_day + timedelta(days=1)
    if retry_within is not None and last < as_of <= min(last + retry_within, utc_now().date()):
        raise LogIncompleteError(
            f"as-of date {as_of}: the log is not complete yet, its last day is {last_day}. Run the command again once "
            f"the events of {as_of - timedelta(days=1)} have arrived."
        )
    if first_day is None and as_of > last:
        raise UsageError(f"as-of date {as_of}: after the log, which ends on {last_day}. Choose {last} or earlier.")
    if first_day is not None and not first_day < as_of <= last:
        first = first_day + timedelta(days=1)
        raise UsageError(
            f"as-of date {as_of}: outside the log, whose days are {first_day} to {last_day}; "
            f"choose a date from {first} to {last}."
        )


def take_inventory(tables: Tables, events: Events, logs: Sequence[OpenLog] = ()) -> Inventory:
    """List the days of the log and read what is new in it.

    Each new or changed file is read once per mapping of the columns. Its days, with the checksum of each day's rows,
    are kept in ``source_files``, days in the future included. A day's fingerprint sums over its files. If rows
    are hashed one by one, moving rows or compacting files does not change it. A log that is partitioned by event date
    is only listed.

    ``logs``: the sources, if they are open already. Cost: a listing of the log and one read of its new files. Driver
    memory: one entry per file and day.

    Raises
    ------
    UsageError
        If the log does not exist, is empty, has missing columns or missing required days, or has columns of other types
        than required or than before. Columns are checked before any row is read.
    UserrepError
        If a file is damaged, or has a column of another type than the other files.
    """
    tomorrow, logs = last_event_day(utc_now()), logs or open_logs(tables.spark, events)
    for log in logs:
        check_schema(tables, log)
    sources = [_days_of(tables, log) for log in logs]
    all_days, undated = merged([days_of_source for days_of_source, _ in sources])
    days, ahead = [day for day in all_days if day.day <= tomorrow], [day for day in all_days if day.day > tomorrow]
    if not all_days:
        raise UsageError("events: the log has no rows. Check the paths of its sources.")
    if not days:
        raise UsageError(
            f"events: all rows are later than tomorrow, {tomorrow}; the first day is {ahead[0].day}. Check "
            "events.columns.event_at and events.time_zone."
        )
    held_back = _future_days([day.day for day in ahead], total_of(day.num_rows for day in ahead))
    warnings = [*(warning for log in logs for warning in _naive_times(log)), *held_back]
    missing = _missing_days([day.day for day in days])
    if missing and events.require_all_days:
        raise UsageError(f"{missing}. Load them, or set events.require_all_days: false.")
    return Inventory(
        days,
        undated.num_rows or 0,
        sum(num_new for _, num_new in sources),
        undated_fingerprint=undated.fingerprint,
        warnings=(*warnings, *([missing] if missing else [])),
        num_ahead=sum(day.num_rows or 0 for day in ahead),
        logs=tuple(logs),
    )


def _why_unreadable(error: Exception) -> str:
    """Return the file that could not be read and the reason, from Spark's error message about the failed job."""
    text = str(error)
    file = re.search(r"reading file (\S+?)\.?(\s[^\n]*?)?\s*(SQLSTATE|\n|$)", text)
    arrow_errors = re.findall(r"^(?:[\w.]+\.)?(?:Arrow\w+|OSError|FileNotFoundError): .*", text, re.MULTILINE)
    if arrow_errors:  # by a task that reads with pyarrow
        return str(arrow_errors[-1])[:300].rstrip(".")
    return f"{file[1]}:{file[2] or ''}"[:400].rstrip(".: ") if file else in_one_line(error)


def mapping_of(events: Events) -> str:
    """Hash the mapping of the columns of all sources. A change of the mapping makes all days stale."""
    # The number makes days of several sources stale whose tiles version 0.2.0 has built, perhaps without some rows.
    readings = [source.reading for source in events.all_sources.values()]
    reading = readings[0] if len(readings) == 1 else readings
    return short_hash([reading, 1] if events.sources else reading)


def _days_of(tables: Tables, log: OpenLog) -> tuple[list[LogDay], int]:
    """Return the days of one source and the number of its new files, by the cheapest method that sees all changes."""
    settings, delta, partition = log.settings, log.delta, log.settings.partition
    try:
        if delta is not None and delta.hides_deletes and delta.has_changes:
            days, num_new = days_by_changes(tables, log, delta)
        elif partition is not None and partition.holds == "event_date" and (delta is None or delta.in_folders):
            files = {file: log.num_bytes(file) for file in log.files}
            days, num_new = days_by_partition(log.what, partition, files), 0
        else:
            days, num_new = days_by_files(tables, log)
    except (PySparkException, Py4JJavaError) as error:
        raise UserrepError(
            f"events: the log's new files could not be read: {_why_unreadable(error)}. Write the file again in the "
            "format of the others, or remove it from the log."
        ) from None
    if days and all(day.day == NO_DAY for day in days):
        raise UsageError(f"{log.what}.path {settings.path}: no row has a readable time. Check columns.event_at.")
    return days, num_new


def _naive_times(log: OpenLog) -> list[str]:
    """Return a warning if times have no time zone and the configuration does not set one; they are read as UTC."""
    if "time_zone" in log.settings.model_fields_set or not has_naive_time(log.source, log.settings):
        return []
    return [f"{log.what}.columns.event_at {log.settings.columns.event_at!r} has no time zone: read as UTC"]


def _future_days(days: Sequence[date], num_rows: int | None) -> list[str]:
    """Return a warning that names the days that are held back, if any. ``num_rows``: their rows; None if unknown."""
    if not days:
        return []
    rows = "rows" if num_rows is None else f"{num_rows:,} rows"
    span = f"{days[0]}" if len(days) == 1 else f"{len(days)} days ({days[0]} to {days[-1]})"
    return [f"events: {rows} of {span} are held back until their day has come"]


def _missing_days(days: list[date]) -> str:
    """Return a text that lists the days missing between the first and the last day; empty if none is."""
    gaps = [(end + timedelta(days=1), start - timedelta(days=1)) for (_, end), (start, _) in pairwise(ranges(days))]
    if not gaps:
        return ""
    spans = [str(first) if first == last else f"{first} to {last}" for first, last in gaps]
    num_days = sum((last - first).days + 1 for first, last in gaps)
    return f"events: {plural(num_days, 'day')} within the log without rows: {shortened(spans, noun='gap')}"
