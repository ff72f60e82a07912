"""How long does it take to take up a late day, against a full rebuild?

180 days of history, 50M events, 100k users, 20k items; a file with 1,000 late events of a day in the middle is added.
Ours is the inventory, the tiles of that day and the refresh of the same as-of date. The rebuild is of the features
alone, from the tiles that are then there; so the ratio is a high one. Both must hold the same bits.

    make bench-late-day-vs-full
    python -m benchmarks.late_day_vs_full --small
"""

import statistics
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from pyspark.sql import SparkSession

from benchmarks.answers import check_same, content_hash, our_features
from benchmarks.logs import AS_OF, LogSize, Site, add_late_events, link_files, open_site, site_config
from benchmarks.report import Line, progress, ratio_line, run, seconds_of
from userrep.events.inventory import take_inventory
from userrep.events.tile_build import build_tiles
from userrep.features.refresh import refresh_features

SIZE = LogSize(events=50_000_000, users=100_000)
NUM_LATE = 1000


def measure(spark: SparkSession, size: LogSize, root: Path, runs: int) -> Line:
    """Take up a late day and rebuild, in tables made anew for each run."""
    taken = []
    for _ in range(runs):
        with open_site(spark, size, root) as kept:
            site = _with_own_log(kept)
            inputs = (site.tables, site.config, site.versions)
            refresh_features(*inputs, AS_OF, full=True)
            day = AS_OF - timedelta(days=size.days // 2)
            before = content_hash(our_features(site))
            add_late_events(size, site.log, day, num=NUM_LATE)
            tiled = seconds_of(lambda site=site: _build_tiles(site))
            refreshed = seconds_of(lambda inputs=inputs: refresh_features(*inputs, AS_OF))
            found = content_hash(our_features(site))
            rebuilt = seconds_of(lambda inputs=inputs: refresh_features(*inputs, AS_OF, full=True))
            check_same(found, content_hash(our_features(site)))
            assert found != before, "late events changed no feature"
        taken.append((tiled + refreshed, rebuilt, tiled))
        progress(f"tiles in {tiled:.1f} s, refreshed in {refreshed:.1f} s, rebuilt in {rebuilt:.1f} s")
    seconds, peer_seconds, tiles_seconds = (statistics.median(column) for column in zip(*taken, strict=True))
    return ratio_line(
        "late_day_vs_full",
        size.told() | {"late_events": NUM_LATE},
        seconds=seconds,
        peer="full rebuild from the tiles",
        peer_seconds=peer_seconds,
        tiles_seconds=round(tiles_seconds, 3),
    )


def _with_own_log(kept: Site) -> Site:
    """Give a site a log of its own to add files to, and tell the inventory."""
    log = kept.folder / "log"
    link_files(kept.log, log)
    site = replace(kept, log=log, config=site_config(kept.folder, log, kept.items))
    _build_tiles(site)
    return site


def _build_tiles(site: Site) -> None:
    build_tiles(site.tables, site.config, take_inventory(site.tables, site.config.events), before=AS_OF)


if __name__ == "__main__":
    run("late_day_vs_full", measure, SIZE, runs=1)
