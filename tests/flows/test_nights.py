"""Nights of refreshes with late data in between, against one rebuild: the same bits."""

import shutil
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from tests.support.builders import pipeline_config
from userrep.config import Config, load_config
from userrep.features.build import read_features
from userrep.features.sums.generations import generations
from userrep.features.sums.refresh import refresh_features
from userrep.items.version_training import train_versions
from userrep.items.versions import Versions, versions_of
from userrep.store.open import open_tables
from userrep.store.schemas import USER_WINDOW_SUMS
from userrep.tiles.build import build_tiles
from userrep.tiles.inventory.inventory import take_inventory

pytestmark = pytest.mark.full  # on a smaller log, tests/unit/features/test_refresh.py compares the bits

ROOT = Path(__file__).parents[2]
RETAIL = ROOT.parent / "shared/data/online_retail_ii"
Added = Callable[[date, int], None]


class Nights:
    """Tables that refreshes move on night by night."""

    def __init__(self, spark: SparkSession, config: Config, first: date, last: date) -> None:
        self.tables, self.config = open_tables(config, spark), config
        self.dates = [first + timedelta(days=k) for k in range((last - first).days + 1)]
        self.tile()
        if missing := self.versions.missing(self.dates):
            train_versions(self.tables, config, self.versions, missing)

    @property
    def versions(self) -> Versions:
        return versions_of(self.tables, self.config, anchor=self.dates[0])

    def tile(self) -> list[date]:
        inventory = take_inventory(self.tables, self.config.events)
        return build_tiles(self.tables, self.config, inventory, before=self.dates[-1]).days

    def run(self, add_late: Added, *, every: int, num: int) -> list[date | None]:
        """Refresh every night, after late events on some; return from which as-of date each one moved on."""
        since = []
        for night, as_of in enumerate(self.dates):
            if night % every == every - 1:
                add_late(as_of, num)
                assert self.tile()
            since.append(refresh_features(self.tables, self.config, self.versions, as_of).since)
        return since

    def content(self) -> dict[str, Any]:
        """Return the features of the last night, and the sums that they were made from."""
        lineage_id = self.versions.lineage_id
        features = read_features(self.tables, self.config, lineage_id, [self.dates[-1]]).orderBy("user_id")
        newest = generations(self.tables, lineage_id)[-1].generation
        sums = self.tables.read(USER_WINDOW_SUMS).where(f"generation = {newest}").orderBy("user_id")
        return {
            "features": features.toArrow(),
            "sums": sums.select("user_id", "sums", "active_at", "num_by_context").toArrow(),
        }

    def check(self, add_late: Added, *, every: int, num: int) -> None:
        """Run all nights; most of them move on, and the last one's content is that of a rebuild."""
        since = self.run(add_late, every=every, num=num)
        assert sum(day is not None for day in since) > len(since) * 3 // 4
        moved = self.content()
        refresh_features(self.tables, self.config, self.versions, self.dates[-1], full=True)
        rebuilt = self.content()
        assert moved["sums"].num_rows > 100
        for what, table in rebuilt.items():
            for name in table.column_names:  # a map's entries have no order
                wanted, found = table.column(name), moved[what].column(name)
                if pa.types.is_map(wanted.type):
                    assert [dict(m) for m in wanted.to_pylist()] == [dict(m) for m in found.to_pylist()]
                else:
                    assert wanted.equals(found), f"{what}: {name}"


def add_copies(log: pa.Table, folder: Path, event_at: str, reach: timedelta) -> Added:
    """Let events of the log come again, late: at other times of one day of the days before."""
    random = np.random.default_rng(11)

    def add(as_of: date, num: int) -> None:
        rows = log.take(pa.array(random.integers(log.num_rows, size=num)))
        day = as_of - timedelta(days=int(random.integers(1, reach.days)))
        at = [
            datetime(day.year, day.month, day.day) + timedelta(seconds=int(s)) for s in random.integers(86400, size=num)
        ]
        place = rows.schema.get_field_index(event_at)
        late = rows.set_column(place, rows.schema.field(place), pa.array(at).cast(rows.schema.field(place).type))
        pq.write_table(late, folder / f"late-{as_of}.parquet")

    return add


def test_sixty_nights_on_a_generated_log_end_as_a_rebuild(
    spark: SparkSession, log: Path, run_once: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "log"
    shutil.copytree(log, folder)
    shutil.copytree(run_once / "root", tmp_path / "root")
    config = pipeline_config(folder, tmp_path / "root")
    last = date(2024, 3, 20)
    nights = Nights(spark, config, last - timedelta(days=60), last)
    events = pq.read_table(folder / "events")
    fresh = events.drop_columns("event_id").append_column(
        "event_id", pa.array([f"late-{k}" for k in range(len(events))])
    )
    add_late = add_copies(fresh.select(events.column_names), folder / "events", "event_at", timedelta(days=40))
    nights.check(add_late, every=13, num=50)


@pytest.mark.skipif(not RETAIL.exists(), reason="shared data is absent: online_retail_ii")
def test_sixty_nights_on_online_retail_end_as_a_rebuild(spark: SparkSession, tmp_path: Path) -> None:
    events = tmp_path / "events"
    events.mkdir()
    shutil.copy(RETAIL / "online_retail_ii_events.parquet", events / "log.parquet")
    places = {"items.path": "items.parquet", "users.path": "users.parquet"}
    paths = [f"events.path={events}", f"root={tmp_path / 'root'}", *(f"{k}={RETAIL / v}" for k, v in places.items())]
    cheap = ["item_vectors.behaviour={kind: als, dim: 8, iterations: 2}", "item_vectors.content={kind: text, dim: 8}"]
    config = load_config(ROOT / "conf/online_retail_ii.yaml", [*paths, *cheap])
    nights = Nights(spark, config, date(2011, 8, 1), date(2011, 10, 1))
    log = pq.read_table(events / "log.parquet")
    nights.check(add_copies(log, events, "timestamp", timedelta(days=350)), every=20, num=1000)
