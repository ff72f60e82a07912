"""The benchmark of savings on a small log: all sides learn the same labels, and shares follow from costs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyspark.ml import Pipeline
from pyspark.sql import DataFrame, SparkSession

from benchmarks import savings
from benchmarks.cpu_meter import CpuMeter
from benchmarks.savings_teams import TEAMS
from tests.support.benchmark_lines import check_line
from userrep.config import Config

pytestmark = pytest.mark.full


def test_all_sides_learn_the_same_labels_and_the_shares_saved_follow_from_their_costs(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, labels = savings.fitted, {}

    def noted(stages: Pipeline, rows: DataFrame, label_dates: list[Any], out: Path) -> float:
        columns = rows.select("user_id", "label_at", "label").orderBy("user_id", "label_at")
        labels[out.parent.name, out.name] = [tuple(row) for row in columns.collect()]
        return fitted(stages, rows, label_dates, out)

    monkeypatch.setattr(savings, "fitted", noted)
    size, teams = savings.SMALL, [team for team in TEAMS if team.name in ("busy_7d", "new_genre_7d")]
    lines = savings.measure(spark, size, tmp_path, 1, teams)
    assert [line["benchmark"] for line in lines] == ["savings", "savings_ten_teams", "savings_vs_rescan"]
    assert [line["size"]["teams"] for line in lines] == [2, 10, 2]
    for line in lines:
        name = line["benchmark"]
        check_line(line | {"seconds": 1, "value": 1}, name, ("users", "events", "days", "teams"), tmp_path)
        for what, value in (("cycle", "value"), ("night", "value_night"), ("first_day", "value_first_day")):
            own, shared = (line[what][side]["cpu_seconds"] for side in ("own", "shared"))
            assert line[value] == pytest.approx(1 - shared / own, abs=0.02)
        assert line["auc"].keys() == {"busy_7d", "new_genre_7d"}
    daily_sums, _, rescan = lines
    for team in daily_sums["auc"]:
        assert labels["daily_sums", team] == labels["rescan", team] == labels["shared", team]
        assert len(labels["shared", team]) == daily_sums["labels"] > 0
        assert all(0.5 < auc < 1 for auc in daily_sums["auc"][team].values())
    assert rescan["cycle"]["own"]["cpu_seconds"] > 20 * rescan["night"]["own"]["cpu_seconds"] > 0
    assert daily_sums["caps"]["training_dates"] == Config.model_fields["training"].default.as_ofs.max_dates
    assert all(0 < share < 1 for share in daily_sums["positive"].values())
    for days in (7, 30):
        share = return_share(tmp_path / size.name / "events", size, days)
        assert daily_sums["positive"][f"return_{days}d"] == pytest.approx(share, abs=6e-4)  # it is rounded


def return_share(events: Path, size: savings.SavingsSize, days: int) -> float:
    """Return which share of users with an event in the 180 days before a label date come back after it, by DuckDB."""
    dates = ", ".join(f"(DATE '{size.before_end(k)}')" for k in (*savings.TRAIN, *savings.TEST))
    query = f"""
        SELECT avg(is_back::INTEGER) FROM (
            SELECT bool_or(day >= as_of AND day < as_of + {days}) AS is_back
            FROM (VALUES {dates}) AS dates(as_of)
            JOIN (SELECT DISTINCT user_id, ingest_date::DATE AS day
                  FROM read_parquet('{events}/**/*.parquet', hive_partitioning = true))
            ON day >= as_of - 180 AND day < as_of + 30
            GROUP BY as_of, user_id
            HAVING bool_or(day < as_of))
        """
    with duckdb.connect() as db:
        [(share,)] = db.sql(query).fetchall()
    return float(share)


def test_cpu_seconds_include_processes_that_have_ended() -> None:
    burn = "import time\nwhile time.process_time() < 2: pass"
    with CpuMeter() as meter:
        before = meter.seconds()
        subprocess.run([sys.executable, "-c", burn], check=True)
        assert 1 <= meter.seconds() - before < 8
