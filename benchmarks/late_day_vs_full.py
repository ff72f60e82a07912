"""How long does it take to include a late day, compared with a full rebuild?

180 days of history, 50M events, 50k users, 20k items. A file with 1,000 late events of a day in the middle is added.
Both sides start from the log and end with the features of the same as-of date (inventory, tiles and features): ours
with the existing tables, the rebuild without any. The results must be bit-identical. ``features_seconds`` is the time
to rebuild only the features, from existing tiles.

    make bench-late-day-vs-full
    python -m benchmarks.late_day_vs_full --small
"""

import statistics
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from pyspark.sql import SparkSession

from benchmarks.answers import check_same, content_hash, our_features
from benchmarks.logs import (
    AS_OF,
    LogSize,
    Site,
    add_late_events,
    build_site_tiles,
    open_site,
    site_config,
    with_own_log,
)
from benchmarks.report import Line, progress, ratio_line, run, seconds_of
from userrep.features.sums.refresh import refresh_features
from userrep.store.open import open_tables

SIZE = LogSize(events=50_000_000, users=50_000)
NUM_LATE = 1000


def measure(spark: SparkSession, size: LogSize, root: Path, runs: int) -> Line:
    """Include a late day and rebuild, in new tables for each run."""
    taken = []
    for _ in range(runs):
        with open_site(spark, size, root) as kept:
            site = with_own_log(kept)
            inputs = (site.tables, site.config, site.versions)
            refresh_features(*inputs, AS_OF, full=True)
            day = AS_OF - timedelta(days=size.days // 2)
            before = content_hash(our_features(site))
            add_late_events(size, site.log, day, num=NUM_LATE)
            tiled = seconds_of(lambda site=site: build_site_tiles(site))
            refreshed = seconds_of(lambda inputs=inputs: refresh_features(*inputs, AS_OF))
            found = content_hash(our_features(site))
            rebuilt = seconds_of(lambda inputs=inputs: refresh_features(*inputs, AS_OF, full=True))
            check_same(found, content_hash(our_features(site)))
            assert found != before, "late events changed no feature"
            tiled_anew = seconds_of(lambda site=site: build_site_tiles(_from_nothing(site)))
        taken.append((tiled + refreshed, tiled_anew + rebuilt, rebuilt))
        progress(f"late day: tiles in {tiled:.1f} s, refreshed in {refreshed:.1f} s")
        progress(f"rebuild: tiles in {tiled_anew:.1f} s, features in {rebuilt:.1f} s")
    seconds, peer_seconds, features_seconds = (statistics.median(column) for column in zip(*taken, strict=True))
    return ratio_line(
        "late_day_vs_full",
        size.facts() | {"late_events": NUM_LATE},
        seconds=seconds,
        peer="full rebuild from the log",
        peer_seconds=peer_seconds,
        features_seconds=round(features_seconds, 3),
    )


def _from_nothing(site: Site) -> Site:
    """Return a site with the same log and without tables."""
    config = site_config(site.folder / "from-nothing", site.log, site.items)
    return replace(site, tables=open_tables(config, site.tables.spark), config=config)


if __name__ == "__main__":
    run("late_day_vs_full", measure, SIZE, runs=1)
