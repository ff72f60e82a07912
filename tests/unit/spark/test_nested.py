"""Empty arrays and maps, which large frames carry to Python instead of nulls."""

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.features.sums.shuffled import in_common_schema
from userrep.spark.nested import empty

pytestmark = pytest.mark.default


@pytest.mark.parametrize(
    ("ddl", "value"), [("array<bigint>", []), ("array<string>", []), ("map<string,bigint>", {}), ("array<float>", [])]
)
def test_an_empty_value_has_the_asked_for_type(ddl: str, value: object, spark: SparkSession) -> None:
    rows = spark.range(1).select(empty(T.DataType.fromDDL(ddl)).alias("value"))
    assert rows.schema["value"].dataType.simpleString() == ddl
    assert rows.collect()[0].value == value


def test_tiles_in_a_shuffle_carry_no_null_array_or_map(spark: SparkSession) -> None:
    tiles = spark.range(3).select(
        F.col("id").cast("string").alias("user_id"),
        F.lit(1).alias("user_bucket"),
        F.lit("i").alias("item_id"),
        F.lit(1.0).alias("weight"),
        F.lit(1).alias("num_events"),
        F.lit(0).cast("timestamp").alias("last_event_at"),
        F.lit(None).cast("map<string,bigint>").alias("num_by_context"),
        F.lit(0).alias("day"),
    )
    shuffled = in_common_schema(tiles, "tiles")
    nested = [f.name for f in shuffled.schema if isinstance(f.dataType, T.ArrayType | T.MapType)]
    assert len(nested) == 5
    assert shuffled.where(" OR ".join(f"{name} IS NULL" for name in nested)).count() == 0
