"""Tiles are the events of each day, counted once, and the days of the log, whatever becomes of its files."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tests.support.builders import EVENT_COLUMNS, config_of, cut_off_before_a_row_of, event, write_rows
from userrep.config import Config, Events
from userrep.errors import RejectedShareError, UsageError
from userrep.sources.read import with_validity
from userrep.store.open import open_tables
from userrep.store.schemas import REJECTED_EVENTS, TILE_DAYS, USER_ITEM_DAYS
from userrep.store.tables import Tables
from userrep.tiles.arrow_tasks import arrow_days
from userrep.tiles.build import TileBuild, build_tiles
from userrep.tiles.by_spark import tiles_of
from userrep.tiles.inventory.inventory import Inventory, take_inventory
from userrep.tiles.inventory.log_days import LogDay
from userrep.tiles.inventory.new_rows import row_hash
from userrep.tiles.ledger import days_fingerprint, read_tiles, tile_ledger

pytestmark = pytest.mark.default

LOG = "user_id STRING, item_id STRING, at TIMESTAMP, event_type STRING, weight DOUBLE, device STRING, event_id STRING"
D1, D2, D3, D4 = (date(2024, 5, day) for day in (1, 2, 3, 4))
PARTS = ("num_night", "num_morning", "num_afternoon", "num_evening")

Tile = dict[str, Any]


# What tiles are, in plain Python


def _expected(rows: list[tuple[Any, ...]], *, has_event_id: bool, has_context: bool) -> dict[tuple[Any, ...], Tile]:
    """Deduplicate and count rows of LOG, all of them valid."""
    kept: dict[Any, tuple[Any, ...]] = {}
    for row in rows:
        event_id = row[6] if has_event_id else None
        copies = (row[2].date(), row if event_id is None else event_id)
        kept[copies] = max(kept.get(copies, row), row, key=lambda r: (r[2], [(v is not None, v) for v in r]))
    tiles: dict[tuple[Any, ...], Tile] = {}
    for user, item, at, kind, weight, device, _ in kept.values():
        tile = tiles.setdefault(
            (at.date(), user, item, kind),
            {"num_events": 0, "weight": 0.0, "last_event_at": at, **dict.fromkeys(PARTS, 0), "num_by_context": {}},
        )
        tile["num_events"] += 1
        tile["weight"] += round(weight * 256) / 256
        tile["last_event_at"] = max(tile["last_event_at"], at)
        tile[PARTS[at.hour // 6]] += 1
        key = f"device={device or '(null)'}"
        tile["num_by_context"][key] = tile["num_by_context"].get(key, 0) + 1
    return tiles if has_context else {key: tile | {"num_by_context": None} for key, tile in tiles.items()}


def _found(tiles: DataFrame) -> dict[tuple[Any, ...], Tile]:
    rows = [row.asDict() for row in tiles.drop("revision", "user_slice", "user_bucket").collect()]
    found = {tuple(row.pop(key) for key in ("event_date", "user_id", "item_id", "event_type")): row for row in rows}
    assert len(found) == len(rows)
    return found


def _random_log(seed: int) -> list[tuple[Any, ...]]:
    """Make a log in which copies, near copies, and one id on two days are common."""
    draw = random.Random(seed)
    times = [
        datetime(2024, 5, 1) + timedelta(hours=draw.randrange(48), microseconds=draw.randrange(3)) for _ in range(9)
    ]
    rows = [
        (
            draw.choice(["u1", "u2", "ü3"]),
            draw.choice(["i1", "i2"]),
            draw.choice(times),
            draw.choice(["play", "skip"]),
            draw.choice([0.0, 0.3, 1.0, 7.7]),
            draw.choice(["tv", "phone", None]),
            draw.choice([None, *"abcdefghijkl"]),
        )
        for _ in range(150)
    ]
    return rows + draw.choices(rows, k=50)


@pytest.mark.parametrize(("seed", "has_event_id", "has_context"), [(1, True, True), (2, False, True), (3, True, False)])
def test_tiles_are_those_of_plain_python_at_any_partitioning(
    spark: SparkSession, shuffle_into: Callable[[int], None], seed: int, has_event_id: bool, has_context: bool
) -> None:
    columns = {
        "user_id": "user_id",
        "item_id": "item_id",
        "event_at": "at",
        "event_type": "event_type",
        "weight": "weight",
    }
    context = ["device"] if has_context else []
    log = Events(
        path="log", columns=columns | {"context": context} | ({"event_id": "event_id"} if has_event_id else {})
    )
    rows = _random_log(seed)
    for partitions, slices in ((1, 1), (7, 4)):
        shuffle_into(partitions)
        source = spark.createDataFrame(rows, LOG).repartition(partitions)
        tiles = tiles_of(
            with_validity(source, log), context=context, has_event_id=has_event_id, slices=slices, tasks=partitions
        )
        assert _found(tiles) == _expected(rows, has_event_id=has_event_id, has_context=has_context)


def test_the_same_event_id_counts_once_a_day(spark: SparkSession) -> None:
    rows = [
        ("u1", "i1", datetime(2024, 5, 1, 9), "play", 1.0, None, "e"),
        ("u2", "i1", datetime(2024, 5, 1, 23, 59, 59), "play", 2.0, None, "e"),
        ("u1", "i1", datetime(2024, 5, 2), "play", 4.0, None, "e"),
    ]
    log = Events(path="log", columns={**EVENT_COLUMNS, "event_at": "at", "event_id": "event_id", "weight": "weight"})
    tiles = tiles_of(
        with_validity(spark.createDataFrame(rows, LOG), log), context=[], has_event_id=True, slices=1, tasks=1
    )
    weights = {key[:2]: tile["weight"] for key, tile in _found(tiles).items()}
    assert weights == {(D1, "u2"): 2.0, (D2, "u1"): 4.0}


# A log that changes under its tiles


@dataclass
class State:
    """What stood in the tables after a step."""

    inventory: Inventory
    build: TileBuild | None
    days: dict[date, tuple[str, int]]
    tiles: dict[tuple[Any, ...], Tile]


@dataclass
class Story:
    """A log of four days whose tiles were built, and built again after each change."""

    tables: Tables
    config: Config
    files: Path
    steps: dict[str, State] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)

    def put(self, name: str, *rows: dict[str, Any]) -> None:
        as_text = [{**row, "event_at": str(row["event_at"]) if row["event_at"] else "soon"} for row in rows]
        write_rows(self.files / name, as_text, pa.schema([(name, pa.string()) for name in as_text[0]]))

    def build(self, step: str, *, before: date, mapping: dict[str, str] | None = None) -> None:
        config = self.config
        if mapping:
            events = config.events.model_copy(update={"columns": config.events.columns.model_copy(update=mapping)})
            config = config.model_copy(update={"events": events})
        inventory, build = take_inventory(self.tables, config.events), None
        try:
            build = build_tiles(self.tables, config, inventory, before=before)
        except (RejectedShareError, OSError) as error:
            self.errors[step] = error
        tiles = _found(read_tiles(self.tables, start=None, end=before))
        self.steps[step] = State(inventory, build, tile_ledger(self.tables).latest, tiles)


@pytest.fixture(scope="module")
def story(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    config = config_of(folder, events={"max_rejected_share": 0.5})
    # Folder and file are named as Spark and people may name them.
    story = Story(open_tables(config, spark), config, folder / "events" / "hour=10%3A00" / "100% of it")
    story.put(
        "1.parquet",
        event("u1", "i1", "2024-05-01 10:00:00", other="2024-05-11"),
        event("u1", "i1", "2024-05-01 11:00:00", other="2024-05-11"),
        event("u2", "i2", "2024-05-02 10:00:00", other="2024-05-12"),
        event("u2", "i3", "2024-05-02 10:00:00", other="2024-05-12"),
        event("u3", None, "2024-05-02 10:00:00", other="2024-05-12"),
    )
    story.put(
        "2.parquet", event("u2", "i1", None, other="2024-05-12"), event("u1", "i1", "2024-05-03", other="2024-05-12")
    )
    story.put("3.parquet", event(None, "i1", "2024-05-04", other="2024-05-12"))
    story.build("first", before=D3)
    story.build("again", before=D3)
    with cut_off_before_a_row_of(TILE_DAYS, OSError("killed")):
        story.build("killed", before=D4)
    story.build("after the kill", before=D4)
    story.inputs = read_tiles(story.tables, start=D1, end=D2).inputFiles()
    # Days 1 and 2 move to other files, on day 2 an event comes late, and day 3 vanishes.
    story.put("1.parquet", event("u1", "i1", "2024-05-01 11:00:00", other="2024-05-11"))
    story.put("2.parquet", event("u2", "i1", None, other="2024-05-12"))
    story.put(
        "4.parquet",
        event("u3", None, "2024-05-02 10:00:00", other="2024-05-12"),
        event("u1", "i1", "2024-05-01 10:00:00", other="2024-05-11"),
        event("u2", "i3", "2024-05-02 10:00:00", other="2024-05-12"),
        event("u2", "i2", "2024-05-02 10:00:00", other="2024-05-12"),
        event("u9", "i9", "2024-05-02 23:00:00", other="2024-05-12"),
    )
    story.build("changed", before=D4)
    story.build("rejects", before=date(2024, 5, 5))
    story.build("other column", before=date(2024, 5, 12), mapping={"event_at": "other"})
    return story


def _counts(state: State) -> dict[tuple[date, str, str], int]:
    return {(day, user, item): tile["num_events"] for (day, user, item, _), tile in state.tiles.items()}


TWO_DAYS = {(D1, "u1", "i1"): 2, (D2, "u2", "i2"): 1, (D2, "u2", "i3"): 1}


def test_only_days_before_the_date_are_built(story: Story) -> None:
    first = story.steps["first"]
    assert first.build == TileBuild([D1, D2], 0, 3, 4, 2)
    assert _counts(first) == TWO_DAYS
    assert [day.day for day in first.inventory.days] == [D1, D2, D3, D4]
    assert first.inventory.num_undated == 1


def test_an_unchanged_log_is_neither_read_nor_built_again(story: Story) -> None:
    again = story.steps["again"]
    assert again.inventory.num_new_files == 0
    assert again.build == TileBuild([], 2, 0, 0, 0)
    assert again.days == story.steps["first"].days


def test_a_build_that_was_killed_before_the_ledger_shows_nothing_and_is_made_up_for(story: Story) -> None:
    assert str(story.errors["killed"]) == "killed"
    assert _counts(story.steps["killed"]) == TWO_DAYS
    after = story.steps["after the kill"]
    assert after.build == TileBuild([D3], 2, 1, 1, 0)
    assert _counts(after) == TWO_DAYS | {(D3, "u1", "i1"): 1}
    assert after.days[D3] == (after.days[D3][0], 3)  # the killed build used up a number
    rows = story.tables.read(USER_ITEM_DAYS).where(F.col("event_date") == D3).groupBy("revision").count().collect()
    assert {row.revision: row["count"] for row in rows} == {2: 1, 3: 1}


def test_only_the_partitions_asked_for_are_read(story: Story) -> None:
    folders = {path.split("/user_item_days/")[1].rpartition("/")[0] for path in story.inputs}
    assert folders == {"event_date=2024-05-01/revision=1/user_slice=0-of-1"}


def test_other_files_with_the_same_rows_change_no_day_and_a_late_event_changes_its_own(story: Story) -> None:
    changed = story.steps["changed"]
    assert changed.inventory.num_new_files == 3
    assert D1 not in changed.build.days
    assert {day: revision for day, (_, revision) in changed.days.items()} == {D1: 1, D2: 4, D3: 4}
    assert _counts(changed) == TWO_DAYS | {(D2, "u9", "i9"): 1}


def test_a_day_that_vanished_from_the_log_becomes_empty(story: Story) -> None:
    changed = story.steps["changed"]
    assert changed.build == TileBuild([D2, D3], 1, 3, 3, 1, vanished=[D3])
    assert changed.days[D3] == ("none", 4)
    assert D3 not in {day for day, _, _ in _counts(changed)}


def test_the_rows_of_an_earlier_revision_stay(story: Story) -> None:
    rows = story.tables.read(USER_ITEM_DAYS).where(F.col("event_date") == D2).groupBy("revision").count().collect()
    assert {row.revision: row["count"] for row in rows} == {1: 2, 4: 3}


def test_a_day_with_too_many_rejects_fails_when_it_is_wanted_and_nothing_is_written(story: Story) -> None:
    wanted = "2024-05-04: 1 of 1 rows are malformed; events.max_rejected_share allows 50.0%. No rows"
    with pytest.raises(RejectedShareError, match=wanted):
        raise story.errors["rejects"]
    assert story.steps["rejects"].days == story.steps["changed"].days
    assert not [step for step in ("first", "after the kill", "changed") if step in story.errors]


def test_rejected_rows_are_kept_whole_with_their_reason(story: Story) -> None:
    rows = story.tables.read(REJECTED_EVENTS).where("revision = 1").orderBy("reason").collect()
    assert [(row.reason, row.event_date == D2) for row in rows] == [
        ("missing_item_id", True),
        ("unreadable_event_at", False),
    ]
    assert '"event_at":"soon"' in rows[1].row


def test_another_meaning_of_the_columns_changes_the_days(story: Story) -> None:
    other = story.steps["other column"]
    assert [day.day for day in other.inventory.days] == [date(2024, 5, 11), date(2024, 5, 12)]
    assert _counts(other) == {(date(2024, 5, 11), "u1", "i1"): 2}
    assert {other.days[day][0] for day in (D1, D2, D3)} == {"none"}


def test_the_fingerprint_of_a_range_changes_with_its_days_only(story: Story) -> None:
    days = tile_ledger(story.tables).latest
    everything = days_fingerprint(days, start=None, end=date(2024, 6, 1))
    assert everything == days_fingerprint(days, start=D1, end=date(2024, 6, 1))
    assert everything != days_fingerprint(days, start=None, end=D2)


# The log's days


@pytest.mark.full
def test_days_of_a_delta_log_are_compared_by_their_files(spark: SparkSession, tmp_path: Path) -> None:
    config = config_of(tmp_path / "a b", events={"format": "delta"})
    path, tables = config.events.path, open_tables(config, spark)
    rows = spark.createDataFrame([("u1", "i1", "2024-05-01"), ("u2", "i2", "2024-05-02")], list(EVENT_COLUMNS))
    rows.write.format("delta").partitionBy("event_at").save(path)
    first = take_inventory(tables, config.events)
    rows.limit(1).write.format("delta").mode("append").save(path)
    second = take_inventory(tables, config.events)
    assert (first.num_new_files, second.num_new_files) == (2, 1)
    assert [(day.day, day.num_rows) for day in second.days] == [(D1, 2), (D2, 1)]
    assert first.days[1] == second.days[1]
    build = build_tiles(tables, config, second, before=D3)
    assert (build.num_tiles, build.num_events) == (2, 2)
    spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    spark.sql(f"DELETE FROM delta.`{path}` WHERE user_id = 'u2'")
    assert [(day.day, day.num_rows) for day in take_inventory(tables, config.events).days] == [(D1, 2)]


@pytest.mark.parametrize("writer", ["tasks", "spark"])
def test_files_that_come_after_the_inventory_wait_for_the_next_run(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    monkeypatch.setattr("userrep.tiles.build.arrow_days", arrow_days if writer == "tasks" else lambda *_: ({}, []))
    config = config_of(tmp_path)
    tables = open_tables(config, spark)
    write_rows(tmp_path / "events" / "a.parquet", [event("u1", "i1", "2024-05-01")])
    inventory = take_inventory(tables, config.events)
    write_rows(tmp_path / "events" / "b.parquet", [event("u1", "i1", "2024-05-01 01:00:00")])
    assert build_tiles(tables, config, inventory, before=D3).num_events == 1
    assert build_tiles(tables, config, take_inventory(tables, config.events), before=D3).num_events == 2


def test_a_value_that_moves_between_columns_changes_the_day(spark: SparkSession) -> None:
    log = spark.createDataFrame([("x", None), (None, "x")], "a STRING, b STRING")
    raw = log.select(F.struct("a", "b").alias("raw"), F.lit(None).cast("string").alias("corrupt"))
    assert raw.select(row_hash(["a", "b"])).distinct().count() == 2
    assert raw.select(row_hash(["a", "b"])).first() != raw.select(row_hash(["b", "a"])).first()


def test_a_log_without_a_readable_time_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    write_rows(tmp_path / "events" / "a.parquet", [{"user_id": "u1", "item_id": "i1", "event_at": "1714521600"}])
    with pytest.raises(UsageError, match="no row has a readable time"):
        take_inventory(open_tables(config, spark), config.events)


def _days(num_days: int, num_rejected: int) -> list[LogDay]:
    return [LogDay(D1 + timedelta(days=k), 100, num_rejected, "f") for k in range(num_days)]


def test_an_as_of_date_outside_the_log_is_refused() -> None:
    inventory = Inventory(_days(3, 0), 0, 0)
    for as_of in (D2, D3, D4):
        inventory.check_as_of(as_of)
    for as_of in (D1, date(2024, 5, 5)):
        with pytest.raises(UsageError, match=f"as-of date {as_of}: outside the log.*from 2024-05-02 to 2024-05-04"):
            inventory.check_as_of(as_of)


def test_an_empty_window_is_refused() -> None:
    inventory = Inventory(_days(3, 0), 0, 0)
    inventory.check_window(date(2024, 5, 10), 7)
    with pytest.raises(UsageError, match=r"as-of date 2024-05-11: the longest window, 7 days, is empty.*is 2024-05-03"):
        inventory.check_window(date(2024, 5, 11), 7)


def test_too_many_rejects_are_reported_day_by_day_and_so_are_undated_rows() -> None:
    inventory = Inventory(_days(12, 6), 200, 0)
    days = [day.day for day in inventory.days]
    inventory.check_rejects(0.2, days)
    with pytest.raises(RejectedShareError, match=r"2024-05-01: 6 of 100 .* and 2 more days; 200 of 1400 rows have no"):
        inventory.check_rejects(0.05, days)


# Files that are of one day


@pytest.mark.full
def test_files_of_one_day_are_not_read_for_the_inventory_and_a_day_made_again_to_the_same_tiles_keeps_its_revision(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, events = config_of(tmp_path), tmp_path / "events"
    tables = open_tables(config, spark)
    day_1 = [event("u1", "i1", "2024-05-01 10:00:00"), event("u2", None, "2024-05-01 11:00:00")]
    write_rows(events / "1.parquet", day_1)
    write_rows(events / "2.parquet", [event("u1", "i2", "2024-05-01 12:00:00")])
    write_rows(events / "3.parquet", [event("u1", "i1", "2024-05-02")] * 2)
    monkeypatch.setattr(
        "userrep.tiles.inventory.new_rows.with_validity", None
    )  # which nothing that reads rows can do without
    monkeypatch.setattr("userrep.tiles.build.tiles_of", None)  # nor Spark make tiles
    config = config.model_copy(update={"events": config.events.model_copy(update={"max_rejected_share": 0.5})})
    inventory = take_inventory(tables, config.events)
    assert [(day.day, day.num_rows, day.num_rejected) for day in inventory.days] == [(D1, 3, None), (D2, 2, None)]
    first = build_tiles(tables, config, inventory, before=D3)
    assert first == TileBuild([D1, D2], 0, 3, 3, 1)
    before = tile_ledger(tables).latest
    (events / "1.parquet").unlink()
    (events / "2.parquet").unlink()
    write_rows(events / "whole.parquet", [event("u1", "i2", "2024-05-01 12:00:00"), *day_1])
    write_rows(events / "3.parquet", [event("u1", "i1", "2024-05-02")])
    again = build_tiles(tables, config, take_inventory(tables, config.events), before=D3)
    assert again.days == [D1, D2]
    assert tile_ledger(tables).latest == before
    assert tables.read(USER_ITEM_DAYS).where("revision = 1").count() == 3
    assert build_tiles(tables, config, take_inventory(tables, config.events), before=D3).days == []
    write_rows(events / "late.parquet", [event("u3", "i1", "2024-05-02 01:00:00")])
    late = build_tiles(tables, config, take_inventory(tables, config.events), before=D3)
    assert late.days == [D2]
    newest = {day: revision for day, (_, revision) in tile_ledger(tables).latest.items()}
    assert newest == {D1: 1, D2: 3}  # the second build used up a number


def test_rows_of_a_parquet_table_in_folders_with_escaped_names_are_counted(spark: SparkSession, tmp_path: Path) -> None:
    rows = [("u1", "i1", "2024-05-01 10:00:00", "New Zealand"), ("u2", "i1", "2024-05-02 10:00:00", "Chile")]
    frame = spark.createDataFrame(rows, "user_id STRING, item_id STRING, event_at STRING, region STRING")
    typed = frame.withColumn("event_at", F.col("event_at").cast("timestamp"))
    table = typed.write.format("parquet").partitionBy("region").option("path", str(tmp_path / "a table"))
    table.saveAsTable("log_by_region")
    try:
        events = {"path": "log_by_region", "format": "table", "columns": {**EVENT_COLUMNS, "event_id": None}}
        config = config_of(tmp_path, events=events)
        tables = open_tables(config, spark)
        inventory = take_inventory(tables, config.events)
        assert [(day.day, day.num_rows) for day in inventory.days] == [(D1, 1), (D2, 1)]
        (file,) = (tmp_path / "a table" / "region=Chile").glob("*.parquet")
        pq.write_table(pa.concat_tables([pq.read_table(file, partitioning=None)] * 2), file)  # by another program
        (file.parent / f".{file.name}.crc").unlink(missing_ok=True)
        spark.catalog.refreshTable("log_by_region")
        again = take_inventory(tables, config.events)
        assert [(day.day, day.num_rows) for day in again.days] == [(D1, 1), (D2, 2)]
        assert again.num_new_files == 1
    finally:
        spark.sql("DROP TABLE log_by_region")
