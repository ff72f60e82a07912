"""A dry run agrees with the run that follows it, and the run records what was expected of it."""

import json
import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tests.support.builders import AS_OF, pipeline_config
from userrep.config import Config
from userrep.erasure.preview import preview
from userrep.erasure.requests import Erasure
from userrep.features.profiles import fingerprint_without_spark, profiles_fingerprint
from userrep.sources.listing import Listings
from userrep.sources.open_log import open_logs
from userrep.store.open import open_tables
from userrep.store.schemas import COMMAND_END, JOB_RUNS
from userrep.tiles.inventory.forecast import forecast
from userrep.tiles.inventory.inventory import take_inventory
from userrep.workflows.daily import backfill, daily
from userrep.workflows.dry_run import dry_run
from userrep.workflows.pipeline import run_pipeline
from userrep.workflows.run_context import RunContext
from userrep.workflows.run_plan import RunPlan

pytestmark = pytest.mark.default

NEXT = AS_OF + timedelta(days=1)


@pytest.fixture(scope="module")
def config(log: Path, run_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return pipeline_config(log, shutil.copytree(run_once / "root", tmp_path_factory.mktemp("dry") / "root"))


def planned(config: Config, command: str, as_ofs: list[date]) -> dict[str, str]:
    """Return what a dry run on tables without a session says of each stage."""
    stages = {"pipeline": RunPlan.pipeline, "daily": RunPlan.daily, "backfill": lambda plan: plan.backfill(as_ofs)}
    plan = dry_run(open_tables(config, None), config, command, as_ofs, stages[command])
    return {stage["stage"]: {"run": "done", "skip": "skipped"}[stage["outcome"]] for stage in plan["stages"]}


def ran(config: Config, spark: SparkSession, as_of: date, run: Callable[[RunContext], Any]) -> dict[str, list[Any]]:
    """Run and return the recorded outcome and outputs of each stage."""
    work = RunContext(config, spark, as_of)
    run(work)
    rows = [row for row in work.tables.ledger(JOB_RUNS) if row.run_id == work.runs.run_id]
    stages = [row for row in rows if row.stage != COMMAND_END]
    return {row.stage: [row.outcome, json.loads(row.outputs), row.seconds] for row in stages}


def test_the_forecast_of_a_log_that_was_read_is_the_inventory(spark: SparkSession, config: Config) -> None:
    tables = open_tables(config, spark)
    taken = take_inventory(tables, config.events, open_logs(spark, config.events))
    found = forecast(tables, config.events, Listings())
    assert (found.inventory.days, found.inventory.undated_fingerprint) == (taken.days, taken.undated_fingerprint)
    assert (found.inventory.num_undated, found.new_files) == (taken.num_undated, [])
    assert fingerprint_without_spark(config) == profiles_fingerprint(spark, config)


def test_runs_do_what_their_dry_runs_predict_and_record_the_prediction(spark: SparkSession, config: Config) -> None:
    expected = planned(config, "pipeline", [AS_OF])
    assert {stage for stage, outcome in expected.items() if outcome == "done"} == {"take_inventory"}
    stages = ran(config, spark, AS_OF, run_pipeline)
    assert {stage: outcome for stage, (outcome, *_) in stages.items()} == expected

    expected = planned(config, "daily", [NEXT])
    stages = ran(config, spark, NEXT, lambda work: daily(work, on_time=True))
    assert {stage: outcome for stage, (outcome, *_) in stages.items()} == expected
    assert expected["build_activity_tiles"] == expected["publish_snapshot"] == "done"
    recorded = {stage: outputs["predicted"] for stage, (_, outputs, _) in stages.items() if stage != "take_inventory"}
    assert {stage: prediction["outcome"] for stage, prediction in recorded.items()} == {
        stage: outcome for stage, outcome in expected.items() if stage != "take_inventory"
    }
    assert recorded["embed_users"]["seconds"] > 0

    dates = [AS_OF - timedelta(days=k) for k in (2, 0)]
    expected = planned(config, "backfill", dates)
    stages = ran(config, spark, AS_OF, lambda work: backfill(work, dates))
    assert {stage: outcome for stage, (outcome, *_) in stages.items()} == expected


def test_an_erasure_removes_what_its_preview_found(spark: SparkSession, config: Config) -> None:
    tables = open_tables(config, spark)
    events = spark.read.parquet(config.events.path or "").select("user_id").distinct().where("user_id <> ''")
    user_ids = [row.user_id for row in events.sort("user_id").limit(3).collect()]
    found = preview(open_tables(config, None), config, user_ids, now=False)
    receipt = Erasure(tables, config, user_ids).run(now=False)
    assert {name: part["rows"] for name, part in found["tables"].items()} == receipt["rows"]
    assert found["num_with_rows"] == receipt["num_with_rows"] == 3
    assert all(part["files"] > 0 for part in found["tables"].values())
    assert preview(open_tables(config, None), config, user_ids, now=False)["tables"] == {}
