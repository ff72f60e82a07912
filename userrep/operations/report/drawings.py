"""The charts of a report, one function each, from what it knows to SVG."""

import math
import re
from collections.abc import Sequence
from datetime import date

from markupsafe import Markup

from userrep.operations.report.charts import Mark, Row, Series, bars, columns, intervals, lines, scatter
from userrep.operations.report.facts import Day, DriftFacts, Facts, MapFacts, TaskFacts, TrainingFacts
from userrep.operations.report.formats import (
    core_hours,
    count,
    day,
    figure,
    plural,
    seconds,
    share,
    short,
    signed,
    size,
    when,
)

_MOST_COLUMNS = 190
_OUTCOMES = {"done": "c0", "skipped": "rest", "failed": "bad", "ok": "c0", "warn": "warn", "fail": "bad"}
_CURVES = {
    "train_loss": ("training rows", "c0"),
    "valid_users_loss": ("users held out", "c1"),
    "valid_dates_loss": ("later dates", "c2"),
}


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
    series = Series("users", _places(list(newest)), marks, "c0")
    return lines([series], _thirds(list(newest)), label="Users of each snapshot", write=short, height=120)


def drift_panel(drift: DriftFacts, metric: str) -> Markup:
    """Draw a metric over time under its limits."""
    points = drift.points[metric]
    marks = [
        Mark(of.value, f"{of.as_of}: {figure(of.value)} ({of.outcome})", _OUTCOMES.get(of.outcome, "c0"))
        for of in points
    ]
    limits = [
        (of, css) for of, css in ((drift.warn.get(metric), "warn"), (drift.fail.get(metric), "bad")) if of is not None
    ]
    dates = [of.as_of for of in points]
    ends = [day(dates[0])[5:], day(dates[-1])[5:]] if len(dates) > 1 else [day(dates[0])]
    series = Series(metric, _places(dates), marks, "c0")
    return lines([series], ends, label=f"{metric} by date", write=_shortest, limits=limits, height=80)


def drifted_inputs(drift: DriftFacts) -> Markup:
    """Draw the inputs that moved most."""
    rows = [Row(name, value, figure(value), css="c0") for name, value in drift.inputs.items()]
    return bars(rows, label="Population stability index by input")


def ahead(tasks: Sequence[TaskFacts]) -> Markup:
    """Draw, for each task, how far the embedding is ahead of the best of the others."""
    css = {"ahead": "ok", "behind": "bad", "level": "note"}
    rows = [
        Row(
            of.task + (" *" if of.touched else ""),
            of.nearest.ahead_by or 0.0,
            signed(of.nearest.ahead_by),
            f"{of.task}: {signed(of.nearest.ahead_by)} {of.metric} over {of.nearest.representation}, 90 % interval "
            f"{signed(of.nearest.ahead_low)} to {signed(of.nearest.ahead_high)}",
            css[of.verdict],
            of.nearest.ahead_low,
            of.nearest.ahead_high,
            f"{of.metric}, over {of.nearest.representation}",
        )
        for of in tasks
        if of.nearest is not None
    ]
    return intervals(rows, label="Ahead of the best other, by task", zero=True, write=lambda x: signed(x, 2))


def representations(task: TaskFacts) -> Markup:
    """Draw all representations at a task."""
    rows = [
        Row(
            of.representation,
            of.value,
            figure(of.value),
            f"{of.representation}: {figure(of.value)}, 90 % interval {figure(of.low)} to {figure(of.high)}",
            "c1" if of.ahead_by is None else "c0",
            of.low if math.isfinite(of.low) else None,
            of.high if math.isfinite(of.high) else None,
        )
        for of in sorted(task.figures, key=lambda of: -of.value)
    ]
    return intervals(rows, label=f"{task.task}, {task.metric}", zero=False, write=lambda x: figure(x, 2))


def outcome_bars(facts: Facts) -> Markup:
    """Draw what the example consumer reached by input."""
    rows = [
        Row(
            of.input,
            of.auc,
            figure(of.auc, 4),
            css="c1" if of.input == "embedding" else "c0",
            note=f"{of.dims} numbers",
        )
        for of in facts.outcomes
    ]
    return intervals(rows, label="Return propensity, AUC by input", zero=False, write=lambda x: figure(x, 2))


def loss_curves(training: TrainingFacts) -> tuple[Markup, list[tuple[str, str]]]:
    """Draw total losses by epoch; return with it the legend."""
    named = [(name, *of) for name, of in _CURVES.items() if all(name in row for row in training.curve)]
    epochs = [int(row["epoch"]) for row in training.curve]
    best = training.metrics.get("best_epoch")
    series = [
        Series(
            label,
            [k / max(1, len(epochs) - 1) for k in range(len(epochs))],
            [
                Mark(row[name], f"epoch {epoch}{', kept' if epoch == best else ''}: {figure(row[name])}, {label}", css)
                for epoch, row in zip(epochs, training.curve, strict=True)
            ],
            css,
        )
        for name, label, css in named
    ]
    values = [mark.value for of in series for mark in of.marks]
    least = max(0.0, min(values) - 0.15 * (max(values) - min(values)))
    ends = [f"epoch {epochs[0]}", str(epochs[-1])] if len(epochs) > 1 else [f"epoch {epochs[0]}"]
    drawn = lines(series, ends, label="Losses by epoch", write=_shortest, least=least)
    return drawn, [(label, css) for _, label, css in named]


def kinds_of_loss(training: TrainingFacts) -> Markup:
    """Draw the mean loss of blocks that differ in their window only."""
    before = "valid_users_loss." if training.is_validated else "train_loss."
    kinds: dict[str, list[float]] = {}
    for name, value in training.metrics.items():
        if name.startswith(before):
            kinds.setdefault(re.sub(r"_\d+d$", "", name.removeprefix(before)), []).append(value)
    means = {kind: sum(values) / len(values) for kind, values in kinds.items()}
    rows = [Row(kind, mean, figure(mean), css="c1") for kind, mean in sorted(means.items(), key=lambda of: -of[1])]
    return bars(rows, label="Loss by kind of block")


def user_map(found: MapFacts) -> tuple[Markup, list[tuple[str, str]]]:
    """Draw the map of users; return with it the legend."""
    named = [(of, _colour(found, k)) for k, of in enumerate(found.groups)]
    drawn = scatter([(of.label, css, of.points) for of, css in named], label=f"Users by {found.coloured_by}")
    return drawn, [(f"{of.label} ({count(len(of.points))})", css) for of, css in named]


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
    rows = [
        Row(of.stage, of.core_hours or 0, f"{core_hours(of.core_hours)} core h",
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


def _places(dates: Sequence[date]) -> list[float]:
    span = max(1, (dates[-1] - dates[0]).days) if dates else 1
    return [(of - dates[0]).days / span for of in dates]


def _thirds(dates: Sequence[date]) -> list[str]:
    if len(dates) < 3:
        return [day(of) for of in dates]
    return [day(dates[0]), day(dates[len(dates) // 2]), day(dates[-1])]


def _colour(found: MapFacts, place: int) -> str:
    if found.groups[place].label in ("other", "not known"):
        return "rest"
    if found.is_ordered:
        return f"s{round(6 * place / max(1, len(found.groups) - 1))}"
    return f"c{place}"


def _of_log(value: float) -> str:
    number = round(10**value)
    return f"{number} s" if number < 60 else seconds(number)


def _shortest(value: float) -> str:
    return f"{value:.3g}"
