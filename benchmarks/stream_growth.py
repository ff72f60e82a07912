"""Does the time of a micro-batch stay the same with ten times as many known users?

1,000 events per batch, of users by their activity, on a base of 2M users and on one of 200k. Vectors have 8 numbers, so
that both fit. Each base has 40 batches in Kafka, which are processed one after another; the first ten are warm-up. The
value is the ratio of the median seconds between commits; 1 is no growth.

    make bench-stream-growth
    python -m benchmarks.stream_growth --small
"""

from pathlib import Path
from statistics import median

import numpy as np
from pyspark.sql import SparkSession

from benchmarks.report import Line, progress, span
from benchmarks.stream_data import StreamSize, open_base, run

SIZE = StreamSize(users=2_000_000, dim=8)
SMALL = StreamSize(users=20_000, dim=8)
TIMES = 10
BATCH = 1_000
BATCHES, WARM = 40, 10
SMALL_BATCHES, SMALL_WARM = 8, 2


def measure(spark: SparkSession, size: StreamSize, root: Path, runs: int) -> Line:
    """Process both backlogs alternately."""
    smaller = size.of_users(max(1, size.users // TIMES))
    taken: dict[StreamSize, list[float]] = {smaller: [], size: []}
    growth = []
    for _ in range(runs):
        of_run = {each: batch_seconds(spark, each, root, is_small=size.users <= SMALL.users) for each in taken}
        for each, seconds in of_run.items():
            taken[each] += seconds
            progress(f"{each.users:,} users: {median(seconds):.2f} s a batch")
        growth.append(median(of_run[size]) / median(of_run[smaller]))
    return {
        "benchmark": "stream_growth",
        "size": size.facts() | {"events_per_batch": BATCH, "batches": len(taken[size])},
        "seconds": round(median(taken[size]), 3),
        "smaller_size": smaller.facts(),
        "smaller_seconds": round(median(taken[smaller]), 3),
        "value": round(median(taken[size]) / median(taken[smaller]), 3),
        "runs": runs,
        "range": {"value": span(growth)},
    }


def batch_seconds(spark: SparkSession, size: StreamSize, root: Path, *, is_small: bool) -> list[float]:
    """Return the seconds between commits, after the warm-up."""
    batches, warm = (SMALL_BATCHES, SMALL_WARM) if is_small else (BATCHES, WARM)
    with open_base(spark, size, root, max_rows_per_batch=BATCH) as base:
        base.fill(batches * BATCH)
        base.stream(until_empty=True)
        at = base.committed_at(batches)
    seconds: list[float] = np.diff(at[warm - 1 :]).tolist()
    return seconds


if __name__ == "__main__":
    run("stream_growth", measure, SIZE, small=SMALL, runs=3)
