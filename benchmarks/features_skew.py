"""How uneven are the tasks, and how much memory do they take, if a few users and items have most of the events?

20M events in a year. One user has 10% of all events, a bot has one event with each of a million items, and half of all
other events are with one item. The rest is as in the other logs (100k users, 20k items). Features are built in a
session whose JVM has 2 GiB, from 16 ranges of users. The value is the time of the slowest task divided by the median's.
``worker_mib`` is the peak of private memory of the largest Python worker, without mapped files.

    make bench-features-skew
    python -m benchmarks.features_skew --small
"""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pyspark.sql import SparkSession

from benchmarks.answers import our_features
from benchmarks.logs import AS_OF, SMALL, LogSize, open_site
from benchmarks.report import Line, run, seconds_of, span, watched_workers
from userrep.features.build import build_features

SIZE = LogSize(events=20_000_000, users=100_000, skewed=True)
RANGES = 16


def measure(spark: SparkSession, size: LogSize, root: Path, runs: int) -> Line:
    """Build the features, sample the workers' memory, and read the seconds of each task."""
    context, seconds, durations = spark.sparkContext, [], []
    with open_site(spark, size, root) as site, _ranges(spark, RANGES), watched_workers() as peak:
        for k in range(runs):
            context.setJobGroup(f"features-{k}", "features")
            seconds.append(seconds_of(lambda: build_features(site.tables, site.config, site.versions, [AS_OF])))
            durations += _task_seconds(spark, f"features-{k}")
        context.setJobGroup("other", "other")
        assert our_features(site).count() > size.users // 4
    slowest, median = max(durations), statistics.median(durations)
    return {
        "benchmark": "features_skew",
        "size": size.facts(),
        "seconds": round(statistics.median(seconds), 3),
        "value": round(slowest / median, 3),
        "runs": runs,
        "range": {"seconds": span(seconds)},
        "slowest_task_seconds": round(slowest, 3),
        "median_task_seconds": round(median, 3),
        "tasks": len(durations),
        "worker_mib": round(peak[0]),
    }


@contextmanager
def _ranges(spark: SparkSession, num: int) -> Iterator[None]:
    """Force at least this many ranges of users."""
    name = "spark.sql.shuffle.partitions"
    before = spark.conf.get(name) or ""
    spark.conf.set(name, str(num))
    try:
        yield
    finally:
        spark.conf.set(name, before)


def _task_seconds(spark: SparkSession, group: str) -> list[float]:
    """Return the seconds of each task of a job group, from Spark's status."""
    tracker, store = spark.sparkContext.statusTracker(), spark.sparkContext._jsc.sc().statusStore()
    stages = {stage for job in tracker.getJobIdsForGroup(group) for stage in tracker.getJobInfo(job).stageIds}
    found = []
    for stage in stages:
        tasks = store.taskList(stage, 0, 100_000)
        found += [tasks.apply(k).duration().get() / 1000 for k in range(tasks.size())]
    return found


if __name__ == "__main__":
    run("features_skew", measure, SIZE, runs=3, small=replace(SMALL, skewed=True), memory="2g")
