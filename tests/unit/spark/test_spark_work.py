"""What Spark counts of its own work."""

import time
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from userrep.spark.spark_work import SparkWork

pytestmark = pytest.mark.default


def test_work_counts_from_when_it_is_asked_for(spark: SparkSession) -> None:
    spark.range(1000, numPartitions=2).repartition(3).count()
    work = SparkWork(spark)
    assert set(work.found().values()) == {0}
    spark.range(1000, numPartitions=2).repartition(3).count()
    time.sleep(0.5)  # Spark counts asynchronously
    found = work.found()
    assert 0 < found["task_seconds"] < 60
    assert 100 < found["shuffle_bytes"] < 100_000
    assert 1000 <= found["shuffle_rows"] < 1100
    assert found["input_bytes"] == 0


def test_what_is_read_of_files_is_counted(spark: SparkSession, tmp_path: Path) -> None:
    spark.range(1000).write.parquet(str(tmp_path / "rows"))
    work = SparkWork(spark)
    spark.read.schema("id BIGINT").parquet(str(tmp_path / "rows")).agg({"id": "sum"}).collect()
    time.sleep(0.5)
    assert 100 < work.found()["input_bytes"] < 100_000


def test_a_session_of_spark_connect_has_no_figures() -> None:
    remote = type("SparkSession", (), {"__module__": "pyspark.sql.connect.session"})()
    assert SparkWork(remote).found() == {}
