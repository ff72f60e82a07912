"""How long does a point-in-time join take, compared with a plain range join in Spark?

200k labels on 10 weekly snapshots of 200k users, 120 numbers each; Parquet to Parquet, in the same session. The range
join finds the snapshot that was the newest at the time of each label, among the broadcast times of the snapshots. The
vectors are joined by user and snapshot.

    make bench-join-vs-range
    python -m benchmarks.join_vs_range --small
"""

from pathlib import Path

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from benchmarks.join_data import JoinSite, JoinSize, against, comparable, run
from benchmarks.report import Line

SIZE = JoinSize(labels=200_000)


def measure(spark: SparkSession, size: JoinSize, root: Path, runs: int) -> Line:
    """Join and write with both."""
    return against(
        "join_vs_range", "Spark, range join on broadcast times", range_join, spark, size, root=root, runs=runs
    )


def range_join(site: JoinSite, out: Path) -> None:
    """Join and write."""
    comparable(range_joined(site)).write.mode("overwrite").parquet(str(out))


def range_joined(site: JoinSite) -> DataFrame:
    """Add vectors. An expert broadcasts the times of the snapshots, which are few, and joins vectors by equality."""
    labels = site.read_labels()
    next_at = F.lead("available_at").over(Window.orderBy("available_at", "revision")).alias("next_at")
    times = F.broadcast(site.times.select("as_of", "revision", "available_at", next_at))
    is_newest = (F.col("available_at") <= labels["label_at"]) & (
        F.col("next_at").isNull() | (F.col("next_at") > labels["label_at"])
    )
    return site.with_vectors(labels.join(times, on=is_newest, how="left"))


if __name__ == "__main__":
    run("join_vs_range", measure, SIZE, runs=3)
