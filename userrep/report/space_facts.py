"""Reads what was measured on a space: training, drift, evaluation and results of the example consumer."""

import json

from pyspark.sql import Row

from userrep.config import Config
from userrep.errors import ArtifactError
from userrep.model.artifact import load_artifact
from userrep.report.facts import DriftFacts, DriftPoint, EvaluationFacts, Figure, Outcome, TaskFacts, TrainingFacts
from userrep.spaces.registry import Space, artifact_folder
from userrep.store import schemas
from userrep.store.tables import Tables

_MOST_INPUTS = 8  # inputs that are listed, those that drifted most


def training_facts(config: Config, space: Space | None) -> tuple[TrainingFacts | None, str | None]:
    """Read the training from the space's artifact; return (facts, None), or (None, reason) if it cannot be read."""
    if space is None:
        return None, None
    try:
        manifest = load_artifact(artifact_folder(config, space), space.content_hash).manifest
    except ArtifactError as error:
        return None, str(error)
    facts = TrainingFacts(
        created_at=manifest.created_at.replace(tzinfo=None),
        num_inputs=manifest.layout.width,
        num_blocks=len(manifest.layout.blocks),
        latent_dim=manifest.model.latent_dim,
        max_epochs=manifest.training.max_epochs,
        curve=manifest.curve,
        metrics=manifest.metrics,
        self_check=manifest.self_check,
    )
    return facts, None


def drift_facts(tables: Tables, config: Config, space: Space | None) -> DriftFacts | None:
    """Read the drift metrics over time, and how far each input moved in the newest snapshot."""
    rows = tables.ledger(schemas.SNAPSHOT_DRIFT, space_id=space.space_id, part="") if space else []
    if not rows:
        return None
    limits = config.drift.warn.model_dump(), config.drift.fail.model_dump()
    points: dict[str, list[DriftPoint]] = {name: [] for name in limits[0]}
    in_order = sorted(
        rows, key=lambda row: (row.as_of, len(row.snapshot_id), row.snapshot_id)
    )  # so that r9 sorts before r10
    for row in in_order:
        points.setdefault(row.metric, []).append(DriftPoint(row.as_of, row.snapshot_id, row.value, row.outcome))
    parts = tables.ledger(schemas.SNAPSHOT_DRIFT, snapshot_id=in_order[-1].snapshot_id, metric="psi")
    inputs = sorted(((row.part, row.value) for row in parts if row.part), key=lambda pair: -pair[1])
    measured = {name: metric_points for name, metric_points in points.items() if metric_points}
    return DriftFacts(measured, limits[0], limits[1], dict(inputs[:_MOST_INPUTS]))


def evaluation_facts(tables: Tables, space: Space | None) -> EvaluationFacts | None:
    """Read the newest evaluation of a space, by the first metric of each task, which is its main metric."""
    rows = tables.ledger(schemas.SPACE_METRICS, space_id=space.space_id) if space else []
    if not rows:
        return None
    newest = max(rows, key=lambda row: row.evaluated_at)
    touched = _touched(tables, newest.evaluation_id)
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        if row.evaluation_id == newest.evaluation_id:
            by_task.setdefault(row.task, []).append(row)
    tasks = []
    for task, task_rows in by_task.items():
        first = task_rows[0]
        figures = [
            Figure(
                row.representation, row.value, row.low, row.high, row.ahead_by, row.ahead_low, row.ahead_high
            )
            for row in task_rows
            if row.metric == first.metric
        ]  # fmt: skip
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


def outcomes(tables: Tables, space: Space | None) -> list[Outcome]:
    """Return the results of the example consumer's last training on a space."""
    rows = tables.ledger(schemas.CONSUMER_RESULTS, space_id=space.space_id) if space else []
    last = max((row.trained_at for row in rows), default=None)
    return [Outcome(row.input, row.dims, row.auc, row.num_test) for row in rows if row.trained_at == last]
