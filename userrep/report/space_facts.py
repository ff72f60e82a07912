"""Reads what was measured on a space: training, drift, evaluation and results of the example consumer."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import TypeVar

from pyspark.sql import Row

from userrep.config import Config
from userrep.errors import ArtifactError
from userrep.model.artifact import load_artifact
from userrep.model.self_check import SelfCheck
from userrep.spaces.registry import Space, artifact_folder
from userrep.store import schemas
from userrep.store.tables import Tables
from userrep.store.vector_storage import STORED

_MOST_INPUTS = 8  # inputs that are listed, those that drifted most
_MOST_KINDS = 8  # kinds of blocks that are listed, those with the largest losses
Record = TypeVar("Record", "Outcome", "DriftPoint", "Figure")


@dataclass(frozen=True)
class Outcome:
    """Result of the example consumer with one input. All inputs are tested on the same rows."""

    input: str
    dims: int
    auc: float
    num_test: int


@dataclass(frozen=True)
class TrainingFacts:
    """The training of a space. ``curve``: losses by epoch. ``metrics``: losses of the kept epoch, and the cost."""

    created_at: datetime
    num_inputs: int
    num_blocks: int
    latent_dim: int
    curve: Sequence[Mapping[str, float]]
    metrics: Mapping[str, float]
    self_check: SelfCheck | None = None

    @property
    def is_validated(self) -> bool:
        """Whether the loss was measured on held-out users."""
        return "valid_users_loss" in self.metrics

    @property
    def losses(self) -> list[tuple[str, list[float | None]]]:
        """Losses of all blocks together and of each: on training rows, held-out users and later dates."""
        names = dict.fromkeys("." + name.split(".", 1)[1] for name in self.metrics if "." in name)
        kinds = ("train_loss", "valid_users_loss", "valid_dates_loss")
        return [
            (name.removeprefix(".") or "all", [self.metrics.get(kind + name) for kind in kinds])
            for name in (["", *names] if names else [])
        ]

    @property
    def largest_losses(self) -> list[tuple[str, float]]:
        """The kinds of blocks with the largest losses. The loss of a kind is the mean over its windows.

        Kinds with a negative loss are left out. That is the next-item loss, which is negative for any useful model.
        """
        prefix = "valid_users_loss." if self.is_validated else "train_loss."
        kinds: dict[str, list[float]] = {}
        for name, value in self.metrics.items():
            if name.startswith(prefix):
                kinds.setdefault(re.sub(r"_\d+d$", "", name.removeprefix(prefix)), []).append(value)
        means = {kind: sum(values) / len(values) for kind, values in kinds.items()}
        positive = [(kind, mean) for kind, mean in means.items() if mean > 0]
        return sorted(positive, key=lambda pair: -pair[1])[:_MOST_KINDS]


@dataclass(frozen=True)
class DriftPoint:
    """A drift metric of one snapshot compared with the previous one."""

    as_of: date
    snapshot_id: str
    value: float
    outcome: str


@dataclass(frozen=True)
class DriftFacts:
    """Drift metrics over time, their limits (None: no limit), and the inputs that moved most in the newest snapshot."""

    points: Mapping[str, Sequence[DriftPoint]]
    warn: Mapping[str, float | None]
    fail: Mapping[str, float | None]
    inputs: Mapping[str, float]

    @property
    def newest_first(self) -> list[tuple[str, DriftPoint]]:
        """The points of each metric with its name."""
        return [(metric, point) for metric, points in self.points.items() for point in reversed(points)]

    @property
    def newest(self) -> dict[str, DriftPoint]:
        """The points of the newest date, by metric."""
        last = {metric: points[-1] for metric, points in self.points.items()}
        as_of = max(point.as_of for point in last.values())
        return {metric: point for metric, point in last.items() if point.as_of == as_of}

    @property
    def moved(self) -> dict[str, DriftPoint]:
        """The points of ``newest`` past a limit."""
        return {metric: point for metric, point in self.newest.items() if point.outcome != "ok"}

    @property
    def worst(self) -> str:
        """The worst outcome of ``newest``: ok, warn or fail."""
        return max((point.outcome for point in self.newest.values()), key=("ok", "warn", "fail").index)


@dataclass(frozen=True)
class Figure:
    """A representation on a task, with its 90% interval.

    ``ahead_by``: how far the embedding is ahead of it, or None for the embedding itself.
    """

    representation: str
    value: float
    low: float
    high: float
    ahead_by: float | None
    ahead_low: float | None
    ahead_high: float | None


@dataclass(frozen=True)
class TaskFacts:
    """All representations on a task, by the task's first metric.

    ``touched``: whether the space was trained with prediction heads whose labels resemble the task's; None if unknown.
    """

    task: str
    metric: str
    num_test: int
    touched: bool | None
    figures: Sequence[Figure]

    @property
    def nearest(self) -> Figure | None:
        """The other representation with the smallest lead of the embedding, if there is one."""
        others = [f for f in self.figures if f.ahead_by is not None and not f.representation.startswith(STORED)]
        return min(others, key=lambda figure: figure.ahead_by or 0.0, default=None)

    @property
    def verdict(self) -> str:
        """How the embedding compares with the best other: ahead, behind, or tied (the interval contains 0)."""
        low, high = (self.nearest.ahead_low, self.nearest.ahead_high) if self.nearest else (None, None)
        return "ahead" if low is not None and low > 0 else "behind" if high is not None and high < 0 else "tied"


@dataclass(frozen=True)
class EvaluationFacts:
    """The newest evaluation of a space."""

    evaluation_id: str
    evaluated_at: datetime
    tasks: Sequence[TaskFacts]

    @property
    def results(self) -> list[tuple[TaskFacts, Figure]]:
        """Each representation of each task."""
        return [(task, figure) for task in self.tasks for figure in task.figures]


def _record(kind: type[Record], row: Row) -> Record:
    """Return the columns of a ledger's row that a record has."""
    return kind(**{field.name: row[field.name] for field in fields(kind)})


def training_facts(tables: Tables, space: Space) -> tuple[TrainingFacts | None, str | None]:
    """Read the training from the space's artifact; return (facts, None), or (None, reason) if it cannot be read."""
    try:
        manifest = load_artifact(artifact_folder(tables, space), space.content_hash).manifest
    except ArtifactError as error:
        return None, str(error)
    created_at, layout = manifest.created_at.replace(tzinfo=None), manifest.layout
    sizes = layout.width, len(layout.blocks), manifest.model.latent_dim
    return TrainingFacts(created_at, *sizes, manifest.curve, manifest.metrics, manifest.self_check), None


def drift_facts(tables: Tables, config: Config, space: Space) -> DriftFacts | None:
    """Read the drift metrics over time, and how far each input moved in the newest snapshot."""
    rows = tables.ledger(schemas.SNAPSHOT_DRIFT, space_id=space.space_id, part="")
    if not rows:
        return None
    warn, fail = config.drift.warn.model_dump(), config.drift.fail.model_dump()
    points: dict[str, list[DriftPoint]] = {name: [] for name in warn}
    in_order = sorted(rows, key=lambda row: (row.as_of, len(row.snapshot_id), row.snapshot_id))  # r9 before r10
    for row in in_order:
        points.setdefault(row.metric, []).append(_record(DriftPoint, row))
    parts = tables.ledger(schemas.SNAPSHOT_DRIFT, snapshot_id=in_order[-1].snapshot_id, metric="psi")
    inputs = sorted(((row.part, row.value) for row in parts if row.part), key=lambda pair: -pair[1])
    measured = {name: metric_points for name, metric_points in points.items() if metric_points}
    return DriftFacts(measured, warn, fail, dict(inputs[:_MOST_INPUTS]))


def evaluation_facts(tables: Tables, space: Space) -> EvaluationFacts | None:
    """Read the newest evaluation of a space, by the first metric of each task, which is its main metric."""
    rows = tables.ledger(schemas.SPACE_METRICS, space_id=space.space_id)
    if not rows:
        return None
    newest = max(rows, key=lambda row: row.evaluated_at)
    touched = _touched(tables, newest.evaluation_id)
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        if row.evaluation_id == newest.evaluation_id:
            by_task.setdefault(row.task, []).append(row)
    tasks = []
    for task, (first, *others) in by_task.items():
        figures = [_record(Figure, row) for row in (first, *others) if row.metric == first.metric]
        is_touched = None if touched is None else task in touched
        tasks.append(TaskFacts(task, first.metric, first.num_test, is_touched, figures))
    return EvaluationFacts(newest.evaluation_id, newest.evaluated_at, tasks)


def _touched(tables: Tables, evaluation_id: str) -> set[str] | None:
    """Return the tasks whose labels resemble those of the space's prediction heads, or None if not recorded."""
    for row in tables.ledger(schemas.JOB_RUNS, ("outputs",), stage="evaluate_space", outcome="done"):
        outputs = json.loads(row.outputs)
        if outputs.get("evaluation_id") == evaluation_id and "touched_by_training_heads" in outputs:
            return set(outputs["touched_by_training_heads"])
    return None


def outcomes(tables: Tables, space: Space) -> list[Outcome]:
    """Return the results of the example consumer's last training on a space."""
    rows = tables.ledger(schemas.CONSUMER_RESULTS, space_id=space.space_id)
    last = max((row.trained_at for row in rows), default=None)
    return [_record(Outcome, row) for row in rows if row.trained_at == last]
