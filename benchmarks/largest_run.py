"""How large a log can one machine process? 300M events of 1.5M users and 500,000 items on two cores and 24 GiB.

The log is drawn once and kept. Every stage of a first run and of the next daily run is timed: inventory, tiles, item
vectors, window sums with features; then another day of the log, its tiles, the refresh of the sums, embeddings. For
each stage the benchmark prints its rate, the peak memory of all processes together, and the size of the tables on disk.
A finished stage is skipped, so an interrupted run can be started again. A run on a tenth of the log shows how each
stage grows; the last line extrapolates that growth to a billion events.

    make bench-largest-run
    python -m benchmarks.largest_run --small
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from pyspark.sql import SparkSession

from benchmarks.daily_vs_script import add_space
from benchmarks.logs import ANCHOR, AS_OF, SMALL, LogSize, Site, add_next_day, log_files, site_config
from benchmarks.report import Line, ask, own_bytes, peak_of, print_line, progress
from userrep.features.sums.refresh import refresh_features
from userrep.items.version_training import train_versions
from userrep.items.versions import versions_of
from userrep.spaces.registry import find_space, list_spaces
from userrep.spaces.snapshots import stage_snapshots
from userrep.spark.session import get_session
from userrep.store.open import open_tables
from userrep.tiles.build import build_tiles
from userrep.tiles.inventory.inventory import take_inventory
from userrep.tiles.ledger import tile_ledger

SIZE = LogSize(events=300_000_000, users=1_500_000, items=500_000)
NIGHT = AS_OF + timedelta(days=1)
BILLION = 1_000_000_000
_GB = 1e9


def measure(spark: SparkSession, size: LogSize, root: Path, runs: int) -> Line:
    """Run the stages that are not finished."""
    del runs
    log = _own_log(size, root)
    folder = log.parent / "largest_run"
    config = site_config(folder / "tables", log, log.parent / "items.parquet")
    tables = open_tables(config, spark)
    site = Site(tables, config, versions_of(tables, config, anchor=ANCHOR), log, log.parent / "items.parquet")
    done = _Stages(folder)

    def tile(*, night: bool) -> int:
        inventory = take_inventory(tables, config.events)
        return build_tiles(tables, config, inventory, before=NIGHT if night else AS_OF).num_events

    def refresh(*, night: bool) -> int:
        return refresh_features(tables, config, site.versions, NIGHT if night else AS_OF).num_users

    def item_vectors() -> int:
        missing = site.versions.missing([AS_OF])
        return train_versions(tables, config, site.versions, missing)

    def embed() -> int:
        space_id = next((space.space_id for space in list_spaces(tables)), None) or add_space(site)
        staged = stage_snapshots(tables, config, find_space(tables, space_id), [NIGHT])
        return sum(snapshot.num_users for snapshot in staged)

    done.run("tiles of the log", "events", lambda: tile(night=False))
    done.run("item vectors", "vectors", item_vectors)
    site = replace(site, versions=versions_of(tables, config, anchor=ANCHOR))
    done.run("window sums and features", "users", lambda: refresh(night=False))
    add_next_day(size, log)
    done.run("tiles of the next day", "events", lambda: tile(night=True))
    done.run("sums moved on, and features", "users", lambda: refresh(night=True))
    done.run("embeddings", "users", embed)
    ledger = tile_ledger(tables)
    return {
        "benchmark": "largest_run" if size == SIZE else f"largest_run_{size.events}",
        "size": size.facts()
        | {"tiles": ledger.num_tiles([(day, tiled.revision) for day, tiled in ledger.days.items()])},
        "value": round(sum(stage["seconds"] for stage in done.stages.values()), 1),
        "stages": done.stages,
    }


class _Stages:
    """The seconds and memory of stages, kept in a file after each of them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._tables = folder / "stages.json", folder / "tables"
        self.stages: dict[str, dict[str, Any]] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def run(self, name: str, unit: str, work: Callable[[], int]) -> None:
        """Run a stage unless it is finished; ``work`` returns the number of ``unit`` it has processed."""
        if name in self.stages:
            return progress(f"{name}: done before")
        start, cores = time.perf_counter(), os.cpu_count() or 1
        with peak_of(_memory, every=0.5) as peak:
            num = work()
        seconds = time.perf_counter() - start
        self.stages[name] = {
            "seconds": round(seconds, 1),
            unit: num,
            f"{unit}_per_core_second": round(num / seconds / cores),
            "peak_memory_gb": round(peak[0] / _GB, 1),
            "tables_gb": round(_size_of(self._tables) / _GB, 2),
        }
        self._path.write_text(json.dumps(self.stages), encoding="utf-8")
        progress(f"{name}: {self.stages[name]}")
        return None


def extrapolated(small: Line, large: Line, num_events: int = BILLION) -> dict[str, float]:
    """Return the seconds of each stage for this many events, extrapolated from the growth between two lines."""
    sizes = small["size"]["events"], large["size"]["events"]
    found = {}
    for name, stage in large["stages"].items():
        growth = math.log(stage["seconds"] / small["stages"][name]["seconds"]) / math.log(sizes[1] / sizes[0])
        found[name] = round(stage["seconds"] * (num_events / sizes[1]) ** growth)
    return found


def _own_log(size: LogSize, root: Path) -> Path:
    """Return the folder of a copy of the log, to which a day is added."""
    drawn, items = log_files(size, root)
    folder = root / f"largest-{size.name}"
    if not folder.exists():
        (folder / "events").mkdir(parents=True)
        for file in drawn.iterdir():
            os.link(file, folder / "events" / file.name)
        shutil.copy2(items, folder / "items.parquet")
    return folder / "events"


def _memory() -> float:
    """Return the memory of this process and its descendants."""
    own = psutil.Process()
    return sum(own_bytes(process) for process in [own, *own.children(recursive=True)])


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Run a tenth and the whole; print both lines, and an estimate for a billion events."""
    asked = ask("largest_run", SIZE, small=SMALL, runs=1, unit="events", number=SIZE.events, resized=SIZE.of_events)
    spark = get_session(master=f"local[{os.cpu_count()}]", conf={"spark.driver.memory": "6g"}, app_name="largest_run")
    tenth = replace(asked.size.of_events(asked.size.events // 10), items=max(10, asked.size.items // 10))
    lines: list[Line] = []
    for size in (tenth, asked.size):
        print_line("largest_run", lambda size=size: lines.append(measure(spark, size, asked.root, 1)) or lines[-1])
    if len(lines) == 2 and not asked.is_small:
        billion = {
            "benchmark": "largest_run_extrapolated",
            "size": {"events": BILLION, "cores": os.cpu_count()},
            "value": sum(extrapolated(*lines).values()),
            "seconds_by_stage": extrapolated(*lines),
            "how": "extrapolated by each stage's growth from a tenth of the log to all of it",
        }
        print_line("largest_run", lambda: billion)
    spark.stop()


if __name__ == "__main__":
    main()
