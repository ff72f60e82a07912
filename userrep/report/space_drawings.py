"""Charts about a space as SVG: drift, evaluation, training and the map of its users."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from userrep.report.charts import Mark, Row, intervals, lines, positions, scatter
from userrep.report.facts import Facts
from userrep.report.formats import count, day, figure, signed
from userrep.report.space_facts import DriftFacts, TaskFacts, TrainingFacts
from userrep.report.user_map import UNKNOWN, MapFacts

if TYPE_CHECKING:
    from userrep.explanations.explain import ModelExplanation

_CHANCE = 0.5  # AUC of a guess
_OUTCOMES = {"ok": "c0", "warn": "warn", "fail": "bad"}
_CURVES = {
    "train_loss": ("training rows", "c0"),
    "valid_users_loss": ("held-out users", "c1"),
    "valid_dates_loss": ("later dates", "c2"),
}


def drift_panel(drift: DriftFacts, metric: str) -> Markup:
    """Draw a drift metric over time, with its limits."""
    points = drift.points[metric]
    marks = [
        Mark(each.value, f"{each.as_of}: {figure(each.value)} ({each.outcome})", _OUTCOMES.get(each.outcome, "c0"))
        for each in points
    ]
    dates = [point.as_of for point in points]
    names = [day(each)[5:] for each in dates] if len(dates) > 1 else [day(dates[0])]
    return lines(
        {"c0": marks}, names, positions=positions(dates), label=f"{metric} by date", write=_shortest,
        limits={"warn": drift.warn.get(metric), "bad": drift.fail.get(metric)}, height=80,
    )  # fmt: skip


def ahead(tasks: Sequence[TaskFacts]) -> Markup:
    """Draw, for each task, how far the embedding is ahead of the best other representation."""
    css = {"ahead": "ok", "behind": "bad", "tied": "note"}
    rows = [
        Row(task.task + (" *" if task.touched else ""), nearest.ahead_by or 0.0, signed(nearest.ahead_by),
            f"{task.task}: {signed(nearest.ahead_by)} {task.metric} over {nearest.representation}, 90% interval "
            f"{signed(nearest.ahead_low)} to {signed(nearest.ahead_high)}", css[task.verdict],
            nearest.ahead_low, nearest.ahead_high, f"{task.metric}, over {nearest.representation}")
        for task in tasks
        if (nearest := task.nearest) is not None
    ]  # fmt: skip
    return intervals(
        rows, label="Lead over the best other representation, by task", reference=0, write=lambda x: signed(x, 2)
    )


def representation_bars(task: TaskFacts) -> Markup:
    """Draw the metric of every representation on a task, the best first. An AUC has a line at chance."""
    rows = [
        Row(result.representation, result.value, figure(result.value),
            f"{result.representation}: {figure(result.value)}, 90% interval {figure(result.low)} to "
            f"{figure(result.high)}", "c1" if result.ahead_by is None else "c0",
            result.low, result.high)
        for result in sorted(task.figures, key=lambda result: -result.value)
    ]  # fmt: skip
    chance = _CHANCE if task.metric == "auc" else None
    return intervals(rows, label=f"{task.task}, {task.metric}", reference=chance, write=lambda x: figure(x, 2))


def outcome_bars(facts: Facts) -> Markup:
    """Draw the AUC of the example consumer by input, with a line at chance."""
    rows = [
        Row(outcome.input, outcome.auc, figure(outcome.auc, 4), note=f"{outcome.dims} numbers",
            css="c1" if outcome.input == "embedding" else "c0")
        for outcome in facts.outcomes
    ]  # fmt: skip
    return intervals(rows, label="Return propensity, AUC by input", reference=_CHANCE, write=lambda x: figure(x, 2))


def loss_curves(training: TrainingFacts) -> tuple[Markup, list[tuple[str, str]]]:
    """Draw the total losses by epoch; return the chart and its legend."""
    curves = {name: key for name, key in _CURVES.items() if all(name in row for row in training.curve)}
    epochs = [int(row["epoch"]) for row in training.curve]
    kept = training.metrics.get("best_epoch")
    titles = [f"epoch {epoch}{', kept' if epoch == kept else ''}" for epoch in epochs]
    places = [k / max(1, len(epochs) - 1) for k in range(len(epochs))]
    marks = {
        css: [
            Mark(row[name], f"{title}: {figure(row[name])}, {label}", css)
            for title, row in zip(titles, training.curve, strict=True)
        ]
        for name, (label, css) in curves.items()
    }
    values = [row[name] for row in training.curve for name in curves]
    least = min(values) - 0.15 * (max(values) - min(values))
    least = max(0.0, least) if min(values) >= 0 else least  # the next-item loss can be negative
    ends = [f"epoch {epochs[0]}", *map(str, epochs[1:])]
    drawn = lines(marks, ends, positions=places, label="Losses by epoch", write=_shortest, least=least)
    return drawn, [*curves.values()]


def user_map(facts: MapFacts) -> tuple[Markup, list[tuple[str, str]]]:
    """Draw the map of users; return the chart and its legend."""
    last = max(1, len(facts.groups) - 1)
    colored = [
        (group, "rest" if group.label == UNKNOWN else f"s{round(6 * k / last)}") for k, group in enumerate(facts.groups)
    ]
    drawn = scatter([(group.label, css, group.points) for group, css in colored], label=f"Users by {facts.coloured_by}")
    return drawn, [(f"{group.label} ({count(len(group.points))})", css) for group, css in colored]


def score_shares(explanation: "ModelExplanation") -> Markup:
    """Draw the shares of a score's variance by block, and the rest."""
    rows = [Row(name, value, figure(value)) for name, value in explanation.shares.items()]
    rows.append(Row("unexplained", explanation.unexplained, figure(explanation.unexplained), css="rest"))
    return intervals(rows, label="Shares of the score's variance", reference=0, write=lambda x: figure(x, 2))


def _shortest(value: float) -> str:
    return f"{value:.3g}"
