"""Predictions of stages from recorded runs of about the same size."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.report.test_report_gather import a_run
from userrep.operations.stage_rates import Prediction, StageRates
from userrep.store.file_tables import FileTables
from userrep.store.schemas import JOB_RUNS
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

AT = datetime(2024, 5, 1)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return FileTables(None, str(tmp_path / "root"))


def add(
    tables: Tables, stage: str, day: int, *, rows: int = 1, seconds: float, cores: float, **outputs: object
) -> None:
    row = a_run(stage, f"r{day}", AT + timedelta(days=day), spark={"task_seconds": cores}, **outputs)
    tables.add(JOB_RUNS, [row | {"num_rows": rows, "seconds": seconds}])


def test_the_newest_run_of_about_the_same_size_is_scaled(tables: Tables) -> None:
    add(tables, "embed_users", 1, rows=1_000, seconds=10, cores=16)
    add(tables, "embed_users", 2, rows=1_100, seconds=11, cores=22)
    add(tables, "embed_users", 3, rows=90_000, seconds=500, cores=900)
    rates = StageRates.of(tables)
    assert rates.predict("embed_users", 1_000) == Prediction(10.0, 20.0)
    assert rates.predict("embed_users", 180_000) == Prediction(1000.0, 1800.0)


def test_tiles_grow_with_rows_and_item_vectors_with_versions(tables: Tables) -> None:
    add(tables, "build_activity_tiles", 1, seconds=4, cores=8, num_events=900, num_rejected=100)
    add(tables, "train_item_vectors", 1, rows=5_000, seconds=30, cores=60, versions=["a", "b", "c"])
    rates = StageRates.of(tables)
    assert rates.predict("build_activity_tiles", 500) == Prediction(2.0, 4.0)
    assert rates.predict("train_item_vectors", 1) == Prediction(10.0, 20.0)


def test_a_training_takes_what_the_last_one_took(tables: Tables) -> None:
    add(tables, "train_autoencoder", 2, rows=50, seconds=7, cores=3)
    add(tables, "train_autoencoder", 1, rows=10, seconds=99, cores=99)
    assert StageRates.of(tables).predict("train_autoencoder", None) == Prediction(7, 3)


def test_without_a_run_or_an_amount_nothing_is_predicted(tables: Tables) -> None:
    assert StageRates.of(tables).predict("embed_users", 5) == Prediction(None, None)
    tables.add(JOB_RUNS, [a_run("embed_users", "r1", AT, "failed"), a_run("embed_users", "r2", AT) | {"num_rows": 0}])
    tables.add(JOB_RUNS, [a_run("publish_snapshot", "r2", AT) | {"outputs": "{}", "num_rows": 4, "seconds": 2.0}])
    rates = StageRates.of(tables)
    assert rates.predict("embed_users", 5) == Prediction(None, None)
    assert rates.predict("publish_snapshot", None) == Prediction(None, None)
    assert rates.predict("publish_snapshot", 2) == Prediction(1.0, None)  # no figures of Spark
