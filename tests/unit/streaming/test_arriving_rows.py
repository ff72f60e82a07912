"""Rows of tables and files as a stream: in the columns and types of the stream's first start."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from userrep.config import Stream, StreamSource
from userrep.streaming.sources import ARRIVED, ORIGIN, arriving, other_type_of_file

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


def test_a_file_of_another_type_stops_the_stream_until_it_is_rewritten(spark: SparkSession, tmp_path: Path) -> None:
    folder, out = tmp_path / "log of users", str(tmp_path / "out")
    folder.mkdir()
    source, schema = StreamSource(path=str(folder), format="parquet"), T.StructType.fromDDL("user BIGINT")

    def rows_after_file(name: str, users: pa.Array) -> list[int]:
        pq.write_table(pa.table({"user": users}), folder / name)
        rows = arriving(spark, source, Stream(), schema=schema, since=date(2024, 5, 1)).drop(ORIGIN, ARRIVED)
        writer = rows.writeStream.format("parquet").option("checkpointLocation", f"{out}-checkpoint")
        writer.trigger(availableNow=True).start(out).awaitTermination()
        return sorted(row.user for row in spark.read.parquet(out).collect())

    assert rows_after_file("1.parquet", pa.array([1], pa.int64())) == [1]
    assert rows_after_file("2.parquet", pa.array([2], pa.int32())) == [1, 2]
    with pytest.raises(StreamingQueryException) as raised:
        rows_after_file("3.parquet", pa.array([3.0]))
    error = other_type_of_file(raised.value)
    assert error is not None
    assert str(error).startswith("stream: file:")
    assert "3.parquet has DOUBLE in column user, but the stream was started with bigint. Rewrite the file" in str(error)
    assert rows_after_file("3.parquet", pa.array([3], pa.int64())) == [1, 2, 3]
