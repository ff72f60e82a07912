"""Rows of those tables at the end of a report that are not a list of the facts."""

from datetime import date

from userrep.report.facts import (
    Day,
    DriftFacts,
    DriftPoint,
    EvaluationFacts,
    Figure,
    LogFacts,
    TaskFacts,
    TrainingFacts,
)


def unusual_days(log: LogFacts) -> list[tuple[Day, date]]:
    """Return small days, days with rejected rows and gaps, the newest first: the first day, and the last date."""
    last_by_first = dict(log.gaps)
    return [
        (day, last_by_first.get(day.day, day.day))
        for day in reversed(log.days)
        if day.day in last_by_first or (not day.is_missing and (day.is_small or day.num_rejected))
    ]


def drift_points(drift: DriftFacts) -> list[tuple[str, DriftPoint]]:
    """Return the points of each metric, the newest first."""
    return [(metric, point) for metric, points in drift.points.items() for point in reversed(points)]


def results(evaluation: EvaluationFacts) -> list[tuple[TaskFacts, Figure]]:
    """Return each representation of each task."""
    return [(task, figure) for task in evaluation.tasks for figure in task.figures]


def block_losses(training: TrainingFacts) -> list[tuple[str, list[float | None]]]:
    """Return the losses of all blocks together and of each: on training rows, held-out users and later dates."""
    names = dict.fromkeys("." + name.split(".", 1)[1] for name in training.metrics if "." in name)
    kinds = ("train_loss", "valid_users_loss", "valid_dates_loss")
    return [
        (name.removeprefix(".") or "all", [training.metrics.get(kind + name) for kind in kinds])
        for name in (["", *names] if names else [])
    ]
