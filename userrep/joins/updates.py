"""As-of join of labels with near-real-time vectors, by union and sort."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from userrep.joins.options import JoinOptions
from userrep.joins.snapshot_at import column


def with_update(labels: DataFrame, updates: DataFrame, options: JoinOptions) -> DataFrame:
    """Add __update, the user's newest update at each label's time: as_of, event_at, computed_at, embedding.

    An update can be used from ``computed_at`` on (with ``availability="as_of"``, from its as-of date on). The newest
    update has the latest as-of date, then the latest event, then the latest ``computed_at``. The event comes before
    ``computed_at`` because a stream that restarts a day computes vectors of early events again, and these must not
    replace a vector that has seen later events.

    Parameters
    ----------
    updates : rows of ``embedding_updates`` of one space.

    Returns
    -------
    Every label once; __update is null if the user has no update by then, or the user or time is null. Cost: one shuffle
    of labels and updates by user, and a sort.
    """
    usable_at = F.col("computed_at") if options.availability == "ledger" else F.col("as_of").cast("timestamp")
    right = updates.select(
        F.lit(None).cast(labels.schema).alias("__label"),
        F.col("user_id").alias("__user"),
        usable_at.alias("__at"),
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
