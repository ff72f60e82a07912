"""What a report finds in tables: of ledgers all, of users a sample without ids; and what the command refuses."""

import json
import shutil
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import SparkSession
from sklearn.decomposition import PCA

from tests.support.builders import config_of
from tests.support.command_line import Userrep, config_file
from tests.support.embedding_tables import add_spaces, snapshot
from userrep.config import Config
from userrep.operations.report.gather import check_reportable, gather
from userrep.operations.report.user_map import grouped, labelled, map_users, plane
from userrep.pipeline import Pipeline
from userrep.schemas import JOB_RUNS, SNAPSHOT_DRIFT, SPACE_METRICS
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import list_snapshots, record_snapshots
from userrep.tables import Tables

pytestmark = pytest.mark.default

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


STATE: dict[str, Any] = {"rejected": {}, "spaces": [], "erasures": []}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path)


def gathered(tables: Tables, config: Config, spark: SparkSession) -> Any:
    with_spark = Tables.of(config, spark)
    return gather(with_spark, config, check_reportable(tables, None, "c"), named="c", state=STATE)


def test_of_ledgers_the_newest_night_evaluation_and_drift_are_told(config: Config, spark: SparkSession) -> None:
    tables = Tables.of(config, None)
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
    found = gathered(tables, config, spark)
    assert [(of.run_id, of.outcome, of.seconds) for of in found.runs] == [
        ("r1", "done", 3.0), ("r2", "done", 6.0), ("r3", "done", 3.0),
    ]  # fmt: skip
    assert [(of.stage, of.core_hours) for of in found.night] == [("refresh_user_features", 1.8), ("embed_users", 1.8)]
    assert found.night_is_daily
    assert [(of.stage, of.inputs) for of in found.training_stages] == [("train_autoencoder", {"tile_days": 4})]
    first, second = found.evaluation.tasks
    assert (first.task, first.metric, first.touched, len(first.figures)) == ("next_item", "auc", True, 3)
    assert (first.nearest.representation, first.verdict) == ("als", "level")
    assert (second.touched, second.nearest.representation, second.verdict) == (False, "counts", "behind")
    assert [(of.as_of.day, of.value) for of in found.drift.points["psi"]] == [(1, 0.1), (2, 0.3)]
    assert found.drift.inputs == {"num_events_7d": 0.3, "weight_7d": 0.02}
    assert found.user_map is None
    assert found.artifact_fault is not None  # the space has no artifact at all
    assert {of.name for of in found.storage} >= {"job_runs", "registry"}
    assert all(of.num_bytes > 0 for of in found.storage if of.name == "job_runs")


def test_a_snapshot_that_was_refused_is_told_with_its_reason(config: Config, spark: SparkSession) -> None:
    tables = Tables.of(config, None)
    add_spaces(tables, "s001-a")
    tables.add(JOB_RUNS, [a_run("train_autoencoder", "r1")])
    refused = snapshot(date(2024, 5, 2), state="refused")
    record_snapshots(tables, [type(refused)(**vars(refused) | {"gates": '{"faults": ["2 rows, wanted 9"]}'})])
    found = gathered(tables, config, spark)
    assert [of.faults for of in found.snapshots] == [["2 rows, wanted 9"]]
    assert not found.night_is_daily


def test_the_page_of_a_whole_pipeline_has_every_part_and_no_user_id(
    userrep: Userrep,
    spark: SparkSession,
    log: Path,
    done: tuple[Pipeline, Config],
    tmp_path: Path,
) -> None:
    work, made = done
    root = tmp_path / "root"
    shutil.copytree(str(made.root), root)
    values = made.model_dump(mode="json", by_alias=True, exclude_unset=True) | {"root": str(root)}
    path, out = tmp_path / "mine.yaml", tmp_path / "out.html"
    path.write_text(yaml.safe_dump(values))
    before = {of: Tables(None, root=str(root)).version(of) for of in (JOB_RUNS,)}
    answer = userrep("report", "--config", path, "--out", out, "--json")
    assert answer.code == 0
    figures = json.loads(answer.out)
    assert figures == json.loads(out.with_suffix(".json").read_text())
    assert {of: Tables(None, root=str(root)).version(of) for of in (JOB_RUNS,)} == before  # a report is no run
    space = find_space(work.tables, None)
    assert figures["space_id"] == space.space_id
    assert figures["log"]["rejected"]
    assert len(figures["log"]["days"]) == 74
    curve, metrics = figures["training"]["curve"], figures["training"]["metrics"]
    assert [row["epoch"] for row in curve] == list(range(1, int(metrics["epochs"]) + 1))
    assert curve[int(metrics["best_epoch"]) - 1]["valid_loss"] == metrics["valid_loss"]
    groups = figures["user_map"]["groups"]
    assert sum(len(of["points"]) for of in groups) == figures["user_map"]["num_users"] <= 600
    assert figures["user_map"]["coloured_by"] == "country"
    users = set(pq.read_table(log / "users", columns=["user_id"])["user_id"].to_pylist())
    texts = out.read_text() + answer.out
    assert len(users) == 600
    assert [user for user in users if user in texts] == []
    again = userrep("report", "--config", path, "--out", out, "--space", space.space_id)
    assert again.code == 0
    assert again.out.splitlines()[-1] == f"report: {out}, figures: {out.with_suffix('.json')}"
    unknown = userrep("report", "--config", path, "--out", out, "--space", "s9")
    assert (unknown.code, unknown.out) == (2, "")
    assert unknown.faults[0].startswith(f"space s9: not in the registry; spaces there are: {space.space_id}.")


def test_without_features_of_the_date_users_are_of_one_colour(done: tuple[Pipeline, Config]) -> None:
    work, made = done
    space = find_space(work.tables, None)
    newest = list_snapshots(work.tables, space.space_id)[-1]
    bare = made.model_copy(update={"users": None, "onboarding": None})  # of another lineage: no features of its own
    found = map_users(work.tables, bare, space, newest)
    assert found is not None
    assert (found.coloured_by, [of.label for of in found.groups]) == (
        "nothing: the features of the date are not there", ["not known"],
    )  # fmt: skip


def test_the_plane_is_that_of_scikit_learn_and_does_not_flip() -> None:
    z_ND = np.random.default_rng(1).normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1]
    xy_N2, shares = plane(z_ND)
    wanted = PCA(2).fit(z_ND)
    assert shares == pytest.approx(wanted.explained_variance_ratio_)
    scaled = wanted.transform(z_ND)
    assert np.abs(xy_N2) == pytest.approx(np.abs(scaled) / np.abs(scaled).max())
    assert plane(np.ones((4, 3)))[1] == (0.0, 0.0)
    flipped, _ = plane(np.vstack([z_ND[1:], z_ND[:1]]))
    assert flipped[-1] == pytest.approx(xy_N2[0])


def test_rare_values_are_not_named_and_ranges_keep_their_order() -> None:
    labels = ["a"] * 40 + ["b"] * 12 + ["rare"] * 9 + ["not known"] * 3
    xy_N2 = np.zeros((len(labels), 2))
    found = grouped(xy_N2, labels, is_ordered=False)
    assert [(of.label, len(of.points)) for of in found] == [("a", 40), ("b", 12), ("other", 9), ("not known", 3)]
    many = [str(k) for k in range(9) for _ in range(20 - k)]
    assert [of.label for of in grouped(np.zeros((len(many), 2)), many, is_ordered=False)] == [*"012345", "other"]
    events = pa.chunked_array([["10", "0", None, "300", "29", "2", "1"]])
    assert labelled(events, is_ordered=True) == [
        "10 to 29", "0", "not known", "300 or more", "10 to 29", "1 to 2", "1 to 2",
    ]  # fmt: skip
    ranges = grouped(np.zeros((4, 2)), ["10 to 29", "0", "300 or more", "10 to 29"], is_ordered=True)
    assert [(of.label, len(of.points)) for of in ranges] == [("0", 1), ("10 to 29", 2), ("300 or more", 1)]


def test_a_report_is_refused_before_spark_starts(
    userrep: Userrep,
    no_spark: None,
    tmp_path: Path,
) -> None:
    path, out = config_file(tmp_path), tmp_path / "out.html"

    def refused(*more: object) -> str:
        answer = userrep("report", "--config", path, *map(str, more))
        assert (answer.code, answer.out, len(answer.faults)) == (2, "", 1)
        return answer.faults[0]

    assert refused("--out", out) == (
        f"nothing has run yet: there is nothing to report. `userrep pipeline --config {path} --as-of D` makes tables, "
        "a space and its first snapshots."
    )
    assert "ends in .html" in refused("--out", tmp_path / "out.pdf")
    assert "space '../x' is not a valid name" in refused("--out", out, "--space", "../x")
    Tables(None, root=str(tmp_path / "root")).add(JOB_RUNS, [a_run("build_activity_tiles", "r1", outcome="failed")])
    assert refused("--out", out, "--space", "s9").startswith("space s9: not in the registry; spaces there are: none.")
    assert not out.exists()
