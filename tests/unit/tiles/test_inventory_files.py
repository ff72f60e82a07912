"""The meaning of a log's columns is hashed; its path and format are not part of it."""

from typing import Any

import pytest

from userrep.config import EventSource
from userrep.sources.open_log import meaning_hash

pytestmark = pytest.mark.fast

COLUMNS = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at"}


def log_with(**changes: Any) -> EventSource:
    return EventSource(**{"path": "log", "columns": COLUMNS, **changes})


def test_a_log_that_moves_or_is_stored_in_another_format_means_the_same() -> None:
    moved = log_with(path="elsewhere", format="csv")
    spelled_out = log_with(time_zone="UTC")  # the default
    assert meaning_hash(moved) == meaning_hash(spelled_out) == meaning_hash(log_with())


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
    hashes = {meaning_hash(log_with(**change)) for change in [{}, *changes]}
    assert len(hashes) == 1 + len(changes)
