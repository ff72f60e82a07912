"""Labels of the example consumer: which events make a user come back."""

from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from return_propensity.labels import LabelDates, return_labels
from tests.support.builders import config_of
from userrep.store.open import open_tables
from userrep.store.schemas import TILE_DAYS, USER_ITEM_DAYS

pytestmark = pytest.mark.default

D = date(2024, 5, 1)
MIDNIGHT = datetime(2024, 5, 1)
HOUR, MICROSECOND = timedelta(hours=1), timedelta(microseconds=1)
LAST_EVENTS = {  # by user, of each tile
    "at label_at": [MIDNIGHT + 9 * HOUR],
    "before label_at": [MIDNIGHT + 9 * HOUR - MICROSECOND],
    "both": [MIDNIGHT + 10 * HOUR, MIDNIGHT + 8 * HOUR],
    "at the end": [MIDNIGHT + 48 * HOUR - MICROSECOND],
    "after the end": [MIDNIGHT + 48 * HOUR],
    "long before": [MIDNIGHT - HOUR],
}


def test_an_event_counts_from_the_label_time_to_the_end_of_the_horizon(spark: SparkSession, tmp_path: Path) -> None:
    tables = open_tables(config_of(tmp_path), spark)
    tiles = [
        {"event_date": at.date(), "revision": 1, "user_slice": "0-of-1", "user_bucket": 0, "user_id": user,
         "item_id": f"i{k}", "event_type": "view", "num_events": 1, "last_event_at": at}
        for user, times in LAST_EVENTS.items() for k, at in enumerate(times)
    ]  # fmt: skip
    tables.add(USER_ITEM_DAYS, tiles)
    days = sorted({tile["event_date"] for tile in tiles})
    day = {"revision": 1, "fingerprint": "f", "content": "c", "num_events": 1, "num_tiles": 1, "num_rejected": 0}
    tables.add(TILE_DAYS, [day | {"event_date": of, "built_at": MIDNIGHT} for of in days])
    known = [(of, user) for of in (D, D + timedelta(days=2)) for user in (*LAST_EVENTS, "without events")]
    users = spark.createDataFrame(known, "as_of DATE, user_id STRING")

    dates = LabelDates([D], [D + timedelta(days=2)])
    found = return_labels(tables, users, dates, publish_delay=9 * HOUR, horizon_days=2).collect()

    assert sorted((row.label_date, row.user_id) for row in found) == sorted(known)
    assert {(row.label_date, row.split, row.label_at) for row in found} == {
        (D, "train", MIDNIGHT + 9 * HOUR), (D + timedelta(days=2), "test", MIDNIGHT + 57 * HOUR),
    }  # fmt: skip
    came_back = {(row.label_date, row.user_id) for row in found if row.label == 1.0}
    assert came_back == {(D, user) for user in ("at label_at", "both", "at the end")}
    assert {row.label for row in found} == {0.0, 1.0}
