"""Behaviour vectors: implicit-feedback ALS on who did what with which item, before a version's date."""

from collections.abc import Sequence
from datetime import date

from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import AlsVectors
from userrep.items.numbers import with_dense_numbers
from userrep.items.vectors import directions, rotated, rotation_onto


def interactions(tiles: DataFrame, item_index: DataFrame, versions: Sequence[date]) -> DataFrame:
    """Count events by user, item and the first version whose date lies past them.

    Parameters
    ----------
    tiles : user_item_days before the last of ``versions``, which ascend. item_index : item_id, item_index.

    Returns
    -------
    One row per user_number (dense int; with its user_bucket), item_index, valid_from: num_events. A fit for version V
    takes the rows with valid_from at or before V. Cost: three shuffles by user and item; worth a cache where several
    versions are fitted.
    """
    numbers = with_dense_numbers(tiles.select("user_id").distinct(), column="user_id", number="user_number", start=0)
    first_past = F.lit(None).cast("date")
    for version in reversed(versions):
        first_past = F.when(F.col("event_date") < F.lit(version), F.lit(version)).otherwise(first_past)
    by_pair = tiles.groupBy("user_id", "user_bucket", "item_id", first_past.alias("valid_from")).agg(
        F.sum("num_events").alias("num_events")
    )
    return (
        by_pair.join(item_index, on="item_id", how="inner")
        .join(numbers, on="user_id", how="inner")
        .select("user_number", "user_bucket", "item_index", "valid_from", "num_events")
    )


def behaviour_vectors(
    pairs: DataFrame, *, settings: AlsVectors, before: DataFrame | None, num_blocks: int
) -> DataFrame:
    """Fit ALS on a version's interactions and turn the item factors onto the version before.

    A vector is a factor's direction, of length 1: how long a factor is says mostly how often the item is taken, and
    a mean of such would be one of what everybody takes. Spark's ALS takes no initial factors, so that continuity
    between versions comes from the rotation alone.

    Returns
    -------
    One row per item with an event: item_index, vector. Cost: ``iterations`` x 2 shuffles of the interactions.
    """
    model = fit_als(pairs, settings=settings, num_blocks=num_blocks)
    factors = model.itemFactors.select(F.col("id").alias("item_index"), F.col("features").alias("vector"))
    factors = directions(factors, dim=settings.dim)
    return factors if before is None else rotated(factors, rotation_onto(factors, before, dim=settings.dim))


def fit_als(pairs: DataFrame, *, settings: AlsVectors, num_blocks: int) -> ALSModel:
    """Fit implicit ALS on rows of user_number, item_index, num_events; those of a pair are summed.

    Preference is the logarithm of 1 + the pair's events. Cost: ``iterations`` x 2 shuffles of the interactions.
    """
    ratings = pairs.groupBy("user_number", "item_index").agg(F.log1p(F.sum("num_events")).cast("float").alias("rating"))
    # Fixed partitions in a fixed order: ALS's sums then don't depend on the session's shuffle partitions.
    ratings = ratings.repartition(num_blocks, "user_number").sortWithinPartitions("user_number", "item_index")
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
    return als.fit(ratings)
