"""Malformed logs are refused, with the setting or column at fault, before tiles are built."""

import json
import os
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from tests.support.builders import EVENT_COLUMNS, config_of, event, write_rows
from userrep.config import Events, EventSource, parse_config
from userrep.errors import RejectedShareError, UsageError
from userrep.sources.columns import check_columns, event_columns
from userrep.sources.read import with_validity
from userrep.sources.times import times_of
from userrep.store.open import open_tables
from userrep.store.schemas import REJECTED_EVENTS, SOURCE_SCHEMAS, USER_ITEM_DAYS
from userrep.tiles.build import build_tiles
from userrep.tiles.inventory.inventory import Inventory, take_inventory
from userrep.tiles.inventory.log_days import LogDay
from userrep.tiles.ledger import read_tiles, tile_ledger

pytestmark = pytest.mark.default

D1, D2, D3, D4 = (date(2024, 5, day) for day in (1, 2, 3, 4))
ONE = {"path": "log", "columns": EVENT_COLUMNS}
PARTITION = {"column": "dt", "holds": "event_date"}


# The configuration


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ({}, "events: the log is not configured. Set either path and columns, or sources."),
        ({"sources": []}, "events: the log is not configured"),
        ({"path": "log"}, "events: path and columns must be set together."),
        ({"columns": EVENT_COLUMNS}, "events: path and columns must be set together."),
        (
            {**ONE, "sources": [ONE]},
            "events: path, columns cannot be set next to sources. Set it in each of the sources.",
        ),
        ({"time_zone": "UTC", "sources": [ONE]}, "events: time_zone cannot be set next to sources. Set it in"),
        ({"sources": [{**ONE, "colums": {}}]}, "unknown key events.sources.0.colums; did you mean columns?"),
        ({"sources": [{"path": "log"}]}, "events.sources.0.columns is missing."),
        (
            {**ONE, "event_type": "play", "columns": {**EVENT_COLUMNS, "event_type": "kind"}},
            "events: event_type and columns.event_type cannot both be set. Remove one.",
        ),
        (
            {"sources": [{**ONE, "event_type": "play", "columns": {**EVENT_COLUMNS, "event_type": "kind"}}]},
            "events.sources.0: event_type and columns.event_type cannot both be set. Remove one.",
        ),
        (
            {**ONE, "partition": {**PARTITION, "max_lateness": "1d"}},
            "events.partition: max_lateness applies only with holds: ingestion_date. Remove it, or change holds.",
        ),
        (
            {**ONE, "time_zone": "Europe/Berln"},
            "events.time_zone: must be the name of a time zone (did you mean Europe/Berlin?), got",
        ),
        ({**ONE, "time_zone": "?"}, "must be the name of a time zone (such as Europe/Berlin or UTC), got '?'."),
    ],
)
def test_an_invalid_description_of_a_log_is_refused(events: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_config({"root": "r", "events": events}, "c")
    assert len(caught.value.faults) == 1
    assert said in str(caught.value)


def test_both_forms_of_one_log_mean_the_same() -> None:
    one, several = Events(**ONE, event_type="play"), Events(sources=[{**ONE, "event_type": "play"}])
    assert list(one.all_sources.values()) == list(several.all_sources.values())
    assert one.meaning == several.meaning
    assert Events(**ONE).meaning == Events(**ONE).columns.model_dump()


def test_a_partition_column_that_cannot_be_a_date_is_refused(spark: SparkSession) -> None:
    log = EventSource(**ONE, partition=PARTITION)
    ddl = "user_id STRING, item_id STRING, event_at STRING"
    with pytest.raises(UsageError, match=r"events.partition.column: no column 'dt'; columns found: user_id"):
        check_columns(spark.createDataFrame([], ddl).schema, event_columns(log), "events")
    with pytest.raises(
        UsageError, match=r"sources\[1\].partition.column: column 'dt' is double; expected a date, 2024-"
    ):
        check_columns(spark.createDataFrame([], f"{ddl}, dt DOUBLE").schema, event_columns(log), "events.sources[1]")


# Times


def test_times_without_a_zone_are_in_the_configured_zone(spark: SparkSession) -> None:
    log = EventSource(**ONE, time_zone="Europe/Berlin")
    texts = {
        "2024-05-01": datetime(2024, 5, 1),  # a date is that day in any zone
        " 2024-5 ": datetime(2024, 5, 1),
        "2024-05-01 00:00": datetime(2024, 4, 30, 22),
        "2024-05-01 12:00": datetime(2024, 5, 1, 10),
        "2024-05-01T12:00:00.5": datetime(2024, 5, 1, 10, 0, 0, 500000),
        "2024-05-01T12:00:00Z": datetime(2024, 5, 1, 12),
        "2024-05-01 12:00:00+01:00": datetime(2024, 5, 1, 11),
        "2024-03-31 02:30:00": datetime(2024, 3, 31, 1, 30),  # which Berlin's clocks skip
        "2024-10-27 02:30:00": datetime(2024, 10, 27, 0, 30),  # which they show twice
    }
    source = spark.createDataFrame([("u", "i", text) for text in texts], list(EVENT_COLUMNS))
    assert [row.event_at for row in with_validity(source, log).collect()] == list(texts.values())
    assert times_of(pa.chunked_array([[*texts]]), log.time_zone).to_pylist() == list(texts.values())
    for value, at in (
        ("TIMESTAMP'2024-05-01 12:00:00'", datetime(2024, 5, 1, 12)),
        ("TIMESTAMP_NTZ'2024-05-01 12:00:00'", datetime(2024, 5, 1, 10)),
        ("DATE'2024-05-01'", datetime(2024, 5, 1)),
    ):
        typed = spark.sql(f"SELECT 'u' user_id, 'i' item_id, {value} event_at")
        assert with_validity(typed, log).first().event_at == at


@pytest.mark.parametrize("log_format", ["parquet", "json"])
def test_events_after_tomorrow_are_held_back_until_their_day(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    """Their file never changes, and another file arrives in between."""
    now = datetime.combine(D1, time(23))
    monkeypatch.setattr("userrep.tiles.inventory.inventory.utc_now", lambda: now)
    config = config_of(tmp_path, events={"format": log_format, "max_rejected_share": 0.4})
    tables = open_tables(config, spark)

    def write(name: str, *days: date) -> None:
        rows = [event(f"{name}{k}", "i", f"{day} 12:00:00") for k, day in enumerate(days)]
        if log_format == "parquet":
            write_rows(tmp_path / "events" / f"{name}.parquet", rows)
        else:
            (tmp_path / "events").mkdir(exist_ok=True)
            lines = "\n".join(json.dumps(row, default=str) for row in rows)
            (tmp_path / "events" / f"{name}.json").write_text(lines)

    def built() -> dict[date, int]:
        inventory = take_inventory(tables, config.events)
        warnings.extend(inventory.warnings)
        build_tiles(tables, config, inventory, before=D4)
        rows = read_tiles(tables, start=None, end=D4).groupBy("event_date").sum("num_events").collect()
        return {row[0]: row[1] for row in rows}

    warnings: list[str] = []
    write("first", D1, D1, D2, D3)
    assert built() == {D1: 2, D2: 1}
    held_back = f"events: 1 rows of {D3} are held back until their day has come"
    assert held_back in warnings
    assert tables.read(REJECTED_EVENTS).count() == 0
    write("second", D1)
    assert built() == {D1: 3, D2: 1}
    warnings.clear()
    now += timedelta(days=1)
    assert built() == {D1: 3, D2: 1, D3: 1}
    assert held_back not in warnings


def test_a_log_with_future_rows_only_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    write_rows(tmp_path / "events" / "part.parquet", [event("u", "i", "2190-05-01 12:00:00")])
    config = config_of(tmp_path)
    with pytest.raises(UsageError, match=r"events: all rows are later than tomorrow, .*; the first day is 2190-05-01"):
        take_inventory(open_tables(config, spark), config.events)


# Days


def _days(*sizes: int | None) -> list[LogDay]:
    return [LogDay(D1 + timedelta(days=k), size, size and 0, "f", 320) for k, size in enumerate(sizes)]


def test_a_day_much_smaller_than_the_median_is_refused_when_it_is_built() -> None:
    inventory = Inventory(_days(1000, 9, 1000, 10), 0, 0)
    inventory.check_sizes(0.01, [D1, D3, D4])
    inventory.check_sizes(0, [D2])
    with pytest.raises(
        UsageError, match=r"2024-05-02 has 9 rows; the log's median day has 505, and .* requires 5.0% of"
    ):
        inventory.check_sizes(0.05, [D1, D2, D3])
    many = Inventory(_days(*[0] * 12, *[100] * 13), 0, 0)
    with pytest.raises(UsageError, match=r"and 2 more days; the log's median day"):
        many.check_sizes(0.01, [day.day for day in many.days])


def test_days_without_counts_pass_until_they_are_counted() -> None:
    inventory = Inventory(_days(None, 100, 100), 0, 0)
    events = Events(**ONE, min_day_share=0.01)
    assert inventory.days[0].expected_rows == 10
    inventory.check_days(events, [D1, D2])
    with pytest.raises(UsageError, match="2024-05-01 has 0 rows"):
        inventory.counted({D1: (0, 0), D2: (0, 0)}).check_days(events, [D1, D2])
    with pytest.raises(RejectedShareError, match="2024-05-01: 90 of 100 rows are malformed"):
        inventory.counted({D1: (100, 90)}).check_days(events, [D1])


def test_missing_days_are_reported_or_refused(spark: SparkSession, tmp_path: Path) -> None:
    days = ["2024-05-01", "2024-05-03", "2024-05-07", *(f"2024-06-{day:02}" for day in range(1, 20, 2))]
    write_rows(tmp_path / "events" / "a.parquet", [event("u", "i", day) for day in days])
    config = config_of(tmp_path)
    tables = open_tables(config, spark)
    naive, missing = take_inventory(tables, config.events).warnings
    assert naive == "events.columns.event_at 'event_at' has no time zone: read as UTC"
    assert missing.startswith(
        "events: 37 days within the log without rows: 2024-05-02, 2024-05-04 to 2024-05-06, 2024-05-08 to 2024-05-31, "
    )
    assert missing.endswith("2024-06-14 and 2 more gaps")
    strict = config_of(tmp_path, events={"require_all_days": True, "time_zone": "UTC"})
    with pytest.raises(UsageError, match=r"37 days within .* gaps\. Load them, or set events.require_all_days: false"):
        take_inventory(tables, strict.events)


def test_a_day_whose_rejects_were_not_counted_before_does_not_become_visible(
    spark: SparkSession, tmp_path: Path
) -> None:
    for day in ("2024-05-01", "2024-05-02"):
        write_rows(tmp_path / "events" / f"dt={day}" / "a.parquet", [event("u", "i", "2024-05-01")])
    config = config_of(tmp_path, events={"partition": PARTITION})
    tables = open_tables(config, spark)
    inventory = take_inventory(tables, config.events)
    assert build_tiles(tables, config, inventory, before=D2).days == [D1]
    with pytest.raises(RejectedShareError, match="2024-05-02: 1 of 1 rows are malformed"):
        build_tiles(tables, config, inventory, before=D3)
    assert set(tile_ledger(tables).latest) == {D1}


# Columns


def _write(folder: Path, name: str, **kinds: pa.DataType) -> None:
    row = {"user_id": "u", "item_id": "i", "event_at": "2024-05-01", **dict.fromkeys(kinds)}
    schema = pa.schema([(key, kinds.get(key, pa.string())) for key in row])
    write_rows(folder / "events" / name, [row], schema)


def test_a_new_column_is_accepted_and_a_removed_or_changed_one_is_refused(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path)
    tables = open_tables(config, spark)
    geo = pa.struct([("country", pa.string())])
    _write(tmp_path, "1.parquet", weight=pa.int32(), geo=geo)
    take_inventory(tables, config.events)
    _write(tmp_path, "2.parquet", weight=pa.int32(), geo=pa.struct([*geo, ("city", pa.string())]), more=pa.int64())
    take_inventory(tables, config.events)
    assert [len(row["columns"]) for row in tables.read(SOURCE_SCHEMAS).orderBy("seen_at").collect()] == [5, 7]
    _write(tmp_path, "3.parquet", weight=pa.int64(), geo=geo, more=pa.int64())
    monkeypatch.setattr("userrep.tiles.inventory.new_rows.with_validity", None)  # nothing is read
    with pytest.raises(UsageError, match="column 'weight' changed from int to bigint") as caught:
        take_inventory(tables, config.events)
    assert caught.value.faults[:2] == [
        "events: column 'geo.city' (string) was removed.",
        "events: column 'weight' changed from int to bigint.",
    ]
    cure = caught.value.faults[2].partition("delete the recorded columns: ")[2].removesuffix(".")
    spark.sql(cure)
    monkeypatch.undo()
    for name in ("1.parquet", "2.parquet"):
        (tmp_path / "events" / name).unlink()
    take_inventory(tables, config.events)


@pytest.mark.parametrize("by_spark", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_events_that_differ_only_in_a_column_of_newer_files_are_no_copies(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, by_spark: bool
) -> None:
    row = {"user_id": "u", "item_id": "i", "event_at": "2024-05-01 12:00:00"}
    for number, rows in enumerate(([row, row], [row | {"line": "1"}, row | {"line": "2"}, row | {"line": "2"}])):
        path = tmp_path / "events" / f"{number}.{kind}"
        if kind == "parquet":
            write_rows(path, rows)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(f"{','.join(values)}\n" for values in (rows[0], *(row.values() for row in rows))))
        os.utime(path, (1e9 + number, 1e9 + number))
    if by_spark:
        monkeypatch.setattr("userrep.tiles.build.arrow_days", lambda *_, **__: ({}, []))
    config = config_of(tmp_path, events={"format": kind})
    tables = open_tables(config, spark)
    build_tiles(tables, config, take_inventory(tables, config.events), before=D2)
    (tile,) = tables.read(USER_ITEM_DAYS).collect()
    assert tile.num_events == 3


@pytest.mark.parametrize(("kind", "old", "new"), [
    ("csv", "user_id,item_id,event_at,x", "user_id,event_at,item_id"),
    ("json", '{"user_id": 1, "item_id": 1, "event_at": "2024-05-01", "x": {"a": 1}}', '{"user_id": 1, "x": 1}'),
])  # fmt: skip
def test_column_changes_of_csv_and_json_logs_are_refused(
    spark: SparkSession, tmp_path: Path, kind: str, old: str, new: str
) -> None:
    config = config_of(tmp_path, events={"format": kind})
    tables = open_tables(config, spark)
    _write_texts(tmp_path / "events", [old])
    row = "1,2,2024-05-01,3" if kind == "csv" else old
    _write_texts(tmp_path / "events", [old, row])
    take_inventory(tables, config.events)
    (tmp_path / "events" / "b").write_text(f"{new}\n")
    with pytest.raises(UsageError, match=r"column '(x' \(string in place 4\)|x.a' \(string\)) was removed"):
        take_inventory(tables, config.events)


def _write_texts(folder: Path, lines: Sequence[str]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "a").write_text("\n".join(lines))


# Headers


def test_a_file_with_another_order_of_columns_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    config = config_of(tmp_path, events={"format": "csv"})
    tables, log, header = open_tables(config, spark), tmp_path / "events", "user_id,item_id,event_at,x"
    log.mkdir()
    (log / "1.csv").write_text(f"{header}\nu,i,2024-05-01,1\n")
    (log / "2.csv").write_text("item_id,user_id,event_at,x\ni,u,2024-05-02,1\n")
    (log / "3.csv").write_text(f"{header}\nu,i,2024-05-03,1\n")
    with pytest.raises(UsageError) as caught:
        take_inventory(tables, config.events)
    first, cure = caught.value.faults
    assert first.endswith("2.csv: column 1 is named item_id instead of user_id.")
    assert cure == (
        "events: 1 of 3 CSV files have another header. Write them with the columns user_id, item_id, event_at, x, "
        "in this order."
    )
    (log / "2.csv").write_text(f"{header}\nu,i,2024-05-02,1\n")
    assert sum(day.num_rows for day in take_inventory(tables, config.events).days) == 3


def test_a_file_of_a_partition_with_another_order_of_columns_is_refused_before_its_day_is_built(
    spark: SparkSession, tmp_path: Path
) -> None:
    config = config_of(tmp_path, events={"format": "csv", "partition": {"column": "day", "holds": "event_date"}})
    tables, header = open_tables(config, spark), "user_id,item_id,event_at"
    for day, names in ((2, "item_id,user_id,event_at"), (1, header), (3, header)):  # the newest one is right
        folder = tmp_path / "events" / f"day=2024-05-0{day}"
        folder.mkdir(parents=True)
        (folder / "a.csv").write_text(f"{names}\na,b,2024-05-0{day}\n")
    inventory = take_inventory(tables, config.events)
    with pytest.raises(UsageError, match="column 1 is named item_id instead of user_id"):
        build_tiles(tables, config, inventory, before=date(2024, 5, 9))
    assert tile_ledger(tables).days == {}
