"""How long from an event in Kafka to the embedding in Redis?

200 events a second for two minutes after a minute of warming up, of 500k users with openings of real width (three
windows of two modalities of 80), by their activity. The stream runs as `userrep stream` does, with the default trigger,
on the cores of this machine, which Kafka, Redis and the load share. The load is another process: of every tenth event
it takes the seconds from sending to the look in Redis that finds the vector. The value is their 95th percentile.

    make bench-stream-latency
    python -m benchmarks.stream_latency --small
"""

from pathlib import Path

import numpy as np
from pyspark.sql import SparkSession

from benchmarks.report import Line
from benchmarks.stream_data import SMALL, StreamSize, open_base, run
from benchmarks.stream_load import EVENT, Load, latencies

SIZE = StreamSize(users=500_000)
LOAD, SMALL_LOAD = Load(seconds=120, warm=60), Load(seconds=20, warm=10)


def measure(spark: SparkSession, size: StreamSize, root: Path, runs: int) -> Line:
    """Stream under the load; of several runs all latencies count."""
    load, seconds = SMALL_LOAD if size.users <= SMALL.users else LOAD, []
    for _ in range(runs):
        with open_base(spark, size, root) as base:
            seconds += latencies(base, load)[EVENT]
    return {
        "benchmark": "stream_latency",
        "size": size.told() | load.told() | {"watched": len(seconds)},
        "seconds": round(float(np.median(seconds)), 3),
        "worst_seconds": round(max(seconds), 3),
        "value": round(float(np.percentile(seconds, 95)), 3),
    }


if __name__ == "__main__":
    run("stream_latency", measure, SIZE)
