"""How long does it take from a new user's first pick or event in Kafka to an embedding in Redis?

Four new users per second in addition to 200 events per second of 500k known users, for two minutes after a minute of
warm-up. New users arrive alternately with an onboarding pick and with a first event; nothing else is known about them.
All are watched by the process that sends them, as in stream_latency. The value is the 95th percentile of both kinds
together.

    make bench-stream-new-user
    python -m benchmarks.stream_new_user --small
"""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from pyspark.sql import SparkSession

from benchmarks import stream_latency
from benchmarks.report import Line, span
from benchmarks.stream_data import SMALL, StreamSize, open_base, run
from benchmarks.stream_load import NEW_EVENT, NEW_PICK, latencies

SIZE = stream_latency.SIZE
NEW_RATE = 4.0


def measure(spark: SparkSession, size: StreamSize, root: Path, runs: int) -> Line:
    """Stream under the load. With several runs, all latencies count."""
    load = stream_latency.SMALL_LOAD if size.users <= SMALL.users else stream_latency.LOAD
    load, by_kind, by_run = replace(load, new_rate=NEW_RATE), defaultdict[str, list[float]](list), []
    for _ in range(runs):
        with open_base(spark, size, root) as base:
            found = latencies(base, load)
        for kind in (NEW_PICK, NEW_EVENT):
            by_kind[kind] += found[kind]
        by_run.append(float(np.percentile([*found[NEW_PICK], *found[NEW_EVENT]], 95)))
    both = [*by_kind[NEW_PICK], *by_kind[NEW_EVENT]]
    return {
        "benchmark": "stream_new_user",
        "size": size.facts() | load.facts() | {"watched": len(both)},
        "seconds": round(float(np.median(both)), 3),
        "worst_seconds": round(max(both), 3),
        "p95_seconds_of": {kind: round(float(np.percentile(seconds, 95)), 3) for kind, seconds in by_kind.items()},
        "value": round(float(np.percentile(both, 95)), 3),
        "runs": runs,
        "range": {"value": span(by_run)},
    }


if __name__ == "__main__":
    run("stream_new_user", measure, SIZE, runs=3)
