"""Charts about a root as SVG: its log, runs and snapshots, next to what is expected of them."""

import math
from collections.abc import Sequence
from datetime import datetime, time, timedelta

from markupsafe import Markup

from userrep.errors import plural
from userrep.report.charts import Mark, columns, lines, positions
from userrep.report.facts import Facts, Run
from userrep.report.formats import count, day, seconds, short, when
from userrep.report.log_facts import Day, usual
from userrep.spaces.snapshots import PUBLISHED

MOST = 30  # daily runs, runs or snapshots in a chart of what is expected
_MOST_COLUMNS = 190
_HEIGHT = 120
OUTCOMES = {"done": "c0", "skipped": "rest", "failed": "bad"}  # CSS classes


def events_by_day(days: Sequence[Day]) -> tuple[Markup, str]:
    """Draw the number of events over time; return the chart and the unit of a column.

    The unit is a day, or for long logs a week or four weeks.
    """
    width, unit = next(
        ((w, u) for w, u in ((1, "day"), (7, "week")) if len(days) <= w * _MOST_COLUMNS), (28, "4 weeks")
    )
    first = len(days) % width  # days in the first column, so that the last column is complete
    groups = [days[:first]] * bool(first) + [days[k : k + width] for k in range(first, len(days), width)]
    names = [day(group[0].day) for group in groups]
    return columns([*map(_column, groups)], names, label=f"Events by {unit}", write=short), unit


def run_times(facts: Facts) -> Markup:
    """Draw the duration of each run on a logarithmic scale."""
    ticks = [math.log10(tick) for tick in (1, 10, 60, 600, 3600, 36_000)]
    marks = [
        Mark(
            math.log10(max(1.0, run.seconds)),
            f"{run.run_id}, {when(run.started_at)} UTC: {run.outcome} in {seconds(run.seconds)}; "
            + (", ".join(run.stages) or "up to date"),
            OUTCOMES[run.outcome],
        )
        for run in facts.runs
    ]
    names = [when(run.started_at) for run in facts.runs]
    return lines({"c0": marks}, names, label="Run times", write=_duration, ticks=ticks, height=130, is_joined=False)


def daily_runs(facts: Facts) -> list[Run]:
    """Return the last daily runs, in order."""
    return [run for run in facts.runs if run.is_daily][-MOST:]


def daily_times(facts: Facts) -> Markup:
    """Draw the duration of the last daily runs, and the duration that was expected at their start."""
    runs = daily_runs(facts)
    length, unit = _unit(max(max(run.seconds, run.expected_seconds or 0) for run in runs))
    expected = [
        Mark(run.expected_seconds / length, f"{run.run_id}: {seconds(run.expected_seconds)} expected", "rest")
        if run.expected_seconds is not None else None
        for run in runs
    ]  # fmt: skip
    actual = [
        Mark(run.seconds / length, f"{run.run_id}: {run.outcome} in {seconds(run.seconds)}",
             "bad" if run.outcome == "failed" else "c0")
        for run in runs
    ]  # fmt: skip
    names = [when(run.started_at) for run in runs]
    return lines(
        {"rest": expected, "c0": actual}, names, label="Daily run times", write=lambda value: f"{value:g} {unit}",
        height=_HEIGHT,
    )  # fmt: skip


def snapshot_users(facts: Facts) -> Markup:
    """Draw the users of the newest revision of each date, and the usual number: the median of the 8 dates before."""
    snapshots = [*{each.as_of: each for each in facts.snapshots if each.state == PUBLISHED}.values()]
    nums = [snapshot.num_users for snapshot in snapshots]
    actual = [Mark(num, f"{s.snapshot_id}: {count(num)} users") for num, s in zip(nums, snapshots, strict=True)]
    expected = [
        Mark(num, f"{snapshot.snapshot_id}: {count(num)} users usual", "rest") if (num := usual(nums[:k])) else None
        for k, snapshot in enumerate(snapshots)
    ]
    dates = [each.as_of for each in snapshots[-MOST:]]
    return lines(
        {"rest": expected[-MOST:], "c0": actual[-MOST:]}, [*map(day, dates)], positions=positions(dates),
        label="Users of each snapshot", write=short, height=_HEIGHT,
    )  # fmt: skip


def ages(facts: Facts) -> list[tuple[Run, timedelta]]:
    """Return the last runs that found an available snapshot of the space, with the age of the newest one then.

    The age is counted from 00:00 UTC of the as-of date. Only snapshots that are still in the ledger are known.
    """
    known = [(s.available_at, s.as_of) for s in facts.snapshots if s.available_at is not None]
    pairs = []
    for run in facts.runs:
        dates = [as_of for available_at, as_of in known if available_at <= run.started_at]
        if dates:
            pairs.append((run, run.started_at - datetime.combine(max(dates), time())))
    return pairs[-MOST:]


def freshness(facts: Facts) -> Markup:
    """Draw the age of the newest available snapshot when each of the last runs started, with the limits on it."""
    aged_runs = ages(facts)
    largest = max([*(age for _, age in aged_runs), *facts.max_age.values()])
    seconds_each, unit = _unit(largest.total_seconds())
    length = timedelta(seconds=seconds_each)
    names = [when(run.started_at) for run, _ in aged_runs]
    marks = [
        Mark(age / length, f"{run.run_id}, {name} UTC: {age / length:.1f} {unit}")
        for (run, age), name in zip(aged_runs, names, strict=True)
    ]
    return lines(
        {"c0": marks}, names, label="Age of the snapshot at each run", write=lambda value: f"{value:g} {unit}",
        limits={level: age / length for level, age in facts.max_age.items()}, height=_HEIGHT,
    )  # fmt: skip


def _column(group: Sequence[Day]) -> Mark:
    num_events, num_rejected, num_missing, num_small = (
        sum(getattr(log_day, name) for log_day in group)
        for name in ("num_events", "num_rejected", "is_missing", "is_small")
    )
    span = str(group[0].day) if len(group) == 1 else f"{group[0].day} to {group[-1].day}"
    title = f"{span}: {count(num_events)} events, {count(num_rejected)} rows rejected"
    title += f"; {plural(num_missing, 'day')} missing" if num_missing else ""
    title += f"; {num_small} far smaller than usual" if num_small else ""
    return Mark(num_events, title, is_marked=num_small > 0)


def _duration(log_seconds: float) -> str:
    number = round(10**log_seconds)
    return f"{number} s" if number < 60 else seconds(number)


def _unit(largest: float) -> tuple[float, str]:
    """Return the unit of an axis up to ``largest`` seconds: its length in seconds and its name."""
    units = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))
    return next(((length, name) for length, name in units if largest >= 4 * length), (1.0, "s"))
