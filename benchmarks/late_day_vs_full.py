"""How long does it take to include a late day, compared with a full rebuild?

50M events of 100k users in a year, 20k items, windows of 7, 30 and 180 days and the default history window. A file with
1,000 late events of a day in the middle is added. Both sides take the inventory and build new tiles of that day. Then
ours corrects the window sums, while the rebuild computes the features of the as-of date from all tiles. The results
must be bit-identical. ``tiles_seconds`` is the part that both sides share.

    make bench-late-day-vs-full
    python -m benchmarks.late_day_vs_full --small
"""

import statistics
from datetime import timedelta
from pathlib import Path

from pyspark.sql import SparkSession

from benchmarks.answers import check_same, content_hash, our_features
from benchmarks.logs import AS_OF, LogSize, add_late_events, build_site_tiles, open_site, with_own_log
from benchmarks.report import Line, progress, ratio_line, run, seconds_of
from userrep.features.build import build_features
from userrep.features.sums.refresh import refresh_features

SIZE = LogSize(events=50_000_000, users=100_000)
NUM_LATE = 1000


def measure(spark: SparkSession, size: LogSize, root: Path, runs: int) -> Line:
    """Include a late day and rebuild, in new tables for each run."""
    taken, tiles = [], []
    for _ in range(runs):
        with open_site(spark, size, root) as kept:
            site = with_own_log(kept)
            refresh_features(site.tables, site.config, site.versions, AS_OF, full=True)
            day = AS_OF - timedelta(days=size.days // 2)
            before = content_hash(our_features(site))
            add_late_events(size, site.log, day, num=NUM_LATE)
            tiled = seconds_of(lambda site=site: build_site_tiles(site))
            refreshed = seconds_of(lambda site=site: refresh_features(site.tables, site.config, site.versions, AS_OF))
            found = content_hash(our_features(site))
            rebuilt = seconds_of(lambda site=site: build_features(site.tables, site.config, site.versions, [AS_OF]))
            check_same(found, content_hash(our_features(site)))
            assert found != before, "late events changed no feature"
        taken.append((tiled + refreshed, tiled + rebuilt))
        tiles.append(tiled)
        progress(f"late day: tiles in {tiled:.1f} s, refreshed in {refreshed:.1f} s, rebuilt in {rebuilt:.1f} s")
    return ratio_line(
        "late_day_vs_full",
        size.facts() | {"late_events": NUM_LATE},
        taken,
        peer="tiles of the day, full rebuild of the features",
        tiles_seconds=round(statistics.median(tiles), 3),
    )


if __name__ == "__main__":
    run("late_day_vs_full", measure, SIZE, runs=3)
