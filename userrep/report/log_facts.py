"""The event log by day: missing days, and days with far fewer events than usual."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median

from userrep.sources.partitions import ranges
from userrep.tiles.ledger import NO_ROWS, TileLedger

SMALL = 0.2  # share of the usual events below which a day is small
RECENT_DAYS = 28  # days at the end of the log in which a small day causes a warning
_NUM_USUAL, _LEAST_USUAL = 8, 3  # most and fewest numbers that the usual one is the median of


@dataclass(frozen=True)
class Day:
    """One day of the log. ``is_missing``: it has no tiles.

    ``usual``: median number of events of the same weekday in the 8 weeks before, or None if there is no such number.
    """

    day: date
    num_events: int
    num_rejected: int
    is_missing: bool
    usual: float | None

    @property
    def rejected_share(self) -> float:
        """Share of the day's rows that were rejected."""
        return self.num_rejected / max(1, self.num_events + self.num_rejected)

    @property
    def is_small(self) -> bool:
        """Whether the day has far fewer events than usual for its weekday."""
        return self.usual is not None and self.num_events < SMALL * self.usual


@dataclass(frozen=True)
class LogFacts:
    """All days from the first to the last day of the log, and the number of rejected rows by reason."""

    days: Sequence[Day]
    rejected: Mapping[str, int]
    max_rejected_share: float

    @property
    def end(self) -> date | None:
        """The day after the last day; None for an empty log."""
        return self.days[-1].day + timedelta(days=1) if self.days else None

    @property
    def num_events(self) -> int:
        return sum(day.num_events for day in self.days)

    @property
    def num_missing(self) -> int:
        return sum(day.is_missing for day in self.days)

    @property
    def gaps(self) -> list[tuple[date, date]]:
        """The first and last day of each run of consecutive missing days."""
        return ranges([day.day for day in self.days if day.is_missing])

    @property
    def unusual(self) -> list[tuple[Day, date]]:
        """Small days, gaps, and days with rejected rows, newest first, each with the date of its last day."""
        last_by_first = dict(self.gaps)
        return [
            (day, last_by_first.get(day.day, day.day))
            for day in reversed(self.days)
            if day.day in last_by_first or (not day.is_missing and (day.is_small or day.num_rejected))
        ]

    @property
    def rejected_share(self) -> float:
        """Share of rows that were rejected, including rows whose time is unreadable."""
        num_rejected = sum(self.rejected.values())
        return num_rejected / max(1, self.num_events + num_rejected)


def log_facts(ledger: TileLedger, rejected: Mapping[str, int], max_rejected_share: float) -> LogFacts:
    """Return all days from the first to the last day with tiles, including days without tiles."""
    known = {day: entry for day, entry in ledger.days.items() if entry.content != NO_ROWS}  # others have vanished
    num_days = (max(known) - min(known)).days + 1 if known else 0
    days = [min(known) + timedelta(days=k) for k in range(num_days)]
    counts = [(day.num_events, day.num_rejected) if day else (0, 0) for day in map(known.get, days)]
    events = [num_events for num_events, _ in counts]
    facts = [
        Day(day, *counts[k], day not in known, usual(events[k % 7 : k : 7]))  # of the same weekday
        for k, day in enumerate(days)
    ]
    return LogFacts(facts, dict(rejected), max_rejected_share)


def usual(before: Sequence[int]) -> float | None:
    """Return the median of the last 8 numbers; None if there are fewer than 3, or if it is 0.

    So a shop that is closed on Saturdays has no small Saturdays.
    """
    return median(before[-_NUM_USUAL:]) or None if len(before) >= _LEAST_USUAL else None
