"""Dense numbers for distinct ids, without a dictionary on the driver."""

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from userrep.items.numbers import with_dense_numbers

pytestmark = pytest.mark.default


@pytest.fixture
def shuffle_partitions(spark: SparkSession) -> Iterator[None]:
    before = spark.conf.get("spark.sql.shuffle.partitions")
    yield
    spark.conf.set("spark.sql.shuffle.partitions", before)


@pytest.mark.usefixtures("shuffle_partitions")
def test_dense_numbers_have_no_gap_and_are_the_same_at_any_partitioning(spark: SparkSession) -> None:
    found = []
    for partitions in (1, 7):
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
        ids = spark.range(2000).select(F.concat(F.lit("ü"), F.col("id")).alias("name")).repartition(partitions)
        numbered = with_dense_numbers(ids, column="name", number="k", start=5)
        found.append({row["name"]: row.k for row in numbered.collect()})
    assert sorted(found[0].values()) == list(range(5, 2005))
    assert found[0] == found[1]
