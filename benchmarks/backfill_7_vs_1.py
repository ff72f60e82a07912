"""How long does a backfill of the features of seven weekly as-of dates take, compared with one date?

10M events, 100k users, 20k items, 410 days, so that each date has a whole history window before it. Seven separate
builds would have a ratio of 7. The features of the date that both build must be bit-identical.

    make bench-backfill-7-vs-1
    python -m benchmarks.backfill_7_vs_1 --small
"""

from datetime import timedelta
from pathlib import Path

from pyspark.sql import SparkSession

from benchmarks.answers import check_same, content_hash, our_features
from benchmarks.logs import AS_OF, LogSize, open_site
from benchmarks.report import Line, alternating, ratio_line, run
from userrep.features.build import build_features

SIZE = LogSize(events=10_000_000, users=100_000, days=410)
DATES = [AS_OF - timedelta(days=7 * k) for k in range(7)]


def measure(spark: SparkSession, size: LogSize, root: Path, runs: int) -> Line:
    """Build seven dates and one date alternately."""
    found = []
    with open_site(spark, size, root, as_ofs=DATES) as site:

        def build(dates: list) -> None:
            build_features(site.tables, site.config, site.versions, dates)
            if len(found) < 2:
                found.append(content_hash(our_features(site)))

        build(DATES[:1])
        taken = alternating(
            lambda: build(DATES), lambda: build(DATES[:1]), check=lambda: check_same(found[0], found[1]), runs=runs
        )
    return ratio_line("backfill_7_vs_1", size.facts(), taken, peer="one date")


if __name__ == "__main__":
    run("backfill_7_vs_1", measure, SIZE, runs=3)
