"""Does the time of a point-in-time join grow only in proportion to the labels?

4M labels compared with 1M, on the same 10 snapshots of 200k users. The value is the time of the larger join divided by
4 times that of the smaller one; 1 is linear growth.

    make bench-join-growth
    python -m benchmarks.join_growth --small
"""

import shutil
from pathlib import Path

from pyspark.sql import SparkSession

from benchmarks.join_data import JoinSize, join_site, run, run_folder
from benchmarks.report import Line, growth_line, progress, seconds_of

SIZE = JoinSize(labels=1_000_000)
TIMES = 4


def measure(spark: SparkSession, size: JoinSize, root: Path, runs: int) -> Line:
    """Run both joins alternately."""
    large = size.of_labels(TIMES * size.labels)
    folder, taken = run_folder(root), []
    try:
        for _ in range(runs):
            taken.append([seconds_of(lambda of=of: join_site(spark, of, root).ours(folder)) for of in (size, large)])
            progress(f"{size.labels:,} labels: {taken[-1][0]:.1f} s, {large.labels:,}: {taken[-1][1]:.1f} s")
        assert spark.read.parquet(str(folder)).count() == large.labels
    finally:
        shutil.rmtree(folder)
    return growth_line("join_growth", large.facts(), size.facts(), taken, times=TIMES)


if __name__ == "__main__":
    run("join_growth", measure, SIZE, runs=3)
