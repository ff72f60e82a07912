"""Hand-made facts for reports: a healthy root, and one with hostile texts everywhere."""

import json
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np

from userrep.explanations.explain import ModelExplanation, SpaceExplanation
from userrep.explanations.item_effects import LabelEffect
from userrep.explanations.readings import Reading
from userrep.report.explained import ExplanationFacts
from userrep.report.facts import BAD, WARN, Facts, Run, SpaceFacts, Stage
from userrep.report.file import page
from userrep.report.log_facts import Day, LogFacts
from userrep.report.space_facts import (
    DriftFacts,
    DriftPoint,
    EvaluationFacts,
    Figure,
    Outcome,
    TaskFacts,
    TrainingFacts,
)
from userrep.report.summary import summarised
from userrep.report.user_map import Group, MapFacts
from userrep.spaces.registry_state import Consumer
from userrep.spaces.snapshots import Snapshot

FIRST, LAST = date(2024, 1, 1), date(2024, 5, 30)
NOW = datetime(2024, 5, 31, 8)
SPACE = "s001-4f09a1"
HOSTILE = "</title></style></svg><script>alert('x')</script><img src=x onerror=\"alert(1)\">`&{{ 7*7 }}"


def stage(
    name: str, *, outcome: str = "done", run_id: str = "r2", hours: float | None = 0.01, reason: str = ""
) -> Stage:
    return Stage(
        run_id, name, name, outcome, reason, NOW, 12.5, 1000, hours, 5000, {"tile_days": 3}, "c0ffee", "facade"
    )


def a_day(k: int, **more: Any) -> Day:
    """Return day k of a log with a weekly pattern."""
    num = 1000 + 200 * (k % 7)
    return replace(Day(FIRST + timedelta(days=k), num, 2, is_missing=False, usual=num if k > 20 else None), **more)


def a_space(**more: Any) -> SpaceFacts:
    return replace(
        SpaceFacts(
            SPACE,
            "serving",
            "serving",
            date(2024, 4, 1),
            NOW,
            3,
            LAST + timedelta(days=1),
            950,
            LAST + timedelta(days=1),
            NOW,
            [],
        ),
        **more,
    )


def a_snapshot(as_of: date = LAST, *, faults: Sequence[str] = (), **more: Any) -> Snapshot:
    gates = json.dumps({"faults": list(faults)})
    made = Snapshot(f"{SPACE}-{as_of:%Y%m%d}-r1", SPACE, as_of, 1, "published", "", 950, NOW, NOW, gates)
    return replace(made, **more)


def drift(value: float = 0.05, outcome: str = "ok") -> DriftFacts:
    """Return the drift of ten days, with this psi on the last day."""
    days = [LAST - timedelta(days=k) for k in range(9, -1, -1)]
    values = {"psi": [*np.linspace(0.02, 0.05, 9), value], "new_share": [0.01] * 10}
    points = {
        name: [DriftPoint(day, f"x{day}", of, outcome if day == LAST and name == "psi" else "ok")
               for day, of in zip(days, found, strict=True)]
        for name, found in values.items()
    }  # fmt: skip
    return DriftFacts(
        points, {"psi": 0.25, "new_share": 0.2}, {"psi": None, "new_share": None}, {"num_events_7d": 0.04}
    )


def a_task(name: str, ahead: tuple[float, float, float], *, touched: bool | None = False) -> TaskFacts:
    """Return a task with this lead of the embedding over the best other representation."""
    figures = [
        Figure("embedding", 0.8, 0.78, 0.82, None, None, None),
        Figure("counts", 0.8 - ahead[0], 0.7, 0.8, *ahead),
        Figure("popularity", 0.5, float("nan"), float("nan"), 0.3, 0.28, 0.32),
    ]
    return TaskFacts(name, "auc", 500, touched, figures)


def explanation() -> ExplanationFacts:
    """Return a space with one readable block, one model, and two segments."""
    blocks = [Reading("num_events_7d", "scalar", 1, 500, 0.9), Reading("weekday_7d", "shares", 7, 500, None)]
    labels = [LabelEffect("tea", 9, 0.5, 0.2), LabelEffect("beer", 8, -0.5, -0.2)]
    shares = {"num_events_7d": 0.8, "weekday_7d": -0.1}
    inputs = SpaceExplanation(SPACE, "x", LAST, 500, 100, blocks)
    model = ModelExplanation(SPACE, "x", LAST, 500, 100, 0.0, 1.0, shares, 0.3, labels)
    segments = [
        {"segment": "s01", "name": "tea", "num_users": 300, "share": 0.6, "is_new": False},
        {"segment": "s03", "name": "beer", "num_users": 200, "share": 0.4, "is_new": True},
    ]
    moves = [{"before": "s01", "now": "s03", "num_users": 12}, {"before": None, "now": "s01", "num_users": 3}]
    return ExplanationFacts(inputs, None, {"model.json": model}, "x", segments, moves)


def facts(**more: Any) -> Facts:
    """Return the facts of a healthy root, with ``more`` replaced."""
    rng = np.random.default_rng(2)
    points = [(float(x), float(y)) for x, y in rng.uniform(-1, 1, size=(200, 2)).round(3)]
    curve = [{"epoch": k, "train_loss": 3 / k, "valid_users_loss": 3 / k + 0.1} for k in range(1, 6)]
    last = {"train_loss": 0.75, "valid_users_loss": 0.85, "valid_users_loss.behaviour_7d": 0.2}
    tasks = [a_task("return_7d", (0.1, 0.05, 0.15)), a_task("next_item", (0.01, -0.02, 0.04))]
    groups = [Group("1 to 2", points[:150]), Group("3 to 9", points[150:])]
    well = Facts(
        made_at=NOW,
        root="/data/userrep",
        config="conf/mine.yaml",
        space_id=SPACE,
        runs=[Run("r1", NOW, 700.0, "done", ["train_autoencoder"]), Run("r2", NOW, 40.0, "done", ["embed_users"])],
        newest=[stage("train_autoencoder", run_id="r1"), stage("embed_users")],
        latest_run=[stage("refresh_user_features"), stage("train_item_vectors", outcome="skipped", hours=None)],
        latest_run_is_daily=True,
        log=LogFacts([a_day(k) for k in range((LAST - FIRST).days + 1)], {"missing_user_id": 302}, 0.05),
        spaces=[a_space()],
        snapshots=[a_snapshot(LAST - timedelta(days=k)) for k in (14, 7, -1)],
        consumers=[Consumer("ads", "team-a", NOW, NOW, ready_for=SPACE)],
        outcomes=[Outcome("embedding", 120, 0.84, 400), Outcome("recency", 2, 0.8, 400)],
        training=TrainingFacts(
            NOW, 307, 26, 120, curve, last | {"epochs": 5.0, "best_epoch": 4.0, "seconds": 90.0}
        ),
        artifact_fault=None,
        drift=drift(),
        evaluation=EvaluationFacts("e1", NOW, tasks),
        user_map=MapFacts("x", LAST, 950, (0.2, 0.1), "events in 30 days", groups),
        explanation=explanation(),
        training_stages=[stage("train_autoencoder", run_id="r1")],
        storage={"user_embeddings": 12_345_678, "job_runs": 900},
        requests=[],
        max_age={WARN: timedelta(hours=26), BAD: timedelta(hours=50)},
    )  # fmt: skip
    return replace(well, **more)


def nothing() -> Facts:
    """Return the facts of a root whose first stage failed."""
    failed = stage("build_activity_tiles", outcome="failed", reason="no such folder")
    return facts(
        space_id=None, runs=[Run("r1", NOW, 1.0, "failed", [])], newest=[failed], latest_run=[],
        latest_run_is_daily=False,
        log=LogFacts([], {}, 0.05), spaces=[], snapshots=[], consumers=[], outcomes=[], training=None, drift=None,
        evaluation=None, user_map=None, explanation=None, training_stages=[], storage={},
    )  # fmt: skip


def bar_chart(label: str, known: Facts) -> list[str]:
    """Return the charts of the page with a label, as text."""
    text = page(known, summarised(known))
    return re.findall(rf'aria-label="{label}">(.*?)\n</div>\n', text, re.DOTALL)


def hostile(value: Any) -> Any:
    """Return facts in which all texts, including keys, are hostile, except words that the report itself chooses.

    Such words are the names of fields, and the keys of dicts in a list.
    """
    if is_dataclass(value):
        own = {"outcome", "state", "level", "space_id", "in_use", "curve", "metrics"}
        texts = {field.name: hostile(getattr(value, field.name)) for field in fields(value) if field.name not in own}
        return replace(value, **texts)  # type: ignore[type-var]
    if isinstance(value, str) and value.startswith('{"faults"'):
        return json.dumps({"faults": hostile(json.loads(value)["faults"] or ["few rows"])})
    if isinstance(value, str):
        return f"{HOSTILE}{value}"
    if isinstance(value, dict):
        return {f"{HOSTILE}{key}": hostile(part) for key, part in value.items()}
    if isinstance(value, list):
        return [
            {key: hostile(part) for key, part in row.items()} if isinstance(row, dict) else hostile(row)
            for row in value
        ]
    return value
