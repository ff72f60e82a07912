"""What a report finds in the ledgers of a root whose users are not embedded yet."""

import json
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import add_spaces, snapshot
from userrep.config import Config
from userrep.errors import UsageError
from userrep.report.facts import Facts
from userrep.report.gather import gather, reported_space
from userrep.report.state import read_state
from userrep.spaces.consumers import register_consumer
from userrep.spaces.registry import Space, find_space, mark_ready, promote
from userrep.spaces.snapshots import record_snapshots
from userrep.store.open import open_tables
from userrep.store.schemas import ERASURES, JOB_RUNS, REJECTED_EVENTS, SNAPSHOT_DRIFT, SPACE_METRICS, TILE_DAYS
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

NOW = datetime(2024, 5, 1, 12)


def a_run(stage: str, run_id: str, at: datetime = NOW, outcome: str = "done", **outputs: Any) -> dict[str, Any]:
    """Return a row of job_runs, of 1.8 core hours."""
    spark = {"task_seconds": 6480.0, "shuffle_bytes": 100}
    row = {"run_id": run_id, "stage": stage, "outcome": outcome, "reason": "", "started_at": at, "seconds": 3.0}
    row |= {"num_rows": 2, "inputs": '{"tile_days": 4}', "config_hash": "c", "code_hash": "h"}
    return row | {"outputs": json.dumps({"spark": spark, **outputs})}


def a_metric(
    task: str, representation: str, value: float, *, evaluation: str = "e2", metric: str = "auc"
) -> dict[str, Any]:
    """Return a row of space_metrics; the embedding's are 0.8."""
    is_other = representation != "embedding"
    row = {"evaluation_id": evaluation, "space_id": "s001-a", "task": task, "metric": metric}
    row |= {"representation": representation, "value": value, "low": value - 0.01, "high": value + 0.01}
    row |= {"value_by_seed": [value], "ahead_by": 0.8 - value if is_other else None}
    row |= {"ahead_low": 0.78 - value if is_other else None, "ahead_high": 0.82 - value if is_other else None}
    row |= {"share_ahead": None, "num_test": 50, "content_hash": "x", "config_hash": "c", "code_hash": "h"}
    return row | {"evaluated_at": NOW if evaluation == "e2" else datetime(2024, 4, 1)}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path)


@pytest.fixture
def tables(config: Config) -> Tables:
    return open_tables(config, None)


def gathered(tables: Tables, config: Config) -> Facts:
    state = read_state(tables, config)
    return gather(state, tables, config, reported_space(state, None, "c"), named="c")


def test_the_latest_run_evaluation_and_drift_are_read_from_ledgers(config: Config) -> None:
    tables = open_tables(config, None)
    add_spaces(tables, "s001-a")
    later, latest = datetime(2024, 5, 2), datetime(2024, 5, 3)
    tables.add(JOB_RUNS, [
        a_run("train_autoencoder", "r1"),
        a_run("refresh_user_features", "r2", later),
        a_run("embed_users", "r2", later, "skipped"),
        a_run("evaluate_space", "r3", latest, evaluation_id="e2", touched_by_training_heads=["next_item"]),
    ])  # fmt: skip
    tables.add(SPACE_METRICS, [
        a_metric("next_item", "embedding", 0.1, evaluation="e1"), a_metric("next_item", "embedding", 0.8),
        a_metric("next_item", "counts", 0.7), a_metric("next_item", "als", 0.795),
        a_metric("next_item", "embedding", 0.5, metric="accuracy"), a_metric("volume", "embedding", 0.8),
        a_metric("volume", "counts", 0.9),
    ])  # fmt: skip
    row = {"space_id": "s001-a", "before_id": "b", "measured_at": NOW}
    tables.add(SNAPSHOT_DRIFT, [
        row | {"snapshot_id": f"x{day}", "as_of": date(2024, 5, day), "metric": metric, "part": part, "value": value,
               "outcome": outcome}
        for day, metric, part, value, outcome in [
            (2, "psi", "", 0.3, "warn"), (1, "psi", "", 0.1, "ok"), (2, "new_share", "", 0.0, "ok"),
            (2, "psi", "num_events_7d", 0.3, None), (2, "psi", "weight_7d", 0.02, None), (1, "psi", "old", 0.9, None),
            (2, "mean_shift", "dimension 0", 0.9, None),
        ]
    ])  # fmt: skip
    found = gathered(tables, config)
    assert [(of.run_id, of.outcome, of.seconds) for of in found.runs] == [
        ("r1", "done", 3.0), ("r2", "done", 6.0), ("r3", "done", 3.0),
    ]  # fmt: skip
    assert [(of.stage, of.core_hours) for of in found.latest_run] == [
        ("refresh_user_features", 1.8),
        ("embed_users", 1.8),
    ]
    assert found.latest_run_is_daily
    assert [(of.stage, of.inputs) for of in found.training_stages] == [("train_autoencoder", {"tile_days": 4})]
    first, second = found.evaluation.tasks
    assert (first.task, first.metric, first.touched, len(first.figures)) == ("next_item", "auc", True, 3)
    assert (first.nearest.representation, first.verdict) == ("als", "tied")
    assert (second.touched, second.nearest.representation, second.verdict) == (False, "counts", "behind")
    assert [(of.as_of.day, of.value) for of in found.drift.points["psi"]] == [(1, 0.1), (2, 0.3)]
    assert found.drift.inputs == {"num_events_7d": 0.3, "weight_7d": 0.02}
    assert found.user_map is None
    assert found.artifact_fault is not None  # the space has no artifact at all
    assert {*found.storage} >= {"job_runs", "registry"}
    assert found.storage["job_runs"] > 0


def test_a_stage_that_failed_for_one_space_of_an_attempt_has_failed(config: Config) -> None:
    tables = open_tables(config, None)
    add_spaces(tables, "s001-a")
    minutes = [NOW + timedelta(minutes=k) for k in range(6)]
    stages = ["take_inventory", "embed_users", "embed_users"]
    tables.add(JOB_RUNS, [
        a_run(stage, "r1", minutes[k], outcome, command="daily")
        for k, (stage, outcome) in enumerate(zip(stages, ["done", "failed", "done"], strict=True))
    ])  # fmt: skip
    assert {stage.stage: stage.outcome for stage in gathered(tables, config).newest}["embed_users"] == "failed"
    tables.add(JOB_RUNS, [a_run(stage, "r1", minutes[3 + k], command="daily") for k, stage in enumerate(stages)])
    assert {stage.stage: stage.outcome for stage in gathered(tables, config).newest}["embed_users"] == "done"


def test_a_snapshot_that_was_refused_is_reported_with_its_reason(config: Config) -> None:
    tables = open_tables(config, None)
    add_spaces(tables, "s001-a")
    tables.add(JOB_RUNS, [a_run("train_autoencoder", "r1")])
    refused = snapshot(date(2024, 5, 2), state="refused")
    record_snapshots(tables, [type(refused)(**vars(refused) | {"gates": '{"faults": ["2 rows, expected 9"]}'})])
    found = gathered(tables, config)
    assert [each.facts["faults"] for each in found.snapshots] == [["2 rows, expected 9"]]
    assert not found.latest_run_is_daily


def test_the_stages_of_a_run_are_put_together_and_its_outcome_is_the_worst(tables: Tables, config: Config) -> None:
    minutes = [NOW + timedelta(minutes=k) for k in range(6)]
    tables.add(JOB_RUNS, [
        a_run("embed_users", "r2", minutes[4], "failed"), a_run("build_activity_tiles", "r2", minutes[3]),
        a_run("build_activity_tiles", "r1", minutes[0], "skipped"), a_run("embed_users", "r1", minutes[1], "skipped"),
        a_run("build_activity_tiles", "r3", minutes[2]), a_run("embed_users", "r3", minutes[5], "skipped"),
    ])  # fmt: skip
    found = gathered(tables, config)
    assert [(of.run_id, of.outcome, of.stages) for of in found.runs] == [
        ("r1", "skipped", []), ("r3", "done", ["build_activity_tiles"]),
        ("r2", "failed", ["build_activity_tiles", "embed_users"]),
    ]  # fmt: skip
    assert [(of.stage, of.run_id) for of in found.newest] == [("build_activity_tiles", "r2"), ("embed_users", "r3")]
    assert (found.latest_run, found.latest_run_is_daily, found.space_id) == ([], False, None)
    assert (found.training, found.artifact_fault, found.drift, found.evaluation) == (None, None, None, None)
    assert (found.snapshots, found.outcomes, found.user_map, found.explanation) == ((), (), None, None)


def test_a_run_that_was_repeated_under_its_id_has_the_outcome_of_its_last_attempt(
    tables: Tables, config: Config
) -> None:
    stages = [
        ("take_inventory", "done"),
        ("embed_users", "failed"),
        ("take_inventory", "done"),
        ("embed_users", "done"),
    ]
    minutes = [NOW + timedelta(minutes=k) for k in range(4)]
    tables.add(
        JOB_RUNS,
        [a_run(stage, "r1", at, end, command="daily") for (stage, end), at in zip(stages, minutes, strict=True)],
    )
    assert [run.outcome for run in gathered(tables, config).runs] == ["done"]
    tables.add(JOB_RUNS, [a_run("publish_snapshot", "r1", NOW + timedelta(minutes=5), "failed", command="daily")])
    assert [run.outcome for run in gathered(tables, config).runs] == ["failed"]


def test_the_latest_run_is_the_newest_daily_run_or_else_the_newest_pipeline(tables: Tables, config: Config) -> None:
    hours = [NOW + timedelta(hours=k) for k in range(5)]
    tables.add(JOB_RUNS, [a_run("train_autoencoder", "p2", hours[1]), a_run("train_autoencoder", "p1", hours[0])])
    found = gathered(tables, config)
    assert ([of.run_id for of in found.latest_run], found.latest_run_is_daily) == (["p2"], False)
    tables.add(JOB_RUNS, [
        a_run("refresh_user_features", "d2", hours[3]), a_run("embed_users", "d2", hours[3]),
        a_run("refresh_user_features", "d1", hours[2]), a_run("train_autoencoder", "p3", hours[4]),
    ])  # fmt: skip
    found = gathered(tables, config)
    assert ([of.run_id for of in found.latest_run], found.latest_run_is_daily) == (["d2", "d2"], True)


def test_a_daily_run_is_apart_from_the_other_parts_of_a_nightly_one(tables: Tables, config: Config) -> None:
    hours = [NOW + timedelta(hours=k) for k in range(3)]
    tables.add(JOB_RUNS, [
        a_run("refresh_user_features", "n1", hours[0], command="daily"),
        a_run("maintain_tables", "n1", hours[1]), a_run("train_autoencoder", "n1", hours[2], command="pipeline"),
    ])  # fmt: skip
    found = gathered(tables, config)
    assert [of.stage for of in found.latest_run] == ["refresh_user_features"]
    assert [(of.is_daily, of.seconds, of.stages) for of in found.runs] == [
        (True, 3.0, ["refresh_user_features"]), (False, 6.0, ["maintain_tables", "train_autoencoder"]),
    ]  # fmt: skip


def test_only_the_newest_sixty_runs_are_reported(tables: Tables, config: Config) -> None:
    tables.add(JOB_RUNS, [a_run("s", f"r{k}", NOW + timedelta(minutes=k)) for k in range(61)])
    assert [of.run_id for of in gathered(tables, config).runs] == [f"r{k}" for k in range(1, 61)]


def test_stages_without_counts_of_spark_have_no_core_hours(tables: Tables, config: Config) -> None:
    tables.add(JOB_RUNS, [a_run("counted", "r1"), a_run("not_counted", "r1") | {"outputs": "{}", "reason": None}])
    found = {of.stage: (of.core_hours, of.shuffle_bytes, of.reason) for of in gathered(tables, config).newest}
    assert found == {"counted": (1.8, 100, ""), "not_counted": (None, 0, "")}


def test_the_state_of_the_root_enters_the_report(tables: Tables, config: Config) -> None:
    day = date(2024, 5, 1)
    entry = {"event_date": day, "revision": 1, "fingerprint": "f", "content": "c", "built_at": NOW}
    tables.add(TILE_DAYS, [entry | {"num_events": 95, "num_tiles": 9, "num_rejected": 5}])
    rejected = {"event_date": day, "revision": 1, "reason": "missing_item_id", "row": "{}"}
    tables.add(REJECTED_EVENTS, [rejected] * 5)
    tables.add(JOB_RUNS, [a_run("s", "r1")])
    add_spaces(tables, "s001-a", "s002-b")
    mark_ready(tables, find_space(tables, "s001-a"))
    promote(tables, find_space(tables, "s001-a"))
    register_consumer(tables, "ads", owner="team")
    record_snapshots(tables, [snapshot(day, space="s001-a"), snapshot(day, state="expired", space="s002-b")])
    request = {"request_id": "q1", "state": "begun", "num_users": 2, "requested_at": NOW, "due_at": None}
    tables.add(ERASURES, [request | {"receipt": "{}", "recorded_at": NOW}])
    state = replace(read_state(tables, config), stale={"s001-a": [day]})
    found = gather(state, tables, config, None, named="c")
    assert (found.root, found.config) == (config.root, "c")
    assert [(s.space_id, s.in_use, s.num_snapshots, s.newest_as_of, s.stale) for s in found.spaces] == [
        ("s001-a", "serving", 1, day, [day]), ("s002-b", None, 0, None, []),
    ]  # fmt: skip
    assert [space.newest_users for space in found.spaces] == [snapshot(day).num_users, 0]
    assert (found.log.num_events, found.log.rejected_share, found.log.max_rejected_share) == (95, 0.05, 0.05)
    assert found.log.rejected == {"missing_item_id": 5}
    assert [(each.name, each.pinned_space_id, each.ready_for) for each in found.consumers] == [("ads", None, None)]
    assert [(of.request_id, of.num_users, of.due_at) for of in found.requests] == [("q1", 2, None)]
    sizes = [*found.storage.values()]
    assert sizes == sorted(sizes, reverse=True)


def test_a_report_is_about_the_space_asked_for_or_the_serving_one_or_the_newest(tables: Tables, config: Config) -> None:
    def reported(space_id: str | None) -> Space | None:
        return reported_space(read_state(tables, config), space_id, "c")

    with pytest.raises(
        UsageError, match=r"report: nothing has run yet\. Run `userrep pipeline --config c --as-of D` to create"
    ):
        reported(None)
    tables.add(JOB_RUNS, [a_run("s", "r1")])
    assert reported(None) is None

    def found(space_id: str | None) -> str:
        space = reported(space_id)
        assert space is not None
        return space.space_id

    add_spaces(tables, "s001-a", "s002-b", "s003-c")
    assert found(None) == "s003-c"
    mark_ready(tables, find_space(tables, "s002-b"))
    promote(tables, find_space(tables, "s002-b"))
    assert (found(None), found("s001-a"), found("serving")) == ("s002-b", "s001-a", "s002-b")
    with pytest.raises(UsageError, match="space s009: not in the registry"):
        found("s009")
