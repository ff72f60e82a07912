"""The streaming query's own steps: users by window, and what is kept of rejected rows."""

import json
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from tests.support.builders import at
from userrep.config import Stream
from userrep.streaming.query import _interval, changed_users, rejected
from userrep.streaming.sources import ARRIVED, ORIGIN

pytestmark = pytest.mark.default

D3, D4, D5, D6 = (date(2024, 5, day) for day in (3, 4, 5, 6))
NOON = at("2024-05-04 12:00:00")


def checked(spark: SparkSession, *rows: tuple[str | None, datetime | None, str | None, str]) -> DataFrame:
    """Build rows of user, time, reason and item; each arrives a minute after the one before it."""
    placed = [
        (user, when, NOON + timedelta(minutes=k), f"t/0/{k}", reason, f"row {k}", (item,))
        for k, (user, when, reason, item) in enumerate(rows)
    ]
    return spark.createDataFrame(
        placed,
        f"user_id STRING, at TIMESTAMP, {ARRIVED} TIMESTAMP, {ORIGIN} STRING, reason STRING, row STRING, "
        "record STRUCT<item_id: STRING>",
    )


def test_a_user_s_records_are_gathered_for_every_as_of_date_that_they_are_open_for(spark: SparkSession) -> None:
    rows = checked(
        spark,
        ("u", at("2024-05-03 23:59:59"), None, "a"),
        ("u", at("2024-05-04 00:00:00"), None, "b"),
        ("u", at("2024-05-04 00:00:00"), None, "b"),
        ("v", at("2024-05-02 23:59:59"), None, "too early"),
        ("v", at("2024-05-03 00:00:00"), None, "c"),
        ("v", at("2024-05-03 12:00:00"), "negative_weight", "bad"),
    )
    found: dict[Any, Any] = {
        (row.user_id, row.as_of): (sorted(record.item_id for record in row.records), row.newest_at, row.arrived_at)
        for row in changed_users(rows, Stream(open_days=2), since=D3).collect()
    }
    late = at("2024-05-03 23:59:59")
    minutes = [NOON + timedelta(minutes=k) for k in range(6)]
    assert found == {
        ("u", D4): (["a"], late, minutes[0]),
        ("u", D5): (["a", "b"], at("2024-05-04 00:00:00"), minutes[2]),
        ("u", D6): (["b"], at("2024-05-04 00:00:00"), minutes[2]),
        ("v", D4): (["c"], at("2024-05-03 00:00:00"), minutes[4]),
        ("v", D5): (["c"], at("2024-05-03 00:00:00"), minutes[4]),
    }


def test_rejected_rows_are_kept_under_their_day_with_their_reason_and_place(spark: SparkSession) -> None:
    rows = checked(
        spark,
        ("u", at("2024-05-03 23:59:59"), None, "good"),
        ("u", at("2024-05-03 23:59:59"), "negative_weight", "bad"),
        ("u", None, "unreadable_event_at", "bad"),
        ("u", at("1970-01-01"), "implausible_event_at", "bad"),
        ("u", at("2024-05-01 23:59:59"), "negative_weight", "of a day that is left to the batch"),
    )
    kept = sorted(rejected(rows, since=date(2024, 5, 2)).collect(), key=lambda row: str(row.row))
    assert [(row.event_date, row.revision, row.reason) for row in kept] == [
        (D3, 0, "negative_weight"), (D4, 0, "unreadable_event_at"), (D4, 0, "implausible_event_at"),
    ]  # fmt: skip
    assert [json.loads(row.row) for row in kept] == [{"place": f"t/0/{k}", "row": f"row {k}"} for k in (1, 2, 3)]


def test_spans_are_passed_to_spark_in_milliseconds_and_are_at_least_one() -> None:
    spans = [timedelta(hours=6), timedelta(seconds=1.5), timedelta(microseconds=1), timedelta(0)]
    assert [_interval(span) for span in spans] == [
        "21600000 milliseconds", "1500 milliseconds", "1 milliseconds", "1 milliseconds",
    ]  # fmt: skip
