"""The daily refresh on Delta tables: the same rows as a full rebuild, from the days that differ alone."""

import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ByteSize
from pyspark.sql import SparkSession

from tests.support.builders import at, config_of, cut_off_before_a_row_of, event, left_to_spark, write_rows
from userrep.config import Config
from userrep.errors import UserrepError
from userrep.features.build import Features, build_features, read_features, stored_features
from userrep.features.ledger import feature_sets, stale_features
from userrep.features.sums import refresh as refreshing
from userrep.features.sums.generations import generations
from userrep.features.sums.item_matrix import item_parts
from userrep.features.sums.plan import PoolingPlan
from userrep.features.sums.refresh import Refresh, refresh_features
from userrep.items.version_training import train_versions
from userrep.items.versions import Versions, versions_of
from userrep.store.buckets import NUM_BUCKETS
from userrep.store.file_tables import FileTables
from userrep.store.open import open_tables
from userrep.store.schemas import JOB_RUNS, SUM_GENERATIONS, TILE_DAYS, USER_WINDOW_SUMS, TableSchema
from userrep.store.tables import Tables
from userrep.store.xxhash import bucket_of
from userrep.tiles.build import build_tiles
from userrep.tiles.inventory.inventory import take_inventory
from userrep.tiles.ledger import tile_ledger
from userrep.workflows.data_stages import build_user_features, refresh_user_features
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.default

FIRST = date(2024, 2, 20)
D1, D2, D3, D4 = (date(2024, 3, day) for day in (11, 12, 13, 14))
COLUMNS = {
    "user_id": "user_id",
    "item_id": "item_id",
    "event_at": "event_at",
    "weight": "score",
    "context": ["device"],
}


class Shop:
    """A log of one file a day, and what is built from it."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.folder = folder
        self.random = np.random.default_rng(3)
        for k in range(24):
            day = FIRST + timedelta(days=k)
            self.add(day, 40, f"day-{day}")
        self.add_returned(date(2024, 2, 28))  # in the longest window of D1, in the history alone of D2 and D3
        items = [{"item_id": f"i{k}", "vector": self.random.standard_normal(3).tolist()} for k in range(9)]
        write_rows(folder / "items.parquet", items)
        write_rows(folder / "users.parquet", [{"user_id": "quiet", "since": at("2024-03-05"), "country": "se"}])
        picks = [{"user_id": user, "item_id": "i1", "at": at("2024-03-10")} for user in ("quiet", "u1")]
        write_rows(folder / "picks.parquet", picks)
        self.config: Config = config_of(
            folder,
            events={"columns": COLUMNS},
            items={"path": str(folder / "items.parquet"), "columns": {"item_id": "item_id", "vector": "vector"}},
            users={
                "path": str(folder / "users.parquet"),
                "columns": {"user_id": "user_id", "registered_at": "since"},
                "attributes": ["country"],
            },
            onboarding={
                "path": str(folder / "picks.parquet"),
                "columns": {"user_id": "user_id", "item_id": "item_id", "event_at": "at"},
            },
            windows_days=[2, 12],
            history_days=16,
            item_vectors={"given": {"kind": "vector", "dim": 3}},
        )  # fmt: skip
        self.tables = open_tables(self.config, spark)
        self.tile()
        train_versions(self.tables, self.config, self.versions, self.versions.missing([D1, D3]))

    def add(self, day: date, num_events: int, name: str) -> None:
        """Add a file of events of one day."""
        draw = self.random
        midnight = datetime(day.year, day.month, day.day)
        rows = [
            event(
                "heavy" if draw.random() < 0.3 else f"u{draw.integers(12)}", f"i{draw.integers(10)}",
                str(midnight + timedelta(minutes=int(draw.integers(1440)))), score=int(draw.integers(900)) / 256,
                device=str(draw.choice(["tv", "phone"])),
            )
            for _ in range(num_events)
        ]  # fmt: skip
        write_rows(self.folder / "events" / f"{name}.parquet", rows)

    def add_returned(self, day: date) -> None:
        """Add a file of one event of user ``returned``."""
        rows = [event("returned", "i1", f"{day} 12:00:00", score=2.0, device="tv")]
        write_rows(self.folder / "events" / f"returned-{day}.parquet", rows)

    @property
    def versions(self) -> Versions:
        return versions_of(self.tables, self.config, anchor=D1)

    def tile(self, before: date = D3) -> None:
        build_tiles(self.tables, self.config, take_inventory(self.tables, self.config.events), before=before)

    def refresh(self, as_of: date, *, full: bool = False) -> Refresh:
        return refresh_features(self.tables, self.config, self.versions, as_of, full=full)

    def features(self, as_of: date) -> list[tuple[object, ...]]:
        rows = read_features(self.tables, self.config, self.versions.lineage_id, [as_of]).orderBy("user_id").collect()
        return [tuple(row) for row in rows]

    def newest(self) -> int:
        return generations(self.tables, self.versions.lineage_id)[-1].generation

    def sums(self) -> list[tuple[object, ...]]:
        rows = self.tables.read(USER_WINDOW_SUMS).where(f"generation = {self.newest()}").orderBy("user_id")
        return [tuple(row) for row in rows.select("user_id", "sums", "active_at", "num_by_context").collect()]


def test_features_that_were_built_again_do_not_show_whether_the_sums_are_exact(
    spark: SparkSession, tmp_path: Path
) -> None:
    shop = Shop(spark, tmp_path)
    heavy = tmp_path / "events" / "heavy.parquet"
    write_rows(heavy, [event("u1", "i1", "2024-03-08 12:00:00", score=2.0**40, device="tv")])
    shop.tile()
    shop.refresh(D1)
    assert feature_sets(shop.tables, shop.versions.lineage_id)[D1].num_inexact == 1
    heavy.unlink()  # the log is corrected
    shop.tile()
    build_features(shop.tables, shop.config, shop.versions, [D1])
    assert feature_sets(shop.tables, shop.versions.lineage_id)[D1].num_inexact == 0
    moved = shop.refresh(D2)
    assert (moved.since, moved.reason) == (None, f"features of {D1} were built from other days than the sums")
    assert shop.refresh(D3).since == D2


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop whose sums have moved from D1 to D2, then by late events and a rewritten day to D3."""
    shop = Shop(spark, tmp_path_factory.mktemp("shop"))
    shop.done = [shop.refresh(D1), shop.refresh(D2)]  # type: ignore[attr-defined]
    shop.add(date(2024, 3, 8), 5, "late")
    shop.add(date(2024, 3, 12), 3, "later")
    shop.add(date(2024, 3, 9), 20, "day-2024-03-09")
    shop.add(date(2024, 2, 28), 2, "late-in-the-history")
    shop.add_returned(date(2024, 3, 12))
    shop.tile()
    shop.done.append(shop.refresh(D3))  # type: ignore[attr-defined]
    return shop


@pytest.fixture(scope="module")
def moved(shop: Shop) -> Iterator[dict[str, list[tuple[object, ...]]]]:
    """What the refreshes left, before anything is rebuilt."""
    return {"features": shop.features(D3), "sums": shop.sums()}


def test_the_first_refresh_builds_and_the_next_ones_move_on(shop: Shop) -> None:
    first, second, third = shop.done  # type: ignore[attr-defined]
    assert (first.since, first.reason) == (None, "no window sums yet")
    assert (second.since, third.since) == (D1, D2)
    assert 0 < second.num_tiles < first.num_tiles


def test_a_day_s_move_reads_the_days_that_change_rings_alone(shop: Shop) -> None:
    leaving = [D1 - timedelta(days=days) for days in (2, 12, 16)]
    ledger = refreshing.tile_ledger(shop.tables)
    at_first = [(day, 1) for day in (D1, *leaving)]
    assert all(ledger.num_tiles([tiles]) for tiles in at_first)
    assert shop.done[1].num_tiles == ledger.num_tiles(at_first)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("moved")
def test_a_user_last_active_in_the_history_is_left_out_and_returns_with_it(shop: Shop) -> None:
    rows = read_features(shop.tables, shop.config, shop.versions.lineage_id, [D1, D2, D3])
    found = {row.as_of: row for row in rows.where("user_id = 'returned'").collect()}
    assert sorted(found) == [D1, D3]
    assert [found[day].num_events_12d for day in (D1, D3)] == [1, 1]
    assert [found[day].num_events_16d for day in (D1, D3)] == [1, 2]
    assert (found[D3].weight_16d, found[D3].num_active_days_16d, found[D3].days_since_first_event) == (4.0, 2, 1.0)


def test_a_refresh_with_late_and_rewritten_days_equals_a_full_rebuild_to_the_bit(
    shop: Shop, moved: dict[str, list[tuple[object, ...]]]
) -> None:
    assert shop.refresh(D3, full=True).since is None
    assert shop.features(D3) == moved["features"]
    assert shop.sums() == moved["sums"]
    assert "quiet" in {row[1] for row in moved["features"]}
    assert len(moved["features"]) > 10


@pytest.mark.parametrize("writer", ["tasks", "spark"])
def test_features_of_a_sample_are_the_rows_of_users_in_the_lowest_buckets(
    shop: Shop, moved: dict[str, list[tuple[object, ...]]], monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    lineage_id, half = shop.versions.lineage_id, NUM_BUCKETS // 2
    if writer == "spark":
        monkeypatch.setattr(shop, "tables", left_to_spark(shop.tables))
    build_features(shop.tables, shop.config, shop.versions, [D3], num_buckets=half)
    users = pa.array([str(row[1]) for row in moved["features"]])
    sampled = [row for row, bucket in zip(moved["features"], bucket_of(users), strict=True) if bucket < half]
    assert 0 < len(sampled) < len(moved["features"])
    assert shop.features(D3) == sampled
    assert D3 not in feature_sets(shop.tables, lineage_id)
    built = feature_sets(shop.tables, lineage_id, sampled=True)[D3]
    assert (built.num_buckets, built.num_users) == (half, len(sampled))
    shop.refresh(D3, full=True)
    assert shop.features(D3) == moved["features"]
    assert D3 in feature_sets(shop.tables, lineage_id)


def test_a_shuffle_gives_the_rows_that_files_give(
    shop: Shop, moved: dict[str, list[tuple[object, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop, "tables", left_to_spark(shop.tables))
    shop.refresh(D3, full=True)
    assert shop.features(D3) == moved["features"]
    assert shop.sums() == moved["sums"]


@pytest.mark.parametrize("writer", ["tasks", pytest.param("spark", marks=pytest.mark.full)])
def test_ranges_that_are_taken_in_parts_give_the_same_rows(
    shop: Shop, moved: dict[str, list[tuple[object, ...]]], monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    if writer == "spark":
        monkeypatch.setattr(shop, "tables", left_to_spark(shop.tables))
    monkeypatch.setattr(refreshing, "plan_ranges", lambda *_, **__: PoolingPlan(4, {1: 3, 2: 2}, 4))
    shop.refresh(D3, full=True)
    assert shop.features(D3) == moved["features"]
    assert shop.sums() == moved["sums"]


def test_only_the_last_two_generations_are_kept(shop: Shop) -> None:
    kept = {row.generation for row in shop.tables.read(USER_WINDOW_SUMS).select("generation").distinct().collect()}
    assert kept == {generation.generation for generation in generations(shop.tables, shop.versions.lineage_id)}
    assert len(kept) == 2


def test_dates_that_late_data_changed_are_stale_and_others_are_not(shop: Shop) -> None:
    stale = stale_features(shop.tables, shop.config, shop.versions, [D2, D3], profile_hashes={})
    assert stale == {D2: "days of the log or item vectors changed"}


def test_a_refresh_that_was_killed_before_its_ledger_leaves_the_earlier_sums_in_use(
    shop: Shop, moved: dict[str, list[tuple[object, ...]]]
) -> None:
    before = shop.newest()
    with cut_off_before_a_row_of(SUM_GENERATIONS, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        shop.refresh(D2)
    assert shop.newest() == before
    assert shop.refresh(D2).since == D3
    assert shop.newest() == before + 2  # the killed refresh used up a number
    sums = shop.sums()
    shop.refresh(D2, full=True)
    assert shop.sums() == sums
    assert shop.refresh(D3).since == D2
    assert shop.sums() == moved["sums"]


def test_a_refresh_starts_from_no_sums_whose_rows_a_killed_refresh_has_dropped(
    shop: Shop, moved: dict[str, list[tuple[object, ...]]]
) -> None:
    shop.refresh(D3, full=True)
    shop.refresh(D2, full=True)
    with cut_off_before_a_row_of(SUM_GENERATIONS, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        shop.refresh(D2, full=True)
    again = shop.refresh(D3)
    assert (again.since, again.reason) == (None, f"rows of the sums of {D3} were dropped by a refresh that was killed")
    assert (shop.sums(), shop.features(D3)) == (moved["sums"], moved["features"])


def test_a_refresh_reads_the_sums_that_it_has_chosen_although_another_one_drops_them(
    shop: Shop, moved: dict[str, list[tuple[object, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.refresh(D2, full=True)
    shop.refresh(D1, full=True)
    begin = Features.begin

    def overtaken(self: Features) -> Features:
        monkeypatch.setattr(Features, "begin", begin)
        shop.refresh(D1, full=True)  # by another run: drops the sums of D2
        return begin(self)

    monkeypatch.setattr(Features, "begin", overtaken)
    assert shop.refresh(D3).since == D2
    assert (shop.sums(), shop.features(D3)) == (moved["sums"], moved["features"])


@pytest.mark.parametrize("writer", ["tasks", pytest.param("spark", marks=pytest.mark.full)])
def test_a_refresh_that_was_killed_after_its_sums_makes_features_of_them(
    shop: Shop, moved: dict[str, list[tuple[object, ...]]], monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    for _ in range(2):
        shop.refresh(D3, full=True)  # no sums of D2 are left
    if writer == "spark":
        monkeypatch.setattr(shop, "tables", left_to_spark(shop.tables))
    before = shop.newest()

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("userrep.features.build.Features.record", killed)
        with pytest.raises(KeyboardInterrupt):
            shop.refresh(D2)
    assert D2 not in feature_sets(shop.tables, shop.versions.lineage_id)
    again = shop.refresh(D2)
    assert (again.since, again.num_tiles, shop.newest()) == (D2, 0, before + 1)
    made = shop.features(D2)
    build_features(shop.tables, shop.config, shop.versions, [D2])
    assert shop.features(D2) == made
    assert (shop.refresh(D3).since, shop.newest()) == (D3, before + 1)
    assert shop.features(D3) == moved["features"]


def test_sums_of_a_date_whose_features_were_cut_off_may_not_be_exact(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        shop.refresh(D2, full=True)  # no sums of D3 are left

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("userrep.features.build.Features.record", killed)
        with pytest.raises(KeyboardInterrupt):
            build_features(shop.tables, shop.config, shop.versions, [D2])
    again = shop.refresh(D3)
    assert again.since is None
    assert again.reason == f"a build of the features of {D2} was cut off, so it is not known whether the sums are exact"


@pytest.mark.parametrize("writer", ["tasks", pytest.param("spark", marks=pytest.mark.full)])
def test_features_of_a_late_refresh_do_not_replace_those_that_another_one_has_recorded(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    if writer == "spark":
        monkeypatch.setattr(shop, "tables", left_to_spark(shop.tables))
    kind, files = type(shop.tables), list[str]()
    reserve = kind.reserve

    def stored() -> list[str]:
        return sorted(stored_features(shop.tables, shop.config, shop.versions.lineage_id, [D3]).inputFiles())

    def overtaken(self: Tables, table: TableSchema, counter: str, **how: int) -> int:
        if table == USER_WINDOW_SUMS:
            monkeypatch.setattr(kind, "reserve", reserve)
            shop.refresh(D3, full=True)  # by another run, after this one's claim and before its rows
            files.extend(stored())
        return reserve(self, table, counter, **how)

    monkeypatch.setattr(kind, "reserve", overtaken)
    with pytest.raises(UserrepError, match="another run has changed the same rows meanwhile"):
        shop.refresh(D3, full=True)
    assert stored() == files != []


def test_a_refresh_that_commits_while_another_one_commits_takes_none_of_its_sums(
    shop: Shop, moved: dict[str, list[tuple[object, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    add = FileTables.add

    def overtaken(self: FileTables, table: TableSchema, rows: Any, **how: Any) -> bool:
        if table == SUM_GENERATIONS:
            monkeypatch.setattr(FileTables, "add", add)
            shop.refresh(D2, full=True)  # by another run, after this one's rows and before its row of the ledger
        return add(self, table, rows, **how)

    monkeypatch.setattr(FileTables, "add", overtaken)
    shop.refresh(D3, full=True)
    first, second = generations(shop.tables, shop.versions.lineage_id)
    assert (first.as_of, second.as_of) == (D3, D2)
    for generation in (first, second):
        rows = shop.tables.read(USER_WINDOW_SUMS).where(f"generation = {generation.generation}")
        assert rows.count() == generation.num_users
    monkeypatch.setattr(Shop, "newest", lambda _: first.generation)
    assert (shop.sums(), shop.features(D3)) == (moved["sums"], moved["features"])


@pytest.mark.full
def test_item_vectors_in_parts_give_the_same_rows_of_full_builds_and_of_refreshes(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shop.config
    small = whole.spark.model_copy(update={"item_vectors_bytes": ByteSize(100)})
    in_parts = whole.model_copy(update={"spark": small})
    assert str(item_parts(shop.tables, in_parts, shop.versions, [D3])) == "item vectors of 288 B in 4 parts"
    shop.tile(D4)
    for tables, since, day in ((shop.tables, D3, D4), (left_to_spark(shop.tables), D4, D3)):
        shop.add(date(2024, 3, 7), 10, f"late-{day}")
        shop.add(date(2024, 3, 9), 12, "day-2024-03-09")
        shop.tile()
        with monkeypatch.context() as patch:
            patch.setattr(shop, "tables", tables)
            shop.config = in_parts
            work = RunContext(in_parts, shop.tables.spark, day)
            work.tables = tables
            refresh_user_features(work)
            stage = work.runs.stages[-1]
            assert stage.outputs["since"] == since
            assert stage.reason.endswith("tiles read; item vectors of 288 B in 4 parts")
            moved = (shop.features(day), shop.sums())
            shop.refresh(day, full=True)
            rebuilt = (shop.features(day), shop.sums())
            build_user_features(work, [D2, day], force=[D2, day])
            assert work.runs.stages[-1].reason.endswith("; item vectors of 288 B in 4 parts")
            built = [shop.features(D2), shop.features(day)]
        shop.config = whole
        shop.refresh(day, full=True)
        assert moved == rebuilt == (shop.features(day), shop.sums())
        build_features(shop.tables, shop.config, shop.versions, [D2, day])
        assert [shop.features(D2), shop.features(day)] == built
    picked = {row[1]: row for row in shop.features(D3)}["quiet"]
    assert any(isinstance(value, list) and any(value) for value in picked), "the vector of what was picked"


def test_a_run_uses_the_tile_days_that_it_has_pinned_and_its_dates_are_stale_afterwards(shop: Shop) -> None:
    """Another run builds a late day between the stages of this one."""
    shop.tile(D4)
    work = RunContext(shop.config, shop.tables.spark, D4)
    work.tiles = tile_ledger(work.tables)
    shop.refresh(D4)
    wanted = shop.features(D4)
    shop.add(D4 - timedelta(days=2), 10, "later")
    shop.tile(D4)
    build_user_features(work, [D4], force=[D4])
    assert shop.features(D4) == wanted
    stages = shop.tables.ledger(JOB_RUNS, stage="build_user_features", run_id=work.runs.run_id)
    inputs = [json.loads(row.inputs) for row in stages]
    assert {row["tile_days"] for row in inputs} == {work.tiles.version} != {shop.tables.version(TILE_DAYS)}
    stale = stale_features(shop.tables, shop.config, shop.versions, [D4], profile_hashes={})
    assert stale == {D4: "days of the log or item vectors changed"}
    build_user_features(RunContext(shop.config, shop.tables.spark, D4), [D4])
    assert shop.features(D4) != wanted
