"""Charts about a root as SVG: its log, runs, snapshots and cost."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from userrep.errors import plural
from userrep.report.charts import Mark, Row, Series, bars, columns, lines
from userrep.report.facts import Facts
from userrep.report.formats import core_time, count, day, seconds, share, short, size, when
from userrep.report.log_days import Day

_MOST_COLUMNS = 190
_OUTCOMES = {"done": "c0", "skipped": "rest", "failed": "bad"}


def events_by_day(days: Sequence[Day]) -> tuple[Markup, str]:
    """Draw the number of events over time; return the chart and the unit of a column.

    The unit is a day, or for long logs a week or four weeks.
    """
    width, unit = next(
        ((w, u) for w, u in ((1, "day"), (7, "week")) if len(days) <= w * _MOST_COLUMNS), (28, "4 weeks")
    )
    first = len(days) % width  # days in the first column, so that the last column is complete
    groups = [days[:first]] * bool(first) + [days[k : k + width] for k in range(first, len(days), width)]
    marks = [
        Mark(
            sum(log_day.num_events for log_day in group),
            _span(group) + f": {count(sum(log_day.num_events for log_day in group))} events, "
            f"{count(sum(log_day.num_rejected for log_day in group))} rows rejected" + _irregularities(group),
            is_marked=any(log_day.is_small for log_day in group),
        )
        for group in groups
    ]
    drawn = columns(marks, [day(group[0].day) for group in groups], label=f"Events by {unit}", write=short)
    return drawn, unit


def rejected_rows(facts: Facts) -> Markup:
    """Draw the rejected rows by reason as shares of all rows. A bar of full width is the limit of a day."""
    limit, num_rows = facts.log.max_rejected_share, facts.log.num_events + sum(facts.log.rejected.values())
    rows = [
        Row(reason, num / num_rows, share(num / num_rows), f"{reason}: {count(num)} of {count(num_rows)} rows",
            "bad" if num / num_rows > limit else "c1")
        for reason, num in facts.log.rejected.items()
    ]  # fmt: skip
    return bars(rows, label="Rejected rows by reason", top=limit)


def run_times(facts: Facts) -> Markup:
    """Draw the duration of each run on a logarithmic scale."""
    runs = facts.runs
    ticks = [math.log10(tick) for tick in (1, 10, 60, 600, 3600, 36_000)]
    marks = [
        Mark(
            math.log10(max(1.0, run.seconds)),
            f"{run.run_id}, {when(run.started_at)} UTC: {run.outcome} in {seconds(run.seconds)}; "
            + (", ".join(run.stages) or "up to date"),
            _OUTCOMES[run.outcome],
        )
        for run in runs
    ]
    series = Series([(k + 0.5) / len(runs) for k in range(len(runs))], marks)
    names = [when(run.started_at) for run in runs]
    return lines([series], names, label="Run times", write=_duration, ticks=ticks, height=130, is_joined=False)


def run_stages(facts: Facts) -> Markup:
    """Draw the duration of each stage of the latest daily or pipeline run."""
    rows = [
        Row(
            stage.stage, stage.seconds, seconds(stage.seconds), f"{stage.stage}: {stage.outcome}. {stage.reason}",
            _OUTCOMES[stage.outcome],
        )
        for stage in facts.night
    ]  # fmt: skip
    return bars(rows, label="Seconds by stage")


def stage_costs(facts: Facts, *, training: bool) -> Markup:
    """Draw the core hours by stage, of the last training or of the latest daily run."""
    if training:
        stages, css = facts.training_stages, "c2"
    else:
        stages, css = [stage for stage in facts.night if stage.core_hours], "c0"
    largest = max((stage.core_hours or 0 for stage in stages), default=0)
    rows = [
        Row(stage.stage, stage.core_hours or 0, core_time(stage.core_hours or 0, largest),
            f"{stage.stage}: {size(stage.shuffle_bytes)} shuffled, {seconds(stage.seconds)} elapsed", css)
        for stage in stages
    ]  # fmt: skip
    return bars(rows, label="Core hours by stage")


def stored_tables(facts: Facts) -> Markup:
    """Draw the sizes of the ten largest tables."""
    rows = [Row(name, num_bytes, size(num_bytes), css="c4") for name, num_bytes in [*facts.storage.items()][:10]]
    return bars(rows, label="Bytes by table")


def _span(group: Sequence[Day]) -> str:
    return str(group[0].day) if len(group) == 1 else f"{group[0].day} to {group[-1].day}"


def _irregularities(group: Sequence[Day]) -> str:
    num_missing, num_small = sum(log_day.is_missing for log_day in group), sum(log_day.is_small for log_day in group)
    return (f"; {plural(num_missing, 'day')} missing" if num_missing else "") + (
        f"; {num_small} far smaller than usual" if num_small else ""
    )


def _duration(log_seconds: float) -> str:
    number = round(10**log_seconds)
    return f"{number} s" if number < 60 else seconds(number)
