"""How long does it take from an event in Kafka to the embedding in Redis?

200 events per second for two minutes after a minute of warm-up, of 500k users by their activity, with a base of real
width (four windows of two modalities with 80 numbers). The stream runs like `userrep stream`, with the default
trigger, and shares the machine's cores with Kafka, Redis and the load. The load is a process of its own. For every
tenth event it measures the seconds from sending to the look-up in Redis that finds the vector. The value is their 95th
percentile.

    make bench-stream-latency
    python -m benchmarks.stream_latency --small
"""

from pathlib import Path

import numpy as np
from pyspark.sql import SparkSession

from benchmarks.report import Line, span
from benchmarks.stream_data import SMALL, StreamSize, open_base, run
from benchmarks.stream_load import EVENT, Load, latencies

SIZE = StreamSize(users=500_000)
LOAD, SMALL_LOAD = Load(seconds=120, warm=60), Load(seconds=20, warm=10)


def measure(spark: SparkSession, size: StreamSize, root: Path, runs: int) -> Line:
    """Stream under the load. With several runs, all latencies count."""
    load, by_run = SMALL_LOAD if size.users <= SMALL.users else LOAD, []
    for _ in range(runs):
        with open_base(spark, size, root) as base:
            by_run.append(latencies(base, load)[EVENT])
    seconds = [one for run_seconds in by_run for one in run_seconds]
    return {
        "benchmark": "stream_latency",
        "size": size.facts() | load.facts() | {"watched": len(seconds)},
        "seconds": round(float(np.median(seconds)), 3),
        "worst_seconds": round(max(seconds), 3),
        "value": round(float(np.percentile(seconds, 95)), 3),
        "runs": runs,
        "range": {"value": span([float(np.percentile(run_seconds, 95)) for run_seconds in by_run])},
    }


if __name__ == "__main__":
    run("stream_latency", measure, SIZE, runs=3)
