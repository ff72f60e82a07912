"""How many events per second can a stream process without a growing lag?

A backlog of 600k events of 500k users, by their activity, waits in Kafka. The stream processes it in micro-batches of
50k, one after another, to Delta and Redis. The lag does not grow if events arrive no faster than they are processed:
the value is the number of events divided by the seconds from the commit of the second batch to that of the last.

    make bench-stream-throughput
    python -m benchmarks.stream_throughput --small
"""

from pathlib import Path
from statistics import median

from pyspark.sql import SparkSession

from benchmarks.report import Line, span
from benchmarks.stream_data import SMALL, StreamSize, open_base, run

SIZE = StreamSize(users=500_000)
BATCHES, BATCH, SMALL_BATCH = 12, 50_000, 2_000
_WARM = 2  # batches


def measure(spark: SparkSession, size: StreamSize, root: Path, runs: int) -> Line:
    """Process a backlog. With several runs, the median counts."""
    batch, rates, seconds = SMALL_BATCH if size.users <= SMALL.users else BATCH, [], []
    for _ in range(runs):
        with open_base(spark, size, root, max_rows_per_batch=batch) as base:
            base.fill(BATCHES * batch)
            base.stream(until_empty=True)
            at = base.committed_at(BATCHES)
        seconds.append((at[-1] - at[_WARM - 1]) / (BATCHES - _WARM))
        rates.append(batch / seconds[-1])
    return {
        "benchmark": "stream_throughput",
        "size": size.facts() | {"events": BATCHES * batch, "events_per_batch": batch},
        "seconds": round(median(seconds), 3),
        "value": round(median(rates)),
        "runs": runs,
        "range": {"value": span(rates)},
    }


if __name__ == "__main__":
    run("stream_throughput", measure, SIZE, runs=3)
