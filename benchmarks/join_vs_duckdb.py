"""How long does a point-in-time join take from Parquet to Parquet, compared with DuckDB's ASOF join?

2M labels on 10 weekly snapshots of 200k users, 120 numbers each, on the same number of threads. Ours is
``write_training_set``, whose tasks write the files; ``spark_seconds`` is a frame of ``join`` that Spark writes (one
run). DuckDB's ASOF join finds the newest snapshot that was available at the time of each label, among the times of the
snapshots. The vectors are joined by user and snapshot.

    make bench-join-vs-duckdb
    python -m benchmarks.join_vs_duckdb --small
"""

import os
import shutil
from pathlib import Path

from pyspark.sql import SparkSession

from benchmarks.join_data import JoinSite, JoinSize, against, join_site, run, run_folder
from benchmarks.report import Line, Skipped, seconds_of

SIZE = JoinSize(labels=2_000_000)


def measure(spark: SparkSession, size: JoinSize, root: Path, runs: int) -> Line:
    """Join and write with both."""
    line = against(
        "join_vs_duckdb", "DuckDB", duckdb_join, spark, size, root=root, runs=runs,
        ours_by=lambda site, out: site.to_files(site.read_labels(), out),
    )  # fmt: skip
    folder = run_folder(root)
    try:
        by_spark = seconds_of(lambda: join_site(spark, size, root).ours(folder))
    finally:
        shutil.rmtree(folder)
    return {**line, "spark_seconds": round(by_spark, 3)}


def duckdb_join(site: JoinSite, out: Path) -> None:
    """Join and write, in one query. An ASOF join with the vectors themselves or with their keys is slower."""
    try:
        import duckdb
    except ImportError as error:
        raise Skipped(f"duckdb does not import ({error})") from None
    shutil.rmtree(out, ignore_errors=True)
    with duckdb.connect() as db:
        db.execute(f"SET threads = {os.cpu_count()}; SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
        db.execute(f"SET temp_directory = '{out.parent}/spilled'")
        db.execute(
            f"""
            COPY (
                WITH vectors AS (
                    SELECT user_id, as_of::DATE AS as_of, embedding,
                        (as_of::DATE + INTERVAL 6 HOUR)::TIMESTAMPTZ AS available_at
                    FROM read_parquet('{site.vectors}', hive_partitioning = true)
                ), times AS (
                    SELECT DISTINCT as_of, available_at FROM vectors
                ), found AS (
                    SELECT label_id, user_id, label_at, as_of
                    FROM read_parquet('{site.labels}/*.parquet') AS labels
                    ASOF LEFT JOIN times ON labels.label_at >= times.available_at
                )
                SELECT label_id, found.user_id, label_at, found.as_of, embedding
                FROM found LEFT JOIN vectors USING (user_id, as_of)
            ) TO '{out}' (FORMAT parquet, PER_THREAD_OUTPUT)
            """
        )


if __name__ == "__main__":
    run("join_vs_duckdb", measure, SIZE, runs=3)
