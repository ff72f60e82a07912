"""Columns of Spark with the number of a part."""

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from userrep.store.buckets import NUM_BUCKETS, slice_number

pytestmark = pytest.mark.default


@pytest.mark.parametrize("num_parts", [1, 2048, 2049, 5000])
def test_the_last_bucket_is_in_the_last_of_any_number_of_parts(spark: SparkSession, num_parts: int) -> None:
    (row,) = spark.range(1).select(slice_number(num_parts, F.lit(NUM_BUCKETS - 1)).alias("part")).collect()
    assert row.part == num_parts - 1
