"""The log by day: which days are missing within it, and which have far fewer events than such days had before."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from statistics import median

from userrep.report.facts import Day, LogFacts
from userrep.tiles.tiles import TileLedger

_WEEKS = 8  # that tell what is usual of a weekday
_LEAST_WEEKS = 3


def log_facts(ledger: TileLedger, rejected: Mapping[str, int], max_rejected_share: float) -> LogFacts:
    """Return the days from the first to the last that have tiles, those without a row included."""
    there = ledger.days
    num_days = (max(there) - min(there)).days + 1 if there else 0
    days = [min(there) + timedelta(days=k) for k in range(num_days)]
    events = [there[day].num_events if day in there else 0 for day in days]
    facts = [
        Day(day, events[k], there[day].num_rejected if day in there else 0, day not in there, _usual(events, k))
        for k, day in enumerate(days)
    ]
    return LogFacts(facts, dict(rejected), max_rejected_share)


def gaps(days: Sequence[Day]) -> list[tuple[date, date]]:
    """Return the first and the last day of each run of missing days."""
    found: list[tuple[date, date]] = []
    for of in days:
        if of.is_missing and found and found[-1][1] + timedelta(days=1) == of.day:
            found[-1] = (found[-1][0], of.day)
        elif of.is_missing:
            found.append((of.day, of.day))
    return found


def _usual(events: Sequence[int], place: int) -> float | None:
    """Return the median of the same weekday in the weeks before; None where these are too few, or mostly empty.

    A shop that is closed on Saturdays has no small Saturdays.
    """
    before = [events[place - 7 * week] for week in range(1, _WEEKS + 1) if place >= 7 * week]
    if len(before) < _LEAST_WEEKS:
        return None
    return median(before) or None
