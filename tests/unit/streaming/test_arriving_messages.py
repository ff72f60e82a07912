"""Messages of Kafka as rows: read by the types of the batch, and kept as text where they cannot be."""

import json
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from tests.support.builders import at
from userrep.sources.read import CORRUPT
from userrep.streaming.sources import ARRIVED, ORIGIN, _parsed_messages

pytestmark = pytest.mark.default


def test_a_message_is_a_row_of_the_columns_wanted_or_kept_whole(spark: SparkSession) -> None:
    columns = T.StructType.fromDDL("`user id` STRING, points DOUBLE, event_at TIMESTAMP").add(CORRUPT, T.StringType())
    good = {"user id": "u", "points": 1.5, "event_at": "2024-05-01T12:00:00", "other": {"a": 1}}
    wrong = json.dumps({"user id": "u", "points": "many"})
    values: list[Any] = [json.dumps(good).encode(), b"no json", None, b"{}", wrong.encode()]
    messages = spark.createDataFrame(
        [(value, at("2024-05-01 13:00:00"), "clicks", 3, k) for k, value in enumerate(values)],
        "value BINARY, timestamp TIMESTAMP, topic STRING, partition INT, offset BIGINT",
    )
    rows = sorted(_parsed_messages(messages, columns).collect(), key=lambda row: str(row[ORIGIN]))
    assert rows[0].asDict() == {
        "user id": "u", "points": 1.5, "event_at": at("2024-05-01 12:00:00"), CORRUPT: None,
        ARRIVED: at("2024-05-01 13:00:00"), ORIGIN: "clicks/3/0",
    }  # fmt: skip
    assert [row[CORRUPT] for row in rows] == [None, "no json", "", None, wrong]
    assert [row["user id"] for row in rows] == ["u", None, None, None, "u"]
    assert [row[ORIGIN] for row in rows] == [f"clicks/3/{k}" for k in range(5)]
