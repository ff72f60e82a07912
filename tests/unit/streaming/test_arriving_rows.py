"""Rows of a Delta table as a stream: in the columns and types of the stream's first start."""

from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from userrep.config import Stream, StreamSource
from userrep.streaming.sources import ARRIVED, ORIGIN, arriving

pytestmark = pytest.mark.default


def test_a_delta_table_keeps_the_columns_of_the_first_start(spark: SparkSession, tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    spark.sql(f"CREATE TABLE delta.`{path}` (User STRING, at TIMESTAMP, weight STRING, more STRING) USING delta")
    spark.sql(f"INSERT INTO delta.`{path}` VALUES ('u', TIMESTAMP'2024-05-01 10:00:00', '1.5', 'x')")
    spark.sql(f"INSERT INTO delta.`{path}` VALUES ('v', NULL, 'many', 'x')")
    schema = T.StructType.fromDDL("user STRING, at STRING, weight DOUBLE, gone STRING")
    source = StreamSource(path=path, format="delta")
    rows = arriving(spark, source, Stream(), schema=schema, since=date(2024, 5, 1))
    assert rows.columns == ["user", "at", "weight", "gone", ORIGIN, ARRIVED]
    out = str(tmp_path / "out")
    writer = rows.drop(ORIGIN, ARRIVED).writeStream.format("parquet").option("checkpointLocation", f"{out}-checkpoint")
    writer.trigger(availableNow=True).start(out).awaitTermination()
    assert sorted(map(tuple, spark.read.parquet(out).collect())) == [
        ("u", "2024-05-01 10:00:00Z", 1.5, None), ("v", None, None, None),
    ]  # fmt: skip
