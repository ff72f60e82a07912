"""What a report reads of one space: its training, drift, evaluation and first consumer."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import add_spaces
from tests.unit.inference.test_model import layout_of, saved
from tests.unit.report.test_report_gather import a_metric, a_run
from userrep.config import Config
from userrep.report.space_facts import drift_facts, evaluation_facts, outcomes, training_facts
from userrep.spaces.registry import Space, artifact_folder, find_space
from userrep.store.open import open_tables
from userrep.store.schemas import CONSUMER_RESULTS, JOB_RUNS, SNAPSHOT_DRIFT, SPACE_METRICS
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

NOW = datetime(2024, 5, 1, 12)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path, drift={"warn": {"psi": 0.3}, "fail": {"psi": 0.6}})


@pytest.fixture
def tables(config: Config) -> Tables:
    return open_tables(config, None)


@pytest.fixture
def space(tables: Tables, config: Config) -> Space:
    manifest = saved(Path(str(config.root)), space_id="s001-a", is_space=True)
    add_spaces(tables, "s001-a", content_hash=manifest.content_hash)
    return find_space(tables, "s001-a")


def a_drift(day: int, metric: str, value: float, *, part: str = "", revision: int = 1) -> dict[str, Any]:
    as_of = date(2024, 5, day)
    row = {"snapshot_id": f"s001-a-{as_of:%Y%m%d}-r{revision}", "space_id": "s001-a", "as_of": as_of, "before_id": "b"}
    row |= {"metric": metric, "part": part, "value": value, "measured_at": NOW}
    return row | {"outcome": None if part else "ok"}


def test_a_training_is_read_from_the_artifact(tables: Tables, space: Space) -> None:
    found, fault = training_facts(tables, space)
    assert fault is None
    assert found is not None
    layout = layout_of()
    assert (found.num_inputs, found.num_blocks, found.latent_dim) == (layout.width, len(layout.blocks), 16)
    assert (found.created_at, found.metrics, found.curve) == (datetime(2024, 1, 2), {"valid_loss": 0.1 + 0.2}, [])


def test_an_artifact_that_cannot_be_read_is_a_fault_of_the_report(tables: Tables, space: Space) -> None:
    (Path(artifact_folder(tables, space)) / "weights.safetensors").unlink()
    found, fault = training_facts(tables, space)
    assert found is None
    assert fault is not None
    assert "weights.safetensors: No such file" in fault


def test_drift_is_ordered_by_date_and_its_inputs_are_those_of_the_newest_snapshot(
    tables: Tables, config: Config, space: Space
) -> None:
    tables.add(SNAPSHOT_DRIFT, [
        a_drift(2, "psi", 0.4, revision=10), a_drift(2, "psi", 0.3, revision=9), a_drift(1, "psi", 0.1),
        a_drift(1, "new_share", 0.0),
        a_drift(2, "psi", 0.9, part="of revision 9", revision=9), a_drift(1, "psi", 0.9, part="of the day before"),
        *(a_drift(2, "psi", k / 100, part=f"input {k}", revision=10) for k in range(10)),
        a_drift(2, "error_growth", 0.9, part="flags", revision=10),
        a_drift(3, "psi", 9.0) | {"space_id": "s002-b"},
    ])  # fmt: skip
    found = drift_facts(tables, config, space)
    assert found is not None
    assert {name: [of.value for of in points] for name, points in found.points.items()} == {
        "new_share": [0.0], "psi": [0.1, 0.3, 0.4],
    }  # fmt: skip
    assert list(found.inputs.items()) == [(f"input {k}", k / 100) for k in range(9, 1, -1)]
    assert (found.warn["psi"], found.fail["psi"], found.fail["new_share"]) == (0.3, 0.6, None)


def test_a_space_that_nothing_was_measured_of_has_no_facts(tables: Tables, config: Config, space: Space) -> None:
    assert drift_facts(tables, config, space) is None
    assert evaluation_facts(tables, space) is None
    assert outcomes(tables, space) == []


def test_an_evaluation_is_the_newest_and_each_task_its_first_metric(tables: Tables, space: Space) -> None:
    elsewhere = {"space_id": "s002-b", "evaluated_at": datetime(2025, 1, 1)}
    tables.add(SPACE_METRICS, [
        a_metric("volume", "embedding", 0.8), a_metric("volume", "embedding", 0.5, metric="accuracy"),
        a_metric("volume", "counts", 0.7), a_metric("volume", "counts", 0.4, metric="accuracy"),
        a_metric("old", "embedding", 0.1, evaluation="e1"),
        a_metric("other space", "embedding", 0.1, evaluation="e3") | elsewhere,
    ])  # fmt: skip
    found = evaluation_facts(tables, space)
    assert found is not None
    assert (found.evaluation_id, found.evaluated_at) == ("e2", NOW)
    (task,) = found.tasks
    assert (task.task, task.metric, task.num_test, task.touched) == ("volume", "auc", 50, None)
    assert [(of.representation, of.value, of.low, of.high) for of in task.figures] == [
        ("embedding", 0.8, pytest.approx(0.79), pytest.approx(0.81)),
        ("counts", 0.7, pytest.approx(0.69), pytest.approx(0.71)),
    ]


def test_tasks_are_touched_by_what_the_run_of_the_same_evaluation_has_recorded(tables: Tables, space: Space) -> None:
    tables.add(SPACE_METRICS, [a_metric("volume", "embedding", 0.8), a_metric("next_item", "embedding", 0.8)])
    tables.add(JOB_RUNS, [
        a_run("evaluate_space", "r1", evaluation_id="e1", touched_by_training_heads=["volume"]),
        a_run("evaluate_space", "r2", outcome="failed", evaluation_id="e2", touched_by_training_heads=["volume"]),
        a_run("evaluate_space", "r3", evaluation_id="e2"),
        a_run("evaluate_space", "r4", evaluation_id="e2", touched_by_training_heads=["next_item"]),
    ])  # fmt: skip
    found = evaluation_facts(tables, space)
    assert found is not None
    assert {of.task: of.touched for of in found.tasks} == {"volume": False, "next_item": True}


def test_the_consumer_s_results_are_those_of_its_last_training(tables: Tables, space: Space) -> None:
    row = {"consumer": "return_propensity", "space_id": "s001-a", "inputs_hash": "h", "dims": 16, "num_train": 9}
    row |= {"num_test": 400, "snapshot_ids": [], "trained_at": NOW}
    tables.add(CONSUMER_RESULTS, [
        row | {"input": "embedding", "auc": 0.8}, row | {"input": "recency", "auc": 0.7, "dims": 2},
        row | {"input": "embedding", "auc": 0.1, "trained_at": NOW - timedelta(days=1)},
        row | {"input": "embedding", "auc": 0.2, "trained_at": NOW + timedelta(days=1), "space_id": "s002-b"},
    ])  # fmt: skip
    found = {of.input: (of.dims, of.auc, of.num_test) for of in outcomes(tables, space)}
    assert found == {"embedding": (16, 0.8, 400), "recency": (2, 0.7, 400)}
