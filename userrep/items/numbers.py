"""Dense integer numbers for ids in two passes, without a dictionary on the driver."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

_BUCKETS = 1024


def with_dense_numbers(ids: DataFrame, *, column: str, number: str, start: int) -> DataFrame:
    """Number distinct ids ``start, start + 1, …`` without gaps. The numbers do not depend on the partitioning.

    Pass one counts ids per hash bucket. Pass two ranks the ids within their bucket and adds the sizes of the buckets
    before it.

    Returns
    -------
    One row per id: ``column``, ``number`` (int). Cost: one shuffle by bucket, and one over 1,024 counts.
    """
    bucketed = ids.select(column, F.pmod(F.xxhash64(column), F.lit(_BUCKETS)).alias("bucket"))
    sizes = bucketed.groupBy("bucket").agg(F.count("*").alias("size"))
    before = Window.orderBy("bucket").rowsBetween(Window.unboundedPreceding, -1)
    offsets = sizes.repartition(1).select("bucket", F.coalesce(F.sum("size").over(before), F.lit(0)).alias("offset"))
    rank = F.row_number().over(Window.partitionBy("bucket").orderBy(column)) - 1
    ranked = bucketed.select(column, "bucket", rank.alias("rank"))
    numbered = ranked.join(F.broadcast(offsets), on="bucket", how="inner")
    return numbered.select(column, (F.col("rank") + F.col("offset") + start).cast("int").alias(number))
