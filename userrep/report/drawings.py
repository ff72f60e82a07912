"""The charts of a report that are about a root: its log, runs, snapshots and cost; a function each, to SVG."""

import math
from collections.abc import Sequence
from datetime import date

from markupsafe import Markup

from userrep.report.charts import Mark, Row, Series, bars, columns, lines, places
from userrep.report.facts import Day, Facts
from userrep.report.formats import (
    core_time,
    count,
    day,
    plural,
    seconds,
    share,
    short,
    size,
    when,
)

_MOST_COLUMNS = 190
_OUTCOMES = {"done": "c0", "skipped": "rest", "failed": "bad"}


def events_by_day(days: Sequence[Day]) -> tuple[Markup, str]:
    """Draw events by day, of long logs by week or four; return with it what a column is."""
    width, unit = next(
        ((w, u) for w, u in ((1, "day"), (7, "week")) if len(days) <= w * _MOST_COLUMNS), (28, "4 weeks")
    )
    first = len(days) % width  # days of the first column, so that the last one is whole
    groups = [days[:first]] * bool(first) + [days[k : k + width] for k in range(first, len(days), width)]
    marks = [
        Mark(
            sum(of.num_events for of in group),
            _span(group) + f": {count(sum(of.num_events for of in group))} events, "
            f"{count(sum(of.num_rejected for of in group))} rows rejected" + _oddities(group),
            is_marked=any(of.is_small for of in group),
        )
        for group in groups
    ]
    drawn = columns(marks, _thirds([of[0].day for of in groups]), label=f"Events by {unit}", write=short)
    return drawn, unit


def rejected_rows(facts: Facts) -> Markup:
    """Draw rejected rows by reason."""
    num_rows = facts.log.num_events + sum(facts.log.rejected.values())
    rows = [
        Row(reason, num, count(num), f"{share(num / num_rows)} of all rows", css="c1")
        for reason, num in facts.log.rejected.items()
    ]
    return bars(rows, label="Rejected rows by reason")


def snapshot_users(facts: Facts) -> Markup:
    """Draw the users of each published snapshot over its date."""
    newest = {of.as_of: of for of in facts.snapshots if of.state == "published"}
    marks = [Mark(of.num_users, f"{of.snapshot_id}: {count(of.num_users)} users") for of in newest.values()]
    series = Series("users", places(list(newest)), marks, "c0")
    return lines([series], _thirds(list(newest)), label="Users of each snapshot", write=short, height=120)


def run_times(facts: Facts) -> Markup:
    """Draw how long runs took, on a logarithmic scale."""
    runs = facts.runs
    ticks = [math.log10(of) for of in (1, 10, 60, 600, 3600, 36_000)]
    logs = [math.log10(max(1.0, of.seconds)) for of in runs]
    marks = [
        Mark(
            log,
            f"{of.run_id}, {when(of.started_at)} UTC: {of.outcome} in {seconds(of.seconds)}; "
            + (", ".join(of.stages) or "all up to date"),
            _OUTCOMES[of.outcome],
        )
        for of, log in zip(runs, logs, strict=True)
    ]
    series = Series("runs", [(k + 0.5) / len(runs) for k in range(len(runs))], marks, "c0")
    ends = [when(runs[0].started_at), when(runs[-1].started_at)] if len(runs) > 1 else [when(runs[0].started_at)]
    return lines([series], ends, label="How long runs took", write=_of_log, ticks=ticks, height=130, is_joined=False)


def night_stages(facts: Facts) -> Markup:
    """Draw how long the stages of the newest night took."""
    rows = [
        Row(of.stage, of.seconds, seconds(of.seconds), f"{of.stage}: {of.outcome}. {of.reason}", _OUTCOMES[of.outcome])
        for of in facts.night
    ]
    return bars(rows, label="Seconds by stage")


def stage_costs(facts: Facts, *, training: bool) -> Markup:
    """Draw core hours by stage, of the night or of the training."""
    stages, css = (facts.training_stages, "c2") if training else ([of for of in facts.night if of.core_hours], "c0")
    largest = max((of.core_hours or 0 for of in stages), default=0)
    rows = [
        Row(of.stage, of.core_hours or 0, core_time(of.core_hours or 0, largest),
            f"{of.stage}: {size(of.shuffle_bytes)} shuffled, {seconds(of.seconds)} by the clock", css)
        for of in stages
    ]  # fmt: skip
    return bars(rows, label="Core hours by stage")


def stored_tables(facts: Facts) -> Markup:
    """Draw the largest tables' sizes."""
    rows = [Row(of.name, of.num_bytes, size(of.num_bytes), css="c4") for of in facts.storage[:10]]
    return bars(rows, label="Bytes by table")


def _span(group: Sequence[Day]) -> str:
    return str(group[0].day) if len(group) == 1 else f"{group[0].day} to {group[-1].day}"


def _oddities(group: Sequence[Day]) -> str:
    missing, small = sum(of.is_missing for of in group), sum(of.is_small for of in group)
    return (f"; {plural(missing, 'day')} missing" if missing else "") + (
        f"; {small} far smaller than usual" if small else ""
    )


def _thirds(dates: Sequence[date]) -> list[str]:
    if len(dates) < 3:
        return [day(of) for of in dates]
    return [day(dates[0]), day(dates[len(dates) // 2]), day(dates[-1])]


def _of_log(value: float) -> str:
    number = round(10**value)
    return f"{number} s" if number < 60 else seconds(number)
