"""Opened sources: the files at that time, and the columns of one file for all."""

import gzip
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tests.support.builders import EVENT_COLUMNS, config_of, event, write_rows
from userrep.config import Events, EventSource
from userrep.errors import UsageError
from userrep.features.preflight import check_before_spark
from userrep.sources.listing import Listings
from userrep.sources.open_log import OpenLog, open_logs

pytestmark = pytest.mark.default


def test_files_that_arrive_later_are_not_in_an_open_log(spark: SparkSession, tmp_path: Path) -> None:
    write_rows(tmp_path / "events" / "a.parquet", [event("u", "i", "2024-05-01")])
    (log,) = open_logs(spark, config_of(tmp_path).events)
    write_rows(tmp_path / "events" / "b.parquet", [event("u", "i", "2024-05-02")])
    (path,) = [file.path for file in log.files]
    assert path.endswith("/events/a.parquet")
    assert log.rows_of([path]).count() == 1
    assert log.rows_of([]).count() == 0
    assert not log.is_table


def test_rows_have_the_columns_of_the_first_and_the_newest_file_and_columns_are_those_of_the_newest(
    spark: SparkSession, tmp_path: Path
) -> None:
    row = event("u", "i", "2024-05-01")
    first = write_rows(tmp_path / "events" / "dt=2024-05-01" / "a.parquet", [row])
    newest = write_rows(tmp_path / "events" / "dt=2024-05-02" / "b.parquet", [row | {"more": 1}])
    for age, path in enumerate((newest, first)):
        os.utime(path, (1e9 - age, 1e9 - age))
    (log,) = open_logs(spark, config_of(tmp_path).events)
    assert {*log.source.columns} == {"user_id", "item_id", "event_at", "dt", "more"}
    assert list(log.columns) == ["user_id", "item_id", "event_at", "more"]
    days = {row.path: row.dt for row in log.rows_of([file.path for file in log.files])
            .selectExpr("_metadata.file_name AS path", "dt").collect()}  # fmt: skip
    assert days == {"a.parquet": date(2024, 5, 1), "b.parquet": date(2024, 5, 2)}


def test_a_mapped_column_that_only_some_files_have_is_found(spark: SparkSession, tmp_path: Path) -> None:
    row = event("u", "i", "2024-05-01")
    write_rows(tmp_path / "events" / "a.parquet", [row])
    write_rows(tmp_path / "events" / "b.parquet", [row | {"points": 2.0}])
    columns = {**EVENT_COLUMNS, "weight": "points"}
    (log,) = open_logs(spark, config_of(tmp_path, events={"columns": columns}).events)
    assert "points" in log.source.columns


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["__HIVE_DEFAULT_PARTITION__", "de", "se"], {None, "de", "se"}),
        (["00", "0a"], {"00", "0a"}),
        (["1", "2"], {1, 2}),
        (["1", "30000000000"], {1, 30_000_000_000}),
        (["4.10", "4.1", "4.2.1"], {"4.10", "4.1", "4.2.1"}),
    ],
)
def test_a_column_of_folders_has_a_type_that_all_folders_fit(
    spark: SparkSession, tmp_path: Path, folders: list[str], expected: set[object]
) -> None:
    for name in folders:
        write_rows(tmp_path / "events" / f"kind={name}" / "a.parquet", [event("u", "i", "2024-05-01")])
    (log,) = open_logs(spark, config_of(tmp_path).events)
    rows = log.rows_of([file.path for file in log.files]).select("kind").collect()
    assert {row.kind for row in rows} == expected


def test_a_csv_file_without_a_header_has_no_say_in_the_columns(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "events"
    folder.mkdir()
    for name, text in (("0", ""), ("1", "user_id,item_id,event_at\nu,i,2024-05-01\n"), ("2", "")):
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
        os.utime(folder / f"{name}.csv.gz", (int(name) + 1e9, int(name) + 1e9))
    config = config_of(tmp_path, events={"format": "csv"})
    check_before_spark(config, [], Listings())
    (log,) = open_logs(spark, config.events)
    assert list(log.columns) == ["user_id", "item_id", "event_at"]


def test_all_faults_of_all_sources_are_reported_together(spark: SparkSession, tmp_path: Path) -> None:
    write_rows(tmp_path / "plays" / "a.parquet", [{"user": "u", "item_id": "i", "event_at": "2024-05-01"}])
    sources = [{"path": str(tmp_path / name), "columns": EVENT_COLUMNS} for name in ("plays", "likes")]
    with pytest.raises(UsageError) as caught:
        open_logs(spark, Events(sources=sources))
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "events.sources[0].columns.user_id", f"events.sources[1].path {tmp_path / 'likes'}",
    ]  # fmt: skip


# The hash of the column mapping, independent of path and format


COLUMNS = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at"}


def mapping_with(**changes: Any) -> str:
    frame: Any = None
    settings = EventSource(**{"path": "log", "columns": COLUMNS, **changes})
    return OpenLog("events", settings, frame, [], {}, None).mapping


def test_a_log_that_moves_or_is_stored_in_another_format_means_the_same() -> None:
    moved = mapping_with(path="elsewhere", format="csv")
    spelled_out = mapping_with(time_zone="UTC")  # the default
    assert moved == spelled_out == mapping_with()


def test_every_setting_that_changes_what_rows_mean_changes_the_hash() -> None:
    changes: list[dict[str, Any]] = [
        *({"columns": {**COLUMNS, key: "other"}} for key in (*COLUMNS, "event_id", "event_type", "weight")),
        {"columns": {**COLUMNS, "context": ["device"]}},
        {"columns": {**COLUMNS, "context": ["device", "place"]}},
        {"event_type": "play"},
        {"time_zone": "Europe/Berlin"},
        {"partition": {"column": "dt", "holds": "event_date"}},
        {"partition": {"column": "dt", "holds": "ingestion_date"}},
        {"partition": {"column": "dt", "holds": "ingestion_date", "max_lateness": "1d"}},
    ]
    hashes = {mapping_with(**change) for change in [{}, *changes]}
    assert len(hashes) == 1 + len(changes)
