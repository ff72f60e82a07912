"""The charts of a report that are about a space: drift, evaluation, training, the map of its users."""

import math
import re
from collections.abc import Sequence

from markupsafe import Markup

from userrep.report.charts import Mark, Row, Series, bars, intervals, lines, places, scatter
from userrep.report.facts import DriftFacts, Facts, MapFacts, TaskFacts, TrainingFacts
from userrep.report.formats import count, day, figure, signed

_MOST_KINDS = 8
_OUTCOMES = {"ok": "c0", "warn": "warn", "fail": "bad"}
_CURVES = {
    "train_loss": ("training rows", "c0"),
    "valid_users_loss": ("users held out", "c1"),
    "valid_dates_loss": ("later dates", "c2"),
}


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
    series = Series(metric, places(dates), marks, "c0")
    return lines([series], ends, label=f"{metric} by date", write=_shortest, limits=limits, height=80)


def drifted_inputs(drift: DriftFacts) -> Markup:
    """Draw the inputs that moved most."""
    rows = [Row(name, value, _shortest(value)) for name, value in drift.inputs.items()]
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
    least = min(values) - 0.15 * (max(values) - min(values))
    least = max(0.0, least) if min(values) >= 0 else least  # the loss of the next items is below zero
    ends = [f"epoch {epochs[0]}", str(epochs[-1])] if len(epochs) > 1 else [f"epoch {epochs[0]}"]
    drawn = lines(series, ends, label="Losses by epoch", write=_shortest, least=least)
    return drawn, [(label, css) for _, label, css in named]


def kinds_of_loss(training: TrainingFacts) -> Markup:
    """Draw the mean loss of blocks that differ in their window only, for the kinds where it is largest.

    The loss of the next items, which is below zero for a model that knows anything, is in the curve only.
    """
    before = "valid_users_loss." if training.is_validated else "train_loss."
    kinds: dict[str, list[float]] = {}
    for name, value in training.metrics.items():
        if name.startswith(before):
            kinds.setdefault(re.sub(r"_\d+d$", "", name.removeprefix(before)), []).append(value)
    means = {kind: sum(values) / len(values) for kind, values in kinds.items()}
    largest = sorted(((kind, mean) for kind, mean in means.items() if mean > 0), key=lambda pair: -pair[1])
    rows = [Row(kind, mean, figure(mean), css="c1") for kind, mean in largest]
    return bars(rows[:_MOST_KINDS], label="Loss by kind of block")


def user_map(found: MapFacts) -> tuple[Markup, list[tuple[str, str]]]:
    """Draw the map of users; return with it the legend."""
    named = [(of, _colour(found, k)) for k, of in enumerate(found.groups)]
    drawn = scatter([(of.label, css, of.points) for of, css in named], label=f"Users by {found.coloured_by}")
    return drawn, [(f"{of.label} ({count(len(of.points))})", css) for of, css in named]


def _colour(found: MapFacts, place: int) -> str:
    if found.groups[place].label in ("other", "not known"):
        return "rest"
    if found.is_ordered:
        return f"s{round(6 * place / max(1, len(found.groups) - 1))}"
    return f"c{place}"


def _shortest(value: float) -> str:
    return f"{value:.3g}"
