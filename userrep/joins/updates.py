"""Near-real-time vectors at a label's time: a general as-of join, by union and sort."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from userrep.joins.options import JoinOptions
from userrep.joins.resolution import column


def with_update(labels: DataFrame, updates: DataFrame, options: JoinOptions) -> DataFrame:
    """Add __update, the newest update of the user that counts: as_of, event_at, computed_at, embedding.

    An update counts from ``computed_at`` on (with ``availability="as_of"`` from its as-of date on). The newest has the
    latest as-of date; of one date, the latest event, then the latest ``computed_at``: a stream that begins a day again
    puts nothing of its morning over what is known of its evening.

    Parameters
    ----------
    updates : rows of ``embedding_updates`` of one space.

    Returns
    -------
    Every label once; null where no update counts, or user or time are null. Cost: one shuffle of labels and updates by
    user, and a sort.
    """
    since = F.col("computed_at") if options.availability == "ledger" else F.col("as_of").cast("timestamp")
    right = updates.select(
        F.lit(None).cast(labels.schema).alias("__label"),
        F.col("user_id").alias("__user"),
        since.alias("__at"),
        F.lit(0).alias("__is_label"),
        F.struct("as_of", "event_at", "computed_at", "embedding").alias("__update"),
    ).where("__user IS NOT NULL AND __at IS NOT NULL AND __update.embedding IS NOT NULL")
    left = labels.select(
        F.struct(*(column(name) for name in labels.columns)).alias("__label"),
        column(options.user).alias("__user"),
        column(options.time).alias("__at"),
        F.lit(1).alias("__is_label"),
        F.lit(None).cast(right.schema["__update"].dataType).alias("__update"),
    )
    so_far = Window.partitionBy("__user").orderBy("__at", "__is_label").rowsBetween(Window.unboundedPreceding, 0)
    newest = left.unionByName(right).withColumn("__update", F.max("__update").over(so_far))
    return newest.where("__is_label = 1").select("__label.*", "__update")
