"""How long does the daily refresh of user features take, compared with a full rebuild?

50M events of 100k users in a year, 20k items, windows of 7, 30 and 180 days and the default history window. The window
sums of the previous day exist. The refresh moves them to the as-of date. The rebuild is ``build_features``, which reads
the tiles and writes features, but no sums. The results must be bit-identical. The time of a refresh grows with the
users, that of a rebuild with the events.

    make bench-refresh-vs-full
    python -m benchmarks.refresh_vs_full --small
"""

from datetime import timedelta
from pathlib import Path

from pyspark.sql import SparkSession

from benchmarks.answers import check_same, content_hash, our_features
from benchmarks.logs import AS_OF, LogSize, open_site
from benchmarks.report import Line, progress, ratio_line, run, seconds_of
from userrep.features.build import build_features
from userrep.features.sums.refresh import refresh_features

SIZE = LogSize(events=50_000_000, users=100_000)


def measure(spark: SparkSession, size: LogSize, root: Path, runs: int) -> Line:
    """Refresh and rebuild tables of the previous day, which are restored for each run."""
    taken = []
    for _ in range(runs):
        with open_site(spark, size, root, as_ofs=[AS_OF - timedelta(days=1), AS_OF]) as site:
            refresh_features(site.tables, site.config, site.versions, AS_OF - timedelta(days=1), full=True)
            refreshed = seconds_of(lambda site=site: refresh_features(site.tables, site.config, site.versions, AS_OF))
            found = content_hash(our_features(site))
            rebuilt = seconds_of(lambda site=site: build_features(site.tables, site.config, site.versions, [AS_OF]))
            check_same(found, content_hash(our_features(site)))
        taken.append((refreshed, rebuilt))
        progress(f"refreshed in {refreshed:.1f} s, rebuilt in {rebuilt:.1f} s")
    return ratio_line("refresh_vs_full", size.facts(), taken, peer="full rebuild from the tiles")


if __name__ == "__main__":
    run("refresh_vs_full", measure, SIZE, runs=3)
