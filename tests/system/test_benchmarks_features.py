"""Benchmarks of tiles and features on a small log: both sides agree, and lines hold what they must."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from benchmarks import features_growth, features_vs_spark_sql, tiles_vs_duckdb
from benchmarks.logs import LogSize
from tests.support.benchmark_lines import check_line

pytestmark = pytest.mark.full

TINY = LogSize(events=1500, users=40, items=30, days=8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one folder for all, so that a log is drawn once."""
    return tmp_path_factory.mktemp("benchmarks")


@pytest.mark.parametrize(
    "name",
    [
        "features_vs_spark_sql",
        "features_growth",
        "features_skew",
        "refresh_vs_full",
        "late_day_vs_full",
        "backfill_7_vs_1",
        "tiles_vs_duckdb",
    ],
)
def test_a_benchmark_of_features_compares_answers_and_returns_its_line(
    name: str, spark: SparkSession, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_growth, "TIMES", 1)  # both sizes are the one log
    monkeypatch.delitem(features_vs_spark_sql.WAYS, "summed_columns")  # 128 columns take ten seconds to compile
    benchmark = importlib.import_module(f"benchmarks.{name}")
    size = replace(TINY, copies=benchmark.SIZE.copies, skewed=benchmark.SIZE.skewed)
    line = benchmark.measure(spark, size, root, 1)
    check_line(line, name, ("events", "users", "items", "days"), root)


@pytest.mark.parametrize("log_format", ["json", "csv"])
def test_tiles_of_json_and_csv_logs_are_compared_with_duckdb_s_own_readers(
    log_format: str, spark: SparkSession, root: Path
) -> None:
    line = tiles_vs_duckdb.measure(spark, replace(TINY, copies=True), root, 1, log_format=log_format)
    check_line(line, tiles_vs_duckdb.LINES[log_format], ("events", "users", "items", "days"), root)
