"""Paths with characters of patterns, read by Spark."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from userrep.spark.paths import not_a_pattern

pytestmark = pytest.mark.default


def test_spark_reads_exactly_the_file_of_this_name(spark: SparkSession, tmp_path: Path) -> None:
    names = ["a[b].parquet", "ab.parquet", "{a,b}.parquet", "b.parquet", "a*.parquet", "a?.parquet", "a\\b.parquet"]
    for name in names:
        pq.write_table(pa.table({"name": [name]}), tmp_path / name)
    for name in names:
        rows = spark.read.parquet(not_a_pattern(str(tmp_path / name))).collect()
        assert [row.name for row in rows] == [name]
