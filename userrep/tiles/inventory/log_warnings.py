"""Warnings about the event log: missing days, days in the future, times without a time zone."""

from collections.abc import Sequence
from datetime import date, timedelta

from userrep.sources.open_log import OpenLog
from userrep.sources.partitions import ranges
from userrep.sources.read import has_naive_time


def naive_times(log: OpenLog) -> list[str]:
    """Return a warning if times have no time zone and the configuration does not set one; they are read as UTC."""
    if "time_zone" in log.settings.model_fields_set or not has_naive_time(log.source, log.settings):
        return []
    return [f"{log.what}.columns.event_at {log.settings.columns.event_at!r} has no time zone: read as UTC"]


def future_days(days: Sequence[date], num_rows: int | None) -> list[str]:
    """Return a warning that names the days that are held back, if any. ``num_rows``: their rows; None if unknown."""
    if not days:
        return []
    rows = "rows" if num_rows is None else f"{num_rows:,} rows"
    span = f"{days[0]}" if len(days) == 1 else f"{len(days)} days ({days[0]} to {days[-1]})"
    return [f"events: {rows} of {span} are held back until their day has come"]


def missing_days(days: list[date]) -> str:
    """Return a text that lists the days missing between the first and the last day; empty if none is."""
    gaps = [
        (end + timedelta(days=1), start - timedelta(days=1))
        for (_, end), (start, _) in zip(ranges(days)[:-1], ranges(days)[1:], strict=True)
    ]
    if not gaps:
        return ""
    shown = [str(first) if first == last else f"{first} to {last}" for first, last in gaps[:10]]
    more = [f"and {len(gaps) - 10} more gaps"] if len(gaps) > 10 else []
    num_days = sum((last - first).days + 1 for first, last in gaps)
    return f"events: {num_days} days within the log have no rows: {', '.join(shown + more)}"
