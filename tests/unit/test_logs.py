"""Logs as their owners have them: several at once, nested, in partitions; only what is needed of them is read."""

import json
import uuid
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tests.support.builders import EVENT_COLUMNS, config_of, event, write_rows
from userrep.config import Config, EventSource, Items, Onboarding, Users, parse_config
from userrep.errors import UsageError
from userrep.features.profiles import read_picks, read_users
from userrep.items.item_index import read_items
from userrep.sources.columns import check_columns, event_columns, find_column, named
from userrep.sources.open_log import open_logs
from userrep.sources.partitions import in_partitions, partition_day
from userrep.sources.read import read_source, with_validity
from userrep.store.file_tables import FileTables
from userrep.store.open import open_tables
from userrep.store.schemas import REJECTED_EVENTS, TILE_DAYS
from userrep.store.tables import Tables
from userrep.tiles import arrow_tasks, build
from userrep.tiles.arrow_tasks import counted_days
from userrep.tiles.build import TileBuild, build_tiles
from userrep.tiles.inventory.day_files import read_days
from userrep.tiles.inventory.inventory import Inventory, take_inventory
from userrep.tiles.ledger import read_tiles, tile_ledger

pytestmark = pytest.mark.default

D1, D2, D3, D4, D5 = (date(2024, 5, day) for day in (1, 2, 3, 4, 5))
BY_EVENT_DATE = {"column": "dt", "holds": "event_date"}
BY_INGESTION = {"column": "dt", "holds": "ingestion_date", "max_lateness": "1d"}


def config_with(folder: Path, *sources: dict[str, Any], **more: Any) -> Config:
    """Build a configuration of several sources, with tables below ``folder``."""
    values = {"root": str(folder / "root"), "events": {"sources": list(sources), **more}, "windows_days": [2, 7]}
    return parse_config(values, "test")


def write_days(folder: Path, days: dict[str, list[dict[str, Any]]]) -> Path:
    """Write a log with one folder ``dt=…`` a day."""
    for day, rows in days.items():
        write_rows(folder / f"dt={day}" / "a.parquet", rows)
    return folder


def built(tables: Tables, config: Config, before: date) -> tuple[Inventory, TileBuild]:
    inventory = take_inventory(tables, config.events)
    return inventory, build_tiles(tables, config, inventory, before=before)


def tiles(tables: Tables) -> set[tuple[Any, ...]]:
    rows = read_tiles(tables, start=None, end=date(2030, 1, 1)).collect()
    return {(row.event_date.day, row.user_id, row.item_id, row.event_type, row.num_events) for row in rows}


def files_read(rows: DataFrame) -> set[str]:
    """Return the folders ``dt=…`` whose files a scan reads, by what the rows say they come from."""
    return {part for path in rows.inputFiles() for part in path.split("/") if part.startswith("dt=")}


def scanned_partitions(rows: DataFrame) -> str:
    """Return the filters on partitions in a plan."""
    plan = rows._jdf.queryExecution().executedPlan().toString()
    return " ".join(line for line in plan.splitlines() if "PartitionFilters" in line)


# Several sources


@pytest.fixture(scope="module")
def two_logs(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tables, Config, TileBuild]:
    folder = tmp_path_factory.mktemp("two")
    plays = [
        {"uid": "u1", "track": "i1", "ts": datetime(2024, 5, 1, 9), "id": "e1", "device": "tv"},
        {"uid": "u1", "track": "i1", "ts": datetime(2024, 5, 1, 10), "id": "e1", "device": "tv"},
        {"uid": None, "track": "i1", "ts": datetime(2024, 5, 2, 9), "id": "e2", "device": None},
        {"uid": "u1", "track": "i2", "ts": datetime(2024, 5, 2, 9), "id": "e3", "device": None},
    ]
    write_rows(folder / "plays" / "a.parquet", plays)
    like = {"user": {"id": 1}, "track": {"id": "i1"}, "at": "2024-05-01T09:00:00Z", "e": {"id": "e1"}, "page": "home"}
    (folder / "likes").mkdir()
    (folder / "likes" / "a.json").write_text("\n".join([json.dumps(like), json.dumps({**like, "e": None})] * 2))
    config = config_with(
        folder,
        {
            "path": str(folder / "plays"),
            "columns": {
                "user_id": "uid",
                "item_id": "track",
                "event_at": "ts",
                "event_id": "id",
                "context": ["device"],
            },
            "event_type": "play",
        },
        {
            "path": str(folder / "likes"),
            "format": "json",
            "columns": {
                "user_id": "user.id",
                "item_id": "track.id",
                "event_at": "at",
                "event_id": "e.id",
                "context": ["page"],
            },
            "event_type": "like",
        },
        max_rejected_share=0.5,
    )
    tables = open_tables(config, spark)
    return tables, config, built(tables, config, D3)[1]


def test_several_sources_are_one_log_and_copies_are_looked_for_within_each(
    two_logs: tuple[Tables, Config, TileBuild],
) -> None:
    tables, _, build = two_logs
    assert (build.days, build.num_events, build.num_rejected) == ([D1, D2], 4, 1)
    assert tiles(tables) == {(1, "u1", "i1", "play", 1), (1, "1", "i1", "like", 2), (2, "u1", "i2", "play", 1)}


def test_a_source_without_a_context_column_counts_nothing_for_it(two_logs: tuple[Tables, Config, TileBuild]) -> None:
    tables, config, _ = two_logs
    assert config.events.context == ["device", "page"]
    found = {row.event_type: row.num_by_context for row in read_tiles(tables, start=D1, end=D2).collect()}
    assert found == {"play": {"device=tv": 1}, "like": {"page=home": 2}}


def test_a_rejected_row_names_its_source(two_logs: tuple[Tables, Config, TileBuild]) -> None:
    tables, _, _ = two_logs
    (row,) = tables.read(REJECTED_EVENTS).collect()
    assert row.reason == "missing_user_id"
    assert list(json.loads(row.row)) == ["source_0"]


def test_a_change_in_one_source_rebuilds_its_days_only(two_logs: tuple[Tables, Config, TileBuild]) -> None:
    tables, config, _ = two_logs
    assert build_tiles(tables, config, take_inventory(tables, config.events), before=D3).days == []
    late = {"uid": "u7", "track": "i7", "ts": datetime(2024, 5, 2, 9), "id": "e9", "device": None}
    text = {name: pa.string() for name in ("uid", "track", "id", "device")}
    schema = pa.schema([(name, text.get(name, pa.timestamp("us"))) for name in late])
    write_rows(Path(config.events.sources[0].path) / "b.parquet", [late], schema)
    inventory, build = built(tables, config, D3)
    assert (inventory.num_new_files, build.days) == (1, [D2])


def test_a_day_has_the_rows_of_a_source_whose_files_do_not_show_which_rows_are_valid(
    spark: SparkSession, tmp_path: Path
) -> None:
    write_rows(tmp_path / "plays" / "a.parquet", [event("u1", "i1", "2024-05-01"), event("u1", "i2", "2024-05-02")])
    likes = str(tmp_path / "likes")
    _write_delta(spark, likes, [("u2", "2024-05-01"), ("u3", "2024-05-01")], enableDeletionVectors="true")
    spark.sql(f"DELETE FROM delta.`{likes}` WHERE user_id = 'u3'")
    columns = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at"}
    config = config_with(
        tmp_path,
        {"path": str(tmp_path / "plays"), "columns": columns, "event_type": "play"},
        {"path": likes, "format": "delta", "columns": columns, "event_type": "like"},
    )
    tables = open_tables(config, spark)
    built(tables, config, D3)
    assert tiles(tables) == {(1, "u1", "i1", "play", 1), (1, "u2", "i1", "like", 1), (2, "u1", "i2", "play", 1)}


def test_a_day_has_the_rows_of_a_delta_source_whose_files_are_in_no_folders_of_its_days(
    spark: SparkSession, tmp_path: Path
) -> None:
    write_rows(tmp_path / "plays" / "a.parquet", [event("u1", "i1", "2024-05-01")])
    likes = str(tmp_path / "likes" / "dt=2024-05-01")  # a folder above the table means nothing
    frame = spark.createDataFrame([("u2", "i1", "2024-05-01")], list(EVENT_COLUMNS))
    frame.withColumn("dt", F.to_date("event_at")).write.format("delta").save(likes)
    config = config_with(
        tmp_path,
        {"path": str(tmp_path / "plays"), "columns": EVENT_COLUMNS, "event_type": "play"},
        {"path": likes, "format": "delta", "columns": EVENT_COLUMNS, "event_type": "like", "partition": BY_EVENT_DATE},
    )
    tables = open_tables(config, spark)
    built(tables, config, D3)
    assert tiles(tables) == {(1, "u1", "i1", "play", 1), (1, "u2", "i1", "like", 1)}


# Nested columns


def test_a_mapped_column_that_only_newer_files_have_is_read(spark: SparkSession, tmp_path: Path) -> None:
    write_rows(tmp_path / "events" / "1.parquet", [event("u1", "i1", "2024-05-01")])
    write_rows(tmp_path / "events" / "2.parquet", [event("u1", "i1", "2024-05-02", device="tv")])
    config = config_of(tmp_path, events={"columns": {**EVENT_COLUMNS, "context": ["device"]}})
    tables = open_tables(config, spark)
    assert built(tables, config, D3)[1].days == [D1, D2]
    rows = read_tiles(tables, start=None, end=D3).orderBy("event_date").collect()
    assert [row.num_by_context for row in rows] == [{"device=(null)": 1}, {"device=tv": 1}]


def test_a_name_with_dots_is_a_column_first_and_a_path_else(spark: SparkSession) -> None:
    frame = spark.sql("SELECT named_struct('id', 1, 'a.b', named_struct('c', 2)) user, 3 `user.id`, 4 `odd``one`")
    assert tuple(frame.select(*(named(frame, name) for name in ("user.id", "user.a.b.c", "odd`one"))).first()) == (
        3,
        2,
        4,
    )
    assert find_column(frame.schema, "user.nothing") is None
    assert find_column(frame.schema, "user.id.deeper") is None
    with pytest.raises(UsageError, match=r"no column 'user.name'; columns found: user.id, user.a.b.c, odd`one"):
        check_columns(frame.schema, {"columns.user_id": "user.name"}, "events")


def test_nested_columns_serve_every_table(spark: SparkSession, tmp_path: Path) -> None:
    who = {"id": 7.0, "since": "2024-05-01", "geo": {"country": "SE"}}
    what = {"id": "i1", "title": "A song", "vector": [1.0, 2.0]}
    path = str(
        write_rows(tmp_path / "all.parquet", [{"user": who, "item": what, "event": {"at": datetime(2024, 5, 1)}}])
    )
    keys = {"user_id": "user.id", "item_id": "item.id", "event_at": "event.at"}
    log = EventSource(path=path, columns={**keys, "event_type": "item.title", "context": ["user.geo.country"]})
    source = read_source(spark, log, what="events")
    check_columns(source.schema, event_columns(log), "events")
    row = with_validity(source, log).first()
    assert (row.user_id, row.item_id, row.event_type, row.context_0, row.reason) == ("7", "i1", "A song", "SE", None)
    users = Users(
        path=path, columns={"user_id": "user.id", "registered_at": "user.since"}, attributes=["user.geo.country"]
    )
    assert tuple(read_users(spark, users).first()) == ("7", datetime(2024, 5, 1), ["SE"])
    assert tuple(read_picks(spark, Onboarding(path=path, columns=keys)).first()) == ("7", "i1", datetime(2024, 5, 1))
    items = Items(path=path, columns={"item_id": "item.id", "text": "item.title", "vector": "item.vector"})
    tables = FileTables(spark, str(tmp_path / "root"))
    assert tuple(read_items(tables, items).first()) == ("i1", "A song", [1.0, 2.0])


# Partitions


@pytest.mark.parametrize("kind", ["DATE", "INT", "STRING", "dashed STRING"])
def test_a_partition_is_read_as_a_date_of_any_type_and_compared_as_it_is(spark: SparkSession, kind: str) -> None:
    config = config_of(Path("x"), events={"partition": BY_INGESTION})
    partition = config.events.partition
    text = "2024-05-0" if kind in ("DATE", "dashed STRING") else "2024050"
    cast = kind.rpartition(" ")[2]
    frame = spark.range(1, 8).select(F.concat(F.lit(text), F.col("id").cast("string")).cast(cast).alias("dt"))
    assert [row[0].day for row in frame.select(partition_day(frame, partition)).collect()] == [*range(1, 8)]
    kept = frame.where(in_partitions(frame, partition, [D1, D5], late_days=1))
    assert [row[0].day for row in kept.select(partition_day(kept, partition)).collect()] == [1, 2, 5, 6]


def test_a_log_by_event_date_is_known_by_its_listing_and_read_by_partition(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_days(
        tmp_path / "events",
        {
            "2024-05-01": [*[event("u1", "i1", "2024-05-01")] * 2, event("u1", "i2", "2024-05-02")],
            "2024-05-02": [event("u2", "i1", "2024-05-02")],
            "2024-05-03": [event("u3", "i1", "2024-05-03")],
        },
    )  # fmt: skip
    config = config_of(tmp_path, events={"partition": BY_EVENT_DATE, "max_rejected_share": 0.5})
    tables = open_tables(config, spark)
    with monkeypatch.context() as patch:
        patch.setattr(
            "userrep.tiles.inventory.new_rows.with_validity", None
        )  # which nothing that reads rows can do without
        inventory = take_inventory(tables, config.events)
    assert [(day.day, day.num_rows) for day in inventory.days] == [(D1, None), (D2, None), (D3, None)]
    build = build_tiles(tables, config, inventory, before=D3)
    assert (build.days, build.num_events, build.num_rejected) == ([D1, D2], 2, 1)
    (bad,) = tables.read(REJECTED_EVENTS).collect()
    assert (bad.reason, bad.event_date) == ("outside_its_partition", D1)
    read = read_days(tables, inventory.logs, [D2], undated=False)
    assert files_read(read) == {"dt=2024-05-02"}
    write_rows(tmp_path / "events" / "dt=2024-05-02" / "b.parquet", [event("u9", "i9", "2024-05-02 23:00:00")])
    assert built(tables, config, D3)[1].days == [D2]
    assert tiles(tables) == {(1, "u1", "i1", "event", 1), (2, "u2", "i1", "event", 1), (2, "u9", "i9", "event", 1)}


@pytest.mark.full
@pytest.mark.parametrize("kind", ["parquet", "delta"])
def test_days_in_folders_of_their_own_are_made_by_tasks_as_spark_makes_them(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    random = Random(7)
    rows = [
        (f"u{random.randrange(9)}", random.choice(["i1", "i2", None]), datetime(2024, 5, day, random.randrange(24)), dt)
        for day, dt in random.choices([(1, 1), (2, 2), (3, 3), (3, 4), (4, 4)], [9, 9, 9, 1, 9], k=400)
    ]
    frame = spark.createDataFrame(rows, "user_id STRING, item_id STRING, event_at TIMESTAMP, dt INT")
    dated = frame.withColumn("dt", F.make_date(F.lit(2024), F.lit(5), "dt"))
    dated.write.format(kind).partitionBy("dt").save(str(tmp_path / "events"))
    ledgers = []
    for root, general in (("direct", {D4}), ("spark", {D1, D2, D3, D4})):
        config = config_of(
            tmp_path, root=str(tmp_path / root),
            events={"format": kind, "partition": BY_EVENT_DATE, "max_rejected_share": 1},
        )  # fmt: skip
        tables, left = open_tables(config, spark), set[date]()
        with monkeypatch.context() as patch:

            def recorded(t: Tables, days: list[date], revision: int, left: set[date] = left, **how: bool) -> Any:
                left.update(days)
                return counted_days(t, days, revision, **how)

            patch.setattr(build, "counted_days", recorded)
            if root == "spark":
                patch.setattr(arrow_tasks, "columns_of", lambda *_: None)
            built(tables, config, D5)
        assert left == general
        found = [(row.event_date, row.content, row.num_events, row.num_rejected) for row in tables.ledger(TILE_DAYS)]
        ledgers.append((sorted(found), tiles(tables), tables.read(REJECTED_EVENTS).count()))
    assert ledgers[0] == ledgers[1]
    assert all(num > 0 for *_, num in ledgers[0][0])


def test_a_file_without_a_folder_of_its_day_is_named(spark: SparkSession, tmp_path: Path) -> None:
    write_rows(tmp_path / "events" / "dt=soon" / "a.parquet", [event("u1", "i1", "2024-05-01")])
    config = config_of(tmp_path, events={"partition": BY_EVENT_DATE})
    with pytest.raises(
        UsageError,
        match=r"the log has 1 file outside of folders such as dt=2024-05-01, for example file:/.*dt=soon/a.parquet",
    ):
        take_inventory(open_tables(config, spark), config.events)


@pytest.mark.parametrize("kind", ["parquet", pytest.param("delta", marks=pytest.mark.full)])
def test_a_log_by_ingestion_date_is_read_up_to_its_lateness(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    rows = [
        ("u1", "2024-05-01", 20240501),
        ("u2", "2024-05-01", 20240502),  # late, but not too late
        ("u3", "2024-05-01", 20240503),  # too late
        ("u4", "2024-05-04", 20240503),  # before its time
        ("u5", "2024-05-04", 20240504),
        ("u6", "2024-05-05", 20240505),
    ]
    frame = spark.createDataFrame([(u, "i1", at, dt) for u, at, dt in rows], [*EVENT_COLUMNS, "dt"])
    frame.write.format(kind).partitionBy("dt").save(str(tmp_path / "events"))
    config = config_of(tmp_path, events={"format": kind, "partition": BY_INGESTION, "max_rejected_share": 1})
    tables = open_tables(config, spark)
    inventory, _ = built(tables, config, date(2024, 5, 6))
    assert [(day.day.day, day.num_rows, day.num_rejected) for day in inventory.days] == [
        (1, 2, 0), (3, 2, 2), (4, 1, 0), (5, 1, 0)
    ]  # fmt: skip
    assert {key[:2] for key in tiles(tables)} == {(1, "u1"), (1, "u2"), (4, "u5"), (5, "u6")}
    reasons = {(row.reason, row.event_date) for row in tables.read(REJECTED_EVENTS).collect()}
    assert reasons == {("outside_its_partition", D3)}
    read = read_days(tables, open_logs(spark, config.events), [D1], undated=False)
    if kind == "delta":
        assert "(dt#" in scanned_partitions(read)
    else:
        assert files_read(read) == {"dt=20240501", "dt=20240502"}
    found = read.select("user_id", F.col("raw.dt").alias("dt")).collect()
    assert sorted((row.user_id, row.dt) for row in found) == [("u1", 20240501), ("u2", 20240502)]
    assert build_tiles(tables, config, take_inventory(tables, config.events), before=date(2024, 5, 6)).days == []


# Delta


def _write_delta(spark: SparkSession, path: str, rows: Iterable[tuple[str, str]], **properties: str) -> None:
    frame = spark.createDataFrame([(user, "i1", day) for user, day in rows], list(EVENT_COLUMNS))
    dated = frame.withColumn("dt", F.to_date("event_at")).coalesce(1)
    settings = {f"delta.{key}": value for key, value in properties.items()}
    dated.write.format("delta").partitionBy("dt").options(**settings).save(path)


@pytest.mark.full
def test_a_delta_log_by_event_date_rebuilds_the_partitions_whose_files_changed(
    spark: SparkSession, tmp_path: Path
) -> None:
    config = config_of(tmp_path, events={"format": "delta", "partition": BY_EVENT_DATE})
    path, tables = config.events.path, open_tables(config, spark)
    _write_delta(spark, path, [("u1", "2024-05-01"), ("u2", "2024-05-01"), ("u3", "2024-05-02")],
                 enableDeletionVectors="false")  # fmt: skip
    inventory, build = built(tables, config, D3)
    assert (build.days, inventory.days[0].expected_rows > 0) == ([D1, D2], True)
    spark.sql(f"DELETE FROM delta.`{path}` WHERE user_id = 'u2'")
    assert built(tables, config, D3)[1].days == [D1]
    assert {key[:2] for key in tiles(tables)} == {(1, "u1"), (2, "u3")}
    assert files_read(read_source(spark, config.events, what="events")) == {"dt=2024-05-01", "dt=2024-05-02"}


@pytest.mark.parametrize("kind", ["delta", "table"])
def test_a_delta_log_is_read_as_it_was_when_the_run_began(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    path, name = str(tmp_path / "log"), f"log_{uuid.uuid4().hex[:8]}"
    config = config_of(tmp_path, events={"format": kind, "path": path if kind == "delta" else name})
    tables = open_tables(config, spark)
    _write_delta(spark, path, [("u1", "2024-05-01"), ("u2", "2024-05-01"), ("u3", "2024-05-01")],
                 enableDeletionVectors="false")  # fmt: skip
    spark.sql(f"CREATE TABLE {name} USING delta LOCATION '{path}'")
    logs = open_logs(spark, config.events)
    spark.sql(f"DELETE FROM delta.`{path}` WHERE user_id = 'u2'")
    assert [(day.day, day.num_rows) for day in take_inventory(tables, config.events, logs).days] == [(D1, 3)]
    assert [(day.day, day.num_rows) for day in take_inventory(tables, config.events).days] == [(D1, 2)]


def test_a_delta_log_without_folders_of_its_partitions_is_left_to_spark(spark: SparkSession, tmp_path: Path) -> None:
    columns = EVENT_COLUMNS | {"event_type": "kind"}
    config = config_of(tmp_path, events={"format": "delta", "columns": columns})
    path, tables = config.events.path, open_tables(config, spark)
    spark.sql(
        f"CREATE TABLE delta.`{path}` (user_id STRING, item_id STRING, event_at STRING, kind STRING) USING delta "
        "PARTITIONED BY (kind) TBLPROPERTIES ('delta.randomizeFilePrefixes' = 'true', "
        "'delta.enableDeletionVectors' = 'false')"
    )
    spark.sql(f"INSERT INTO delta.`{path}` VALUES ('u1', 'i1', '2024-05-01', 'play')")
    assert built(tables, config, D2)[1].num_events == 1
    assert tiles(tables) == {(1, "u1", "i1", "play", 1)}


@pytest.mark.full
def test_a_delta_log_with_deletion_vectors_is_followed_by_its_change_data_feed(
    spark: SparkSession, tmp_path: Path
) -> None:
    config = config_of(tmp_path, events={"format": "delta", "partition": BY_EVENT_DATE})
    path, tables = config.events.path, open_tables(config, spark)
    rows = [("u1", "2024-05-01"), ("u2", "2024-05-01"), ("u3", "2024-05-02"), ("u4", "2024-05-02")]
    _write_delta(spark, path, rows, enableDeletionVectors="true", enableChangeDataFeed="true")
    first, _ = built(tables, config, D4)
    assert [(day.day, day.num_rows) for day in first.days] == [(D1, 2), (D2, 2)]
    spark.sql(f"DELETE FROM delta.`{path}` WHERE user_id = 'u2'")
    spark.sql(f"INSERT INTO delta.`{path}` VALUES ('u5', 'i1', '2024-05-03', DATE'2024-05-03')")
    second, build = built(tables, config, D4)
    assert (build.days, [day.num_rows for day in second.days]) == ([D1, D3], [1, 2, 1])
    spark.sql(f"OPTIMIZE delta.`{path}`")
    spark.sql(f"UPDATE delta.`{path}` SET item_id = 'i2' WHERE user_id = 'u5'")
    assert built(tables, config, D4)[1].days == [D3]
    # If changes were not recorded, the whole table is read, and no other day is stale.
    spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('delta.enableChangeDataFeed' = 'false')")
    spark.sql(f"DELETE FROM delta.`{path}` WHERE user_id = 'u4'")
    spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true')")
    third, build = built(tables, config, D4)
    assert (third.num_new_files, build.days) == (1, [D2])
    assert {(key[0], *key[1:3]) for key in tiles(tables)} == {(1, "u1", "i1"), (2, "u3", "i1"), (3, "u5", "i2")}
    assert set(tile_ledger(tables).latest) == {D1, D2, D3}
    assert take_inventory(tables, config.events).num_new_files == 0
