"""A log has event ids if any of its sources maps one."""

from typing import Any

import pytest

from userrep.config import Events
from userrep.tiles.inventory.day_files import has_event_ids

pytestmark = pytest.mark.fast

PLAIN: dict[str, Any] = {"path": "l", "columns": {"user_id": "u", "item_id": "i", "event_at": "at"}}
WITH_ID: dict[str, Any] = {"path": "m", "columns": {**PLAIN["columns"], "event_id": "id"}}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (Events(**PLAIN), False),
        (Events(**WITH_ID), True),
        (Events(sources=[PLAIN, WITH_ID]), True),
        (Events(sources=[PLAIN, PLAIN]), False),
    ],
    ids=["one without", "one with", "one of two", "none of two"],
)
def test_a_log_has_event_ids_if_any_of_its_sources_has(events: Events, expected: bool) -> None:
    assert has_event_ids(events) is expected
