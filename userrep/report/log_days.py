"""The event log by day: missing days, and days with far fewer events than usual."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from statistics import median

from userrep.report.facts import Day, LogFacts
from userrep.tiles.ledger import TileLedger

_WEEKS = 8  # weeks that the usual number of events of a weekday is taken from
_LEAST_WEEKS = 3


def log_facts(ledger: TileLedger, rejected: Mapping[str, int], max_rejected_share: float) -> LogFacts:
    """Return all days from the first to the last day with tiles, including days without tiles."""
    tile_days = ledger.days
    num_days = (max(tile_days) - min(tile_days)).days + 1 if tile_days else 0
    days = [min(tile_days) + timedelta(days=k) for k in range(num_days)]
    events = [tile_days[day].num_events if day in tile_days else 0 for day in days]
    facts = [
        Day(
            day, events[k], tile_days[day].num_rejected if day in tile_days else 0, day not in tile_days,
            _usual(events, k),
        )
        for k, day in enumerate(days)
    ]  # fmt: skip
    return LogFacts(facts, dict(rejected), max_rejected_share)


def _usual(events: Sequence[int], index: int) -> float | None:
    """Return the median of the same weekday in the weeks before.

    Returns None if fewer than ``_LEAST_WEEKS`` weeks precede the day, or if the median is 0. So a shop that is closed
    on Saturdays has no small Saturdays.
    """
    before = [events[index - 7 * week] for week in range(1, _WEEKS + 1) if index >= 7 * week]
    if len(before) < _LEAST_WEEKS:
        return None
    return median(before) or None
