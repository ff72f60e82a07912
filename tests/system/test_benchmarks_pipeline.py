"""The benchmarks of whole runs on small logs: both sides give the same inputs and the same vectors."""

from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from benchmarks import daily_vs_script, largest_run, pipeline_vs_script, pipeline_vs_script_10m
from benchmarks.item_vectors_sample import SampledLog, measure
from benchmarks.logs import LogSize
from benchmarks.pipeline_vs_script import FirstRun
from tests.support.benchmark_lines import check_line, write_retail

pytestmark = pytest.mark.full


def test_a_first_run_makes_what_the_script_makes(tmp_path: Path) -> None:
    run = FirstRun(str(write_retail(tmp_path / "log")), date(2011, 5, 15))
    whole, untrained = pipeline_vs_script.measure(run, tmp_path, 1)
    check_line(whole, "pipeline_vs_script", ("log", "as_ofs"), tmp_path)
    check_line(untrained, "pipeline_vs_script_untrained", ("log", "as_ofs"), tmp_path)
    assert whole["session_seconds"] > 0
    assert set(whole["peer_by_step"]) - set(untrained["peer_by_step"]) == {"train"}
    assert set(whole["by_stage"]) - set(untrained["by_stage"]) == {"train_autoencoder"}


def test_a_first_run_on_a_generated_log_makes_what_the_script_makes(tmp_path: Path) -> None:
    whole, untrained = pipeline_vs_script_10m.measure(pipeline_vs_script_10m.SMALL, tmp_path, 1)
    check_line(whole, "pipeline_vs_script_10m", ("log", "as_ofs"), tmp_path)
    check_line(untrained, "pipeline_vs_script_10m_untrained", ("log", "as_ofs"), tmp_path)


def test_a_night_makes_what_the_script_makes(spark: SparkSession, tmp_path: Path) -> None:
    line = daily_vs_script.measure(spark, LogSize(events=4_000, users=100, items=50, days=40), tmp_path, 1)
    check_line(line, "daily_vs_script", ("events", "users", "items", "days"), tmp_path)
    assert line["by_stage"]["build_activity_tiles"] > 0


def test_stages_of_the_largest_run_that_are_done_are_not_done_again(spark: SparkSession, tmp_path: Path) -> None:
    size = LogSize(events=4_000, users=100, items=50, days=40)
    line = largest_run.measure(spark, size, tmp_path, 1)
    assert line["benchmark"] == "largest_run_4000"
    assert list(line["stages"])[-1] == "embeddings"
    assert line["stages"]["tiles of the log"]["events"] == 4_000
    assert line["size"]["tiles"] > 3_000
    assert largest_run.measure(spark, size, tmp_path, 1) == line
    twice = {"size": {"events": 8_000}, "stages": {name: {"seconds": 1.0} for name in line["stages"]}}
    once = {"size": {"events": 4_000}, "stages": {name: {"seconds": 0.5} for name in line["stages"]}}
    assert set(largest_run.extrapolated(once, twice, 80_000).values()) == {10}


def test_item_vectors_of_fewer_users_find_fewer_items(tmp_path: Path) -> None:
    line = measure(SampledLog(str(write_retail(tmp_path / "log")), (date(2011, 4, 20),), samples=1), tmp_path, 1)
    assert line["benchmark"] == "item_vectors_sample_retail"
    assert set(line["by_share"]) == {"100%", "30%", "10%", "3%"}
    assert 0.5 < line["value"] < 1
    assert line["loss"]["3%"] > -0.1
