"""How long does a point-in-time join take, compared with a plain range join in Spark?

200k labels on 10 weekly snapshots of 200k users, 120 numbers each; Parquet to Parquet, in the same session. The range
join joins labels with all vectors of their user that were available by then, and takes the newest with a window.

    make bench-join-vs-range
    python -m benchmarks.join_vs_range --small
"""

from pathlib import Path

from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F

from benchmarks.join_data import JoinSite, JoinSize, against, comparable, run
from benchmarks.report import Line

SIZE = JoinSize(labels=200_000)


def measure(spark: SparkSession, size: JoinSize, root: Path, runs: int) -> Line:
    """Join and write with both."""
    return against("join_vs_range", "Spark, plain range join", range_join, spark, size, root=root, runs=runs)


def range_join(site: JoinSite, out: Path) -> None:
    """Join and write without knowledge of the ledger's structure."""
    labels = site.tables.spark.read.parquet(str(site.labels)).alias("l")
    known = (F.col("l.user_id") == F.col("v.user_id")) & (F.col("l.label_at") >= F.col("v.available_at"))
    pairs = labels.join(site.known_vectors.alias("v"), on=known, how="left").select(
        "l.*", "as_of", "revision", "embedding"
    )
    newest = Window.partitionBy("label_id").orderBy(F.desc("as_of"), F.desc("revision"))
    rows = pairs.withColumn("rank", F.row_number().over(newest)).where("rank = 1")
    comparable(rows).write.mode("overwrite").parquet(str(out))


if __name__ == "__main__":
    run("join_vs_range", measure, SIZE, runs=1)
