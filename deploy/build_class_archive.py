"""Build the archive of the classes of local sessions, unless it exists.

    python -m deploy.build_class_archive

Runs a session once, with an example of each kind of work, and lets its JVM write the archive when it ends. Cost: a
minute, and 250 MB of disk.
"""

import os
import sys
import tempfile
from pathlib import Path

from pyspark import SparkContext
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.functions import array_to_vector
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from userrep.spark.class_archive import QUIET, archive_of
from userrep.spark.session import class_path, get_session


def main() -> int:
    """Build the archive; return the exit code."""
    archive = archive_of(class_path())
    if archive.exists() or not class_path():
        return 0
    print("setup: archive of the classes of Spark", flush=True)
    archive.parent.mkdir(parents=True, exist_ok=True)
    staged = archive.with_suffix(".part")
    with tempfile.TemporaryDirectory() as folder:
        options = f"-XX:ArchiveClassesAtExit={staged} -XX:TieredStopAtLevel=1 {QUIET}"
        spark = get_session("local[2]", {"spark.driver.extraJavaOptions": options})
        _work(spark, Path(folder))
        _end_jvm(spark)
    if not staged.exists():
        print("setup: this Java wrote no archive; sessions start without one", flush=True)
        return 0
    for old in archive.parent.glob("classes-*.jsa"):
        old.unlink()
    os.replace(staged, archive)
    return 0


def _work(spark: SparkSession, folder: Path) -> None:
    """Load the classes that jobs need: of reads, writes, shuffles, Arrow, Delta, streams and a regression."""
    rows = spark.range(1000).select(
        "id",
        (F.col("id") % 7).alias("user"),
        F.col("id").cast("string").alias("text"),
        F.current_timestamp().alias("at"),
    )
    for name in ("parquet", "json", "csv"):
        rows.repartition(2, "user").write.format(name).option("header", "true").save(f"{folder}/{name}")
        spark.read.format(name).option("header", "true").load(f"{folder}/{name}").count()
    table = f"{folder}/delta"
    for mode in ("overwrite", "append"):
        rows.write.format("delta").partitionBy("user").mode(mode).save(table)
    spark.sql(f"MERGE INTO delta.`{table}` t USING delta.`{table}` s ON t.id < 0 WHEN NOT MATCHED THEN INSERT *")
    spark.sql(f"DELETE FROM delta.`{table}` WHERE user = 3 AND id < 100")
    spark.sql(f"OPTIMIZE delta.`{table}`")
    read = spark.read.format("delta").load(table)
    passed = read.mapInArrow(lambda batches: batches, read.schema).join(rows.select("id"), on="id", how="left")
    passed.groupBy("user").agg(F.collect_set("text"), F.max_by("text", "at"), F.countDistinct("id")).toArrow()
    labels = rows.select((F.col("id") % 2).cast("double").alias("label"), F.array(F.rand(1), F.rand(2)).alias("x"))
    LogisticRegression(maxIter=3).fit(labels.withColumn("features", array_to_vector("x")))
    stream = spark.readStream.schema(rows.schema).parquet(f"{folder}/parquet").groupBy("user").count()
    writer = stream.writeStream.outputMode("update").option("checkpointLocation", f"{folder}/checkpoint")
    writer.trigger(availableNow=True).foreachBatch(lambda batch, _: batch.collect()).start().awaitTermination()


def _end_jvm(spark: SparkSession) -> None:
    """Stop the session, and wait until its JVM has written the archive."""
    spark.stop()
    gateway = SparkContext._gateway
    assert gateway is not None
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()


if __name__ == "__main__":
    sys.exit(main())
