"""Dense numbers for distinct ids, without a dictionary on the driver."""

from collections.abc import Callable

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from userrep.items.als_on_spark import with_dense_numbers

pytestmark = pytest.mark.default


def test_dense_numbers_have_no_gap_and_are_the_same_at_any_partitioning(
    spark: SparkSession, shuffle_into: Callable[[int], None]
) -> None:
    found = []
    for partitions in (1, 7):
        shuffle_into(partitions)
        ids = spark.range(2000).select(F.concat(F.lit("ü"), F.col("id")).alias("name")).repartition(partitions)
        numbered = with_dense_numbers(ids, "k")
        found.append({row["name"]: row.k for row in numbered.collect()})
    assert sorted(found[0].values()) == list(range(2000))
    assert found[0] == found[1]
