"""What differs between releases of Spark: JARs, partitions by number, and functions of Arrow arrays."""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf

from userrep.spark.releases import (
    Arrays,
    arrow_udf,
    key_of_partition,
    on_series,
    release_of,
    repartition_by_number,
)

pytestmark = pytest.mark.default


def by_key(rows: DataFrame, num_partitions: int, number: Column) -> DataFrame:
    """Partition rows as on Spark 4.0."""
    return rows.repartition(num_partitions, key_of_partition(num_partitions, number))


@pytest.mark.parametrize("partition", [repartition_by_number, by_key])
@pytest.mark.parametrize("num_partitions", [1, 2, 7, 64, 300])
def test_each_row_is_in_the_partition_of_its_number(
    spark: SparkSession, partition: Callable[[DataFrame, int, Column], DataFrame], num_partitions: int
) -> None:
    number = (F.col("id") * 7 % num_partitions).cast("int")
    rows = partition(spark.range(3 * num_partitions).withColumn("wanted", number), num_partitions, number)
    placed = rows.select("id", "wanted", F.spark_partition_id().alias("partition")).collect()
    assert sorted(row.id for row in placed) == list(range(3 * num_partitions))
    assert [row for row in placed if row.partition != row.wanted] == []


def test_keys_of_thousands_of_partitions_have_the_hashes_of_their_partitions(spark: SparkSession) -> None:
    number = F.col("id").cast("int")
    hashed = F.pmod(F.hash(key_of_partition(20_000, number)), F.lit(20_000))
    assert spark.range(20_000).where(hashed != number).count() == 0


TYPES = (pa.string(), pa.int32(), pa.list_(pa.float32()))


@pytest.mark.parametrize("make", [arrow_udf, lambda f, kind, *types: pandas_udf(on_series(f, types), kind)])
def test_a_function_of_arrow_arrays_gets_the_declared_types_and_nulls(
    spark: SparkSession, make: Callable[..., Any]
) -> None:
    def describe(batches: Arrays) -> Iterator[pa.Array]:
        """Return a list per row: length of the text, number and sum of the vector; null if all are null."""
        for texts, numbers, vectors in batches:
            assert (texts.type, numbers.type, vectors.type) == (pa.string(), pa.int32(), pa.list_(pa.float32()))
            lists = zip(pc.utf8_length(texts).to_pylist(), numbers.to_pylist(), vectors.to_pylist(), strict=True)
            sums = [[size, number and float(number), None if v is None else sum(v)] for size, number, v in lists]
            yield pa.array([None if row == [None] * 3 else row for row in sums], pa.list_(pa.float32()))

    rows = [("äb", 3, [0.5, 0.25]), (None, 2**31 - 1, []), ("", None, None), (None, None, None)]
    frame = spark.createDataFrame(rows, "t STRING, n INT, v ARRAY<FLOAT>").coalesce(1)
    described = frame.select(make(describe, "array<float>", *TYPES)("t", "n", "v").alias("d")).collect()
    assert [row.d for row in described] == [[2.0, 3.0, 0.75], [None, 2.0**31, 0.0], [0.0, None, None], None]


@pytest.mark.parametrize("make", [arrow_udf, lambda f, kind, *types: pandas_udf(on_series(f, types), kind)])
def test_a_function_of_arrow_arrays_can_filter_rows(spark: SparkSession, make: Callable[..., Any]) -> None:
    def is_long(batches: Arrays) -> Iterator[pa.Array]:
        return (pc.greater(pc.utf8_length(texts), 1) for (texts,) in batches)

    frame = spark.createDataFrame([("a",), ("bc",), (None,)], "t STRING")
    assert frame.where(make(is_long, "boolean", pa.string())("t")).collect() == [("bc",)]


@pytest.mark.parametrize(
    ("version", "series", "delta", "kafka"),
    [
        ("4.0.4", "4.0", "io.delta:delta-spark_2.13:4.0.1", "4.0.0"),
        ("4.0.0-amzn-1", "4.0", "io.delta:delta-spark_2.13:4.0.1", "4.0.0"),
        ("4.1.3", "4.1", "io.delta:delta-spark_4.1_2.13:4.1.0", "4.1.1"),
        ("4.2.0", "4.2", "io.delta:delta-spark_4.2_2.13:4.4.0", "4.2.0"),
        ("4.20.0", "4.2", "io.delta:delta-spark_4.2_2.13:4.4.0", "4.2.0"),
    ],
)
def test_jars_follow_the_release_of_spark(version: str, series: str, delta: str, kafka: str) -> None:
    found, release = release_of(version)
    assert (found, release.delta, release.kafka) == (series, delta, kafka)
