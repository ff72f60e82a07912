"""ALS by Spark ML on the whole cluster, and the dense integer ids that it needs, without a dictionary on the driver."""

from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from userrep.config import AlsVectors

if TYPE_CHECKING:
    from pyspark.ml.recommendation import ALSModel

_BUCKETS = 1024
_PAIRS_PER_BLOCK = 1_000_000  # independent of session settings, like the result


def with_dense_numbers(ids: DataFrame, number: str) -> DataFrame:
    """Number distinct ids, the only column, ``0, 1, …`` without gaps. The numbers do not depend on the partitioning.

    Pass one counts ids per hash bucket. Pass two ranks the ids within their bucket and adds the sizes of the buckets
    before it.

    Returns
    -------
    One row per id, with the int column ``number``. Cost: one shuffle by bucket, and one over 1,024 counts.
    """
    (column,) = ids.columns
    bucketed = ids.select(column, F.pmod(F.xxhash64(column), F.lit(_BUCKETS)).alias("bucket"))
    sizes = bucketed.groupBy("bucket").agg(F.count("*").alias("size"))
    before = Window.orderBy("bucket").rowsBetween(Window.unboundedPreceding, -1)
    offsets = sizes.repartition(1).select("bucket", F.coalesce(F.sum("size").over(before), F.lit(0)).alias("offset"))
    rank = F.row_number().over(Window.partitionBy("bucket").orderBy(column)) - 1
    ranked = bucketed.select(column, "bucket", rank.alias("rank"))
    numbered = ranked.join(F.broadcast(offsets), on="bucket", how="inner")
    return numbered.select(column, (F.col("rank") + F.col("offset")).cast("int").alias(number))


def item_factors(pairs: DataFrame, *, settings: AlsVectors) -> DataFrame:
    """Fit ALS on rows of user_hash, item_index, num_events. Returns item_index, vector: the factors of the items."""
    if pairs.isEmpty():  # Spark's ALS fails on empty input
        return pairs.select("item_index", F.array().cast("array<float>").alias("vector"))
    numbers = with_dense_numbers(pairs.select("user_hash").distinct(), "user_number")
    factors = fit_als(pairs.join(numbers, on="user_hash", how="inner"), settings=settings).itemFactors
    return factors.select(F.col("id").alias("item_index"), F.col("features").alias("vector"))


def fit_als(pairs: DataFrame, *, settings: AlsVectors) -> "ALSModel":
    """Fit implicit ALS by Spark ML on rows of user_number, item_index, num_events. Rows of the same pair add up.

    Preference is log(1 + events). The ridge is ``regularization`` times the number of pairs of the user or item. Cost:
    ``iterations`` x 2 shuffles of the interactions.
    """
    from pyspark.ml.recommendation import ALS  # imported on use, because it loads pandas

    ratings = pairs.groupBy("user_number", "item_index").agg(F.log1p(F.sum("num_events")).cast("float").alias("rating"))
    ratings = ratings.cache()
    try:
        num_blocks = min(1000, max(2, ratings.count() // _PAIRS_PER_BLOCK))
        # Partitions and order are fixed, so that ALS's sums do not depend on the session's shuffle partitions.
        in_order = ratings.repartition(num_blocks, "user_number").sortWithinPartitions("user_number", "item_index")
        als = ALS(
            rank=settings.dim,
            maxIter=settings.iterations,
            regParam=settings.regularization,
            implicitPrefs=True,
            alpha=settings.alpha,
            seed=settings.seed,
            userCol="user_number",
            itemCol="item_index",
            ratingCol="rating",
            numUserBlocks=num_blocks,
            numItemBlocks=num_blocks,
        )
        return als.fit(in_order)
    finally:
        ratings.unpersist()
