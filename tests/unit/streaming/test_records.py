"""What the stream records of rows that arrive, and why others do not count."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession

from tests.support.builders import EVENT_COLUMNS, at, config_of
from userrep.streaming.records import checked_rows
from userrep.streaming.sources import ARRIVED, ORIGIN

pytestmark = pytest.mark.default

SINCE = date(2024, 5, 2)
NOON, MORNING = at("2024-05-02 12:00:00"), at("2024-05-02 08:00:00")
USERS = {"path": "users", "columns": {"user_id": "user_id", "registered_at": "since"}, "attributes": ["country", "age"]}


def arrived(spark: SparkSession, columns: str, *rows: tuple[Any, ...]) -> Any:
    """Build rows that arrived at noon; their places count up."""
    placed = [(*row, NOON, f"topic/0/{k}") for k, row in enumerate(rows)]
    return spark.createDataFrame(placed, f"{columns}, {ARRIVED} TIMESTAMP, {ORIGIN} STRING")


def by_place(rows: Any) -> list[Row]:
    return sorted(rows.collect(), key=lambda row: int(row[ORIGIN].rpartition("/")[2]))


def test_events_are_recorded_with_their_context_and_judged_by_the_clock(spark: SparkSession, tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    events = arrived(
        spark,
        "user_id STRING, item_id STRING, event_at TIMESTAMP, points DOUBLE, device STRING, os STRING",
        ("u", "i", MORNING, 2.0, "tv", None),
        ("u", "i", MORNING, -1.0, "tv", "x"),
        (" ", "i", MORNING, 1.0, "tv", "x"),
        ("u", None, MORNING, 1.0, "tv", "x"),
        ("u", "i", now + timedelta(minutes=50), 1.0, "tv", "x"),
        ("u", "i", now + timedelta(minutes=70), 1.0, "tv", "x"),
        ("u", "i", now + timedelta(days=2), 1.0, "tv", "x"),
    )
    columns = {**EVENT_COLUMNS, "weight": "points", "context": ["device", "os"]}
    config = config_of(tmp_path, events={"columns": columns})
    rows = by_place(checked_rows({"events": events}, config, is_own_source=True, since=SINCE))
    assert [row.reason for row in rows] == [
        None, "negative_weight", "missing_user_id", "missing_item_id", None, "ahead_of_the_clock",
        "ahead_of_the_clock",
    ]  # fmt: skip
    first = rows[0]
    assert (first.user_id, first["at"], first[ARRIVED], first[ORIGIN]) == ("u", MORNING, NOON, "topic/0/0")
    assert json.loads(first.row)["points"] == 2.0
    record = first.record
    assert (record.kind, record["at"], record.item_id, record.weight) == ("event", MORNING, "i", 2.0)
    assert sorted(record.words) == ["device=tv", "os=(null)"]
    assert (record.event_id, record.registered_at, record.attributes) == (None, None, None)
    assert record.raw is not None  # without ids, copies are recognized by all columns


def test_picks_and_registrations_are_recorded_next_to_events(spark: SparkSession, tmp_path: Path) -> None:
    old = at("2023-01-01")
    parts = {
        "events": arrived(spark, "user_id STRING, item_id STRING, event_at TIMESTAMP"),
        "onboarding": arrived(
            spark,
            "user_id STRING, item_id STRING, event_at TIMESTAMP",
            ("p0", "i", old),
            ("p1", None, NOON),
            (None, "i", NOON),
            ("p3", "i", None),
            ("p4", "i", at("1970-01-01")),
        ),
        "users": arrived(
            spark,
            "user_id STRING, since TIMESTAMP, country STRING, age STRING, _corrupt_record STRING",
            ("r0", MORNING, "SE", None, None),
            ("r1", at("2024-05-01 23:59:59"), "SE", "16-24", None),
            ("r2", None, None, None, None),
            (None, MORNING, "SE", None, None),
            ("r4", MORNING, "SE", None, "{broken"),
        ),
    }
    config = config_of(tmp_path, onboarding={"path": "picks", "columns": EVENT_COLUMNS}, users=USERS)
    rows = checked_rows(parts, config, is_own_source=True, since=SINCE)
    picks = by_place(rows.where("record.kind = 'pick'"))
    assert [row.reason for row in picks] == [
        None, "missing_item_id", "missing_user_id", "unreadable_event_at", "implausible_event_at",
    ]  # fmt: skip
    assert (picks[0]["at"], picks[0].record["at"], picks[0].record.item_id) == (old, old, "i")
    assert (picks[0].record.raw, picks[0].record.weight, picks[0].record.words) == (None, None, None)
    users = by_place(rows.where("record.kind = 'user'"))
    assert [row.reason for row in users] == [None, None, None, "missing_user_id", "unparsable_row"]
    assert [row["at"] for row in users[:3]] == [MORNING, NOON, NOON]  # one from before it is news when it arrives
    assert [row.record.registered_at for row in users[:3]] == [MORNING, at("2024-05-01 23:59:59"), None]
    assert [row.record.attributes for row in users[:3]] == [["SE", None], ["SE", "16-24"], [None, None]]
    assert [row.row for row in users[3:]] == [
        '{"since":"2024-05-02T08:00:00.000Z","country":"SE"}', "{broken",
    ]  # fmt: skip


def test_columns_may_have_dots_and_backticks_in_their_names(spark: SparkSession, tmp_path: Path) -> None:
    parts = {
        "events": arrived(spark, "user_id STRING, item_id STRING, event_at TIMESTAMP"),
        "users": arrived(
            spark,
            "user_id STRING, since TIMESTAMP, country STRING, age STRING, `a``b.c` STRING",
            ("r0", MORNING, "SE", None, "x"),
        ),
    }
    (row,) = checked_rows(parts, config_of(tmp_path, users=USERS), is_own_source=True, since=SINCE).collect()
    assert (row.reason, json.loads(row.row)["a`b.c"]) == (None, "x")
