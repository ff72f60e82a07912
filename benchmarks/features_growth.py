"""Do time and memory of a full build of user features grow only in proportion to the events?

80M events of 800k users in a year, compared with 10M events of 100k: the same number of events per user, and 20k items.
Windows include the default history window. The value is the time for the larger log divided by 8 times that for the
smaller one; 1 is linear growth. ``worker_mib`` is the peak resident memory of the largest Python worker, with one task
per core; it should not grow.

    make bench-features-growth
    python -m benchmarks.features_growth --small
"""

import statistics
from pathlib import Path

from pyspark.sql import SparkSession

from benchmarks.answers import our_features
from benchmarks.logs import AS_OF, LogSize, open_site
from benchmarks.report import Line, progress, run, seconds_of, span, watched_workers
from userrep.features.build import build_features

SIZE = LogSize(events=10_000_000, users=100_000)
TIMES = 8


def measure(spark: SparkSession, size: LogSize, root: Path, runs: int) -> Line:
    """Build the features of both logs."""
    large = size.of_events(TIMES * size.events)
    by_run, mib = _seconds_and_mib(spark, size, root, runs)
    large_by_run, large_mib = _seconds_and_mib(spark, large, root, runs)
    seconds, large_seconds = statistics.median(by_run), statistics.median(large_by_run)
    return {
        "benchmark": "features_growth",
        "size": large.facts(),
        "seconds": round(large_seconds, 3),
        "smaller_size": size.facts(),
        "smaller_seconds": round(seconds, 3),
        "value": round(large_seconds / (TIMES * seconds), 3),
        "runs": runs,
        "range": {
            "value": span(
                [of_large / (TIMES * of_small) for of_large, of_small in zip(large_by_run, by_run, strict=True)]
            )
        },
        "worker_mib": round(large_mib),
        "smaller_worker_mib": round(mib),
    }


def _seconds_and_mib(spark: SparkSession, size: LogSize, root: Path, runs: int) -> tuple[list[float], float]:
    taken = []
    with open_site(spark, size, root) as site, watched_workers() as peak:
        for _ in range(runs):
            taken.append(seconds_of(lambda: build_features(site.tables, site.config, site.versions, [AS_OF])))
            progress(f"{size.events:,} events: {taken[-1]:.1f} s, a worker holds up to {peak[0]:.0f} MiB")
        assert our_features(site).count() > size.users // 2
    return taken, peak[0]


if __name__ == "__main__":
    run("features_growth", measure, SIZE, runs=3)
