"""Which near-real-time vector counts at a label's time."""

from datetime import date, datetime
from typing import Any

import pytest
from pyspark.sql import SparkSession

from userrep.joins.join import with_update
from userrep.joins.options import JoinOptions

pytestmark = pytest.mark.default

D1, D2 = date(2024, 5, 1), date(2024, 5, 2)


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2024, 5, 1, hour, minute)


def test_the_newest_update_has_the_latest_date_then_event_then_computation(spark: SparkSession) -> None:
    labels: list[tuple[Any, ...]] = [
        (0, "u", at(8)), (1, "u", at(7, 59)), (2, "u", at(10)), (3, "u", at(12)), (4, "u", at(14)), (5, "v", at(12)),
        (6, None, at(12)), (7, "u", None),
    ]  # fmt: skip
    updates: list[tuple[Any, ...]] = [
        ("u", D2, at(7), at(8), [1.0]),
        ("u", D2, at(9), at(9), [2.0]),
        ("u", D2, at(8), at(10), [3.0]),  # a stream that begins again and has not come as far
        ("u", D2, at(9), at(11), [4.0]),  # the same event, computed again
        ("u", D1, at(12), at(12), [5.0]),  # of an earlier date
        ("u", D2, at(13), at(13), None),
        (None, D2, at(7), at(7), [6.0]),
    ]
    frame = spark.createDataFrame(labels, "n INT, user_id STRING, label_at TIMESTAMP")
    rows = spark.createDataFrame(
        updates, "user_id STRING, as_of DATE, event_at TIMESTAMP, computed_at TIMESTAMP, embedding ARRAY<FLOAT>"
    )

    def found(**options: Any) -> dict[int, float | None]:
        joined = with_update(frame, rows, JoinOptions(updates=True, **options)).collect()
        assert sorted(row.n for row in joined) == list(range(8))
        return {row.n: row["__update"].embedding[0] if row["__update"] else None for row in joined}

    nothing = {5: None, 6: None, 7: None}
    assert found() == {0: 1.0, 1: None, 2: 2.0, 3: 4.0, 4: 4.0} | nothing
    # By their dates, updates of D2 count from the next day on only.
    assert found(availability="as_of") == dict.fromkeys(range(5), 5.0) | nothing
