"""Line charts of the last runs and snapshots: run times, users and freshness, next to what is expected of them."""

from collections.abc import Sequence
from datetime import datetime, time, timedelta
from statistics import median

from markupsafe import Markup

from userrep.report.charts import Mark, Series, lines, positions
from userrep.report.facts import BAD, WARN, Facts, Run
from userrep.report.formats import count, day, seconds, short, when
from userrep.spaces.snapshots import Snapshot

MOST = 30  # runs or snapshots in a chart
_USUAL = 8  # snapshots that the usual number of users is the median of
_LEAST_USUAL = 3
_HEIGHT = 120


def daily_runs(facts: Facts) -> list[Run]:
    """Return the last daily runs, in order."""
    return [run for run in facts.runs if run.is_daily][-MOST:]


def daily_times(facts: Facts) -> Markup:
    """Draw the duration of the last daily runs, and the duration that was expected at their start."""
    runs = daily_runs(facts)
    at = [(k + 0.5) / len(runs) for k in range(len(runs))]
    length, unit = _unit(max(max(run.seconds, run.expected_seconds or 0) for run in runs))
    expected = [
        (x, Mark(run.expected_seconds / length, f"{run.run_id}: {seconds(run.expected_seconds)} expected", "rest"))
        for x, run in zip(at, runs, strict=True)
        if run.expected_seconds is not None
    ]
    actual = [
        Mark(run.seconds / length, f"{run.run_id}: {run.outcome} in {seconds(run.seconds)}", _css(run)) for run in runs
    ]
    series = [Series([x for x, _ in expected], [mark for _, mark in expected], "rest"), Series(at, actual)]
    names = [when(run.started_at) for run in runs]
    return lines(series, names, label="Daily run times", write=lambda value: f"{value:g} {unit}", height=_HEIGHT)


def _css(run: Run) -> str:
    return "bad" if run.outcome == "failed" else "c0"


def newest_snapshots(facts: Facts) -> list[Snapshot]:
    """Return the newest published revision of each date, in order."""
    published = sorted((s for s in facts.snapshots if s.state == "published"), key=lambda s: (s.as_of, s.revision))
    return list({snapshot.as_of: snapshot for snapshot in published}.values())


def snapshot_users(facts: Facts) -> Markup:
    """Draw the users of the last snapshots, and the usual number: the median of the 8 dates before."""
    snapshots = newest_snapshots(facts)
    num_users = [snapshot.num_users for snapshot in snapshots]
    usual = [_usual(num_users[max(0, k - _USUAL) : k]) for k in range(len(snapshots))]
    shown, at = snapshots[-MOST:], positions([snapshot.as_of for snapshot in snapshots[-MOST:]])
    marks = [Mark(s.num_users, f"{s.snapshot_id}: {count(s.num_users)} users") for s in shown]
    expected = [
        (x, Mark(num, f"{s.snapshot_id}: {count(num)} users usual", "rest"))
        for x, s, num in zip(at, shown, usual[-MOST:], strict=True)
        if num is not None
    ]
    series = [Series([x for x, _ in expected], [mark for _, mark in expected], "rest"), Series(at, marks)]
    return lines(series, [day(s.as_of) for s in shown], label="Users of each snapshot", write=short, height=_HEIGHT)


def _usual(before: Sequence[int]) -> float | None:
    return median(before) if len(before) >= _LEAST_USUAL else None


def ages(facts: Facts) -> list[tuple[Run, timedelta]]:
    """Return the last runs that found an available snapshot of the space, with the age of the newest one then.

    The age is counted from 00:00 UTC of the as-of date. Only snapshots that are still in the ledger are known.
    """
    known = [(s.available_at, s.as_of) for s in facts.snapshots if s.available_at is not None]
    found = []
    for run in facts.runs:
        dates = [as_of for available_at, as_of in known if available_at <= run.started_at]
        if dates:
            found.append((run, run.started_at - datetime.combine(max(dates), time())))
    return found[-MOST:]


def freshness(facts: Facts) -> Markup:
    """Draw the age of the newest available snapshot when each of the last runs started, with the limits on it."""
    found = ages(facts)
    limits = [(level, css) for level, css in ((WARN, "warn"), (BAD, "bad")) if level in facts.max_age]
    length, unit = _unit(max([*(age for _, age in found), *facts.max_age.values()]).total_seconds())

    def scaled(span: timedelta) -> float:
        return span.total_seconds() / length

    marks = [
        Mark(scaled(age), f"{run.run_id}, {when(run.started_at)} UTC: {scaled(age):.1f} {unit}") for run, age in found
    ]
    series = Series([(k + 0.5) / len(found) for k in range(len(found))], marks)
    return lines(
        [series], [when(run.started_at) for run, _ in found], label="Age of the snapshot at each run",
        write=lambda value: f"{value:g} {unit}", height=_HEIGHT,
        limits=[(scaled(facts.max_age[level]), css) for level, css in limits],
    )  # fmt: skip


def _unit(largest: float) -> tuple[float, str]:
    """Return the unit of an axis up to ``largest`` seconds: its length in seconds and its name."""
    units = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))
    return next(((length, name) for length, name in units if largest >= 4 * length), (1.0, "s"))
