"""A user with a tenth of all events and a bot: counted as plainly as everybody, a piece at a time, and reported."""

from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from pyspark.sql import SparkSession

from tests.support.builders import config_of, event, write_rows
from tests.support.log_lines import messages_to
from userrep.config import Config
from userrep.features.build import read_features, stored_features
from userrep.features.sums import bucket_files
from userrep.features.sums.inputs import PoolingInputs, listed_files
from userrep.items.versions import lineage_of
from userrep.store.buckets import NUM_BUCKETS, BucketRange
from userrep.store.open import open_tables
from userrep.store.tables import Tables
from userrep.tiles.build import build_tiles
from userrep.tiles.inventory.inventory import take_inventory
from userrep.tiles.ledger import read_tiles, tile_ledger
from userrep.workflows.data_stages import (
    HeavyUsers,
    build_activity_tiles,
    build_user_features,
    heavy_users,
    train_item_vectors,
)
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.default

FIRST, AS_OF, NUM_ITEMS = date(2024, 3, 1), date(2024, 3, 8), 3000
VECTORS = np.rint(np.random.default_rng(2).standard_normal((NUM_ITEMS, 3)) * 2**16) / 2**16
HEAVY, BOT, OTHERS = "heavy", "bot", [f"u{k}" for k in range(300)]


class Log(NamedTuple):
    """A log of 300 users with 20 events each, one with a tenth of all, and a bot that takes every item every day."""

    config: Config
    tables: Tables
    rows: list[tuple[str, int, date]]  # user, item, day

    def events_of(self, user: str, days: int) -> list[tuple[str, int, date]]:
        return [row for row in self.rows if row[0] == user and AS_OF - timedelta(days=days) <= row[2] < AS_OF]


def drawn() -> list[tuple[str, int, datetime]]:
    random, begin = np.random.default_rng(1), datetime(2024, 3, 1)
    users = [user for user in OTHERS for _ in range(20)]
    users += [HEAVY] * ((len(users) + 7 * NUM_ITEMS) // 9)
    rows = [(user, int(random.integers(NUM_ITEMS)), int(random.integers(7 * 86400 * 1000))) for user in users]
    rows += [(BOT, item, day * 86400000 + 3 * item) for day in range(7) for item in range(NUM_ITEMS)]
    return [(user, item, begin + timedelta(milliseconds=at)) for user, item, at in rows]


@pytest.fixture(scope="module")
def log(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Log:
    folder, rows = tmp_path_factory.mktemp("heavy"), sorted(set(drawn()))
    as_log = [event(user, f"i{item}", str(at), device="tv" if item % 3 else "phone") for user, item, at in rows]
    write_rows(folder / "events" / "a.parquet", as_log)
    spark.read.parquet(str(folder / "events")).write.json(str(folder / "json"))
    write_rows(
        folder / "items.parquet", [{"item_id": f"i{k}", "vector": list(vector)} for k, vector in enumerate(VECTORS)]
    )
    config = config_of(
        folder,
        events={"columns": {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at",
                            "context": ["device"]}},
        items={"path": str(folder / "items.parquet"), "columns": {"item_id": "item_id", "vector": "vector"}},
        item_vectors={"given": {"kind": "vector", "dim": 3}},
        history_days=0,
    )  # fmt: skip
    return Log(config, open_tables(config, spark), [(user, item, at.date()) for user, item, at in rows])


@pytest.fixture(scope="module")
def told(log: Log, spark: SparkSession) -> list[str]:
    """What a run over it says."""
    said: list[str] = []
    work = RunContext(log.config, spark, AS_OF)
    with messages_to(said.append):
        build_activity_tiles(work)
        train_item_vectors(work, [AS_OF])
        build_user_features(work, [AS_OF])
    return said


def counted(tables: Tables) -> dict[tuple[str, int, date], int]:
    tiles = read_tiles(tables, start=None, end=AS_OF).select("user_id", "item_id", "event_date", "num_events")
    return {(row.user_id, int(row.item_id[1:]), row.event_date): row.num_events for row in tiles.collect()}


def test_tiles_are_a_plain_count_made_by_tasks_or_by_spark(log: Log, told: list[str], tmp_path: Path) -> None:
    assert counted(log.tables) == Counter(log.rows)
    events = log.config.events.model_dump(include={"columns"}, exclude_none=True)
    source = {**events, "path": str(Path(log.config.events.path).parent / "json"), "format": "json"}
    config = config_of(tmp_path, events=source)
    tables = open_tables(config, log.tables.spark)
    build_tiles(tables, config, take_inventory(tables, config.events), before=AS_OF)
    assert counted(tables) == Counter(log.rows)
    wanted, found = (
        {
            (row.event_date, row.user_id, row.item_id): row.num_by_context
            for row in read_tiles(of, start=None, end=AS_OF)
            .select("event_date", "user_id", "item_id", "num_by_context")
            .collect()
        }
        for of in (log.tables, tables)
    )
    assert found == wanted


def test_features_are_a_plain_count_and_a_plain_mean(log: Log, told: list[str]) -> None:
    rows = read_features(log.tables, log.config, lineage_of(log.config), [AS_OF]).collect()
    assert {row.user_id for row in rows} == {HEAVY, BOT, *OTHERS}
    for row in rows:
        for days in log.config.windows_days:
            mine = log.events_of(row.user_id, days)
            assert row[f"num_events_{days}d"] == len(mine)
            mean = VECTORS[[item for _, item, _ in mine]].sum(axis=0) / len(mine) if mine else np.zeros(3)
            assert row[f"given_{days}d"] == pytest.approx(mean, rel=1e-6)


def test_no_more_than_a_few_rows_of_a_user_are_taken_at_a_time(
    log: Log, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_files, "STEP_ROWS", 250)
    monkeypatch.setattr(bucket_files, "MAX_STEP_ROWS", 1000)
    days = {day: revision for day, (_, revision) in tile_ledger(log.tables).latest.items()}
    tiles = dict.fromkeys(days.items(), (False, True))
    sources = listed_files(log.tables, PoolingInputs(log.tables, tiles, sums=None, profiles_version=None))
    of_bot, largest = 0, 0
    for chunk in bucket_files.chunks_of_files(sources, BucketRange(0, NUM_BUCKETS), context=True):
        largest = max(largest, chunk.tiles.num_rows)
        of_bot += chunk.tiles.column("user_id").to_pylist().count(BOT)
    assert of_bot == 7 * NUM_ITEMS
    assert largest < 1000 + NUM_ITEMS + 1000  # at most one row group of a day on top


def test_a_run_reports_the_share_of_heavy_users_without_their_names(log: Log, told: list[str]) -> None:
    share = len(log.events_of(BOT, 7)) / len(log.rows)
    heavy = len(log.events_of(HEAVY, 7)) / len(log.rows)
    assert heavy == pytest.approx(0.1, abs=0.002)
    (line,) = [line for line in told if line.startswith("build_user_features")]
    assert f"; 2 users have 1% or more each, the largest {share:.1%} of all events of 7 days" in line
    assert not [line for line in told if HEAVY in line or BOT in line]
    features = stored_features(log.tables, log.config, lineage_of(log.config), [AS_OF])
    assert heavy_users(features, 7) == HeavyUsers(2, share, 7)
    assert str(HeavyUsers(1, 0.1, 180)) == "one user has 10.0% of all events of 180 days"
