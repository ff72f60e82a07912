"""Do time and memory of a full build of user features grow only in proportion to the events?

80M events of 800k users in a year, compared with 10M events of 100k: the same number of events per user, and 20k items.
Windows include the default history window. The value is the time for the larger log divided by 8 times that for the
smaller one; 1 is linear growth. ``worker_mib`` is the peak resident memory of the largest Python worker, with one task
per core; it should not grow.

    make bench-features-growth
    python -m benchmarks.features_growth --small
"""

from pathlib import Path

from pyspark.sql import SparkSession

from benchmarks.answers import our_features
from benchmarks.logs import AS_OF, LogSize, open_site
from benchmarks.report import Line, growth_line, progress, run, seconds_of, watched_workers
from userrep.features.build import build_features

SIZE = LogSize(events=10_000_000, users=100_000)
TIMES = 8


def measure(spark: SparkSession, size: LogSize, root: Path, runs: int) -> Line:
    """Build the features of both logs."""
    large = size.of_events(TIMES * size.events)
    by_run, mib = _seconds_and_mib(spark, size, root, runs)
    large_by_run, large_mib = _seconds_and_mib(spark, large, root, runs)
    return growth_line(
        "features_growth", large.facts(), size.facts(), list(zip(by_run, large_by_run, strict=True)), times=TIMES,
        worker_mib=round(large_mib), smaller_worker_mib=round(mib),
    )  # fmt: skip


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
