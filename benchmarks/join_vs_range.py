"""How long does a point-in-time join take, compared with a plain range join in Spark?

200k labels on 10 weekly snapshots of 200k users, 120 numbers each; Parquet to Parquet, in the same session. The range
join joins labels with the broadcast times of the snapshots, takes the newest that was available by then, and joins the
vectors by user and snapshot.

    make bench-join-vs-range
    python -m benchmarks.join_vs_range --small
"""

from pathlib import Path

from pyspark.sql import SparkSession
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
    """Join and write. An expert broadcasts the times of the snapshots, which are few, and joins only the newest."""
    labels = site.tables.spark.read.parquet(str(site.labels))
    pairs = labels.join(site.times, on=labels["label_at"] >= F.col("available_at"), how="left")
    newest = F.max_by(F.struct("as_of", "revision"), F.struct("available_at", "revision")).alias("newest")
    found = pairs.groupBy("label_id", "user_id", "label_at").agg(newest)
    rows = site.with_vectors(found.select("label_id", "user_id", "label_at", "newest.*"))
    comparable(rows).write.mode("overwrite").parquet(str(out))


if __name__ == "__main__":
    run("join_vs_range", measure, SIZE, runs=3)
