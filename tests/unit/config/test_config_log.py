"""Settings of the event log: one source or several, and what decides the meaning of its rows."""

from typing import Any

import pytest

from tests.support.configurations import EVENTS, SMALLEST, fault_of, parsed
from userrep.config import Partition

pytestmark = pytest.mark.fast

COLUMNS = EVENTS["columns"]
TYPED = {**EVENTS, "columns": {**COLUMNS, "event_type": "kind"}}


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ({}, "events: the log is not configured. Set either path and columns, or sources."),
        ({"path": "log"}, "events: path and columns must be set together."),
        ({"columns": COLUMNS}, "events: path and columns must be set together."),
        (
            {"sources": [EVENTS], "path": "log", "event_type": "play"},
            "events: path, event_type cannot be set next to sources. Set it in each of the sources.",
        ),
        (
            {**TYPED, "event_type": "play"},
            "events: event_type and columns.event_type cannot both be set. Remove one.",
        ),
        (
            {"sources": [EVENTS, {**TYPED, "event_type": "play"}]},
            "events.sources.1: event_type and columns.event_type cannot both be set. Remove one.",
        ),
        (
            {**EVENTS, "partition": {"column": "dt", "holds": "event_date", "max_lateness": "3d"}},
            "events.partition: max_lateness applies only with holds: ingestion_date. Remove it, or change holds.",
        ),
    ],
)
def test_a_log_is_described_in_one_way(events: dict[str, Any], said: str) -> None:
    assert fault_of({**SMALLEST, "events": events}) == said


def test_sources_are_named_by_their_place_in_the_configuration() -> None:
    other = {**EVENTS, "path": "other", "format": "json", "event_type": "like", "time_zone": "Europe/Berlin"}
    one = parsed(events=other).events.all_sources
    several = parsed(events={"sources": [EVENTS, other]}).events.all_sources
    assert [(place, source.path) for place, source in several.items()] == [
        ("events.sources[0]", "log"),
        ("events.sources[1]", "other"),
    ]
    assert one == {"events": several["events.sources[1]"]}


def test_context_columns_of_all_sources_are_listed_once_in_their_order() -> None:
    sources = [{**EVENTS, "columns": {**COLUMNS, "context": names}} for names in (["page", "device"], ["app", "page"])]
    assert parsed(events={"sources": sources}).events.context == ["page", "device", "app"]


def meaning(**changes: Any) -> Any:
    return parsed(events={**EVENTS, **changes}).events.meaning


def test_the_meaning_of_a_log_depends_on_what_its_rows_say_and_not_on_where_they_lie() -> None:
    plain = meaning()
    same: list[dict[str, Any]] = [
        {"path": "elsewhere", "format": "delta"},
        {"max_rejected_share": 0.9, "min_day_share": 0, "require_all_days": True},
        {"time_zone": "UTC", "event_type": None, "partition": None},
    ]
    assert [meaning(**changes) for changes in same] == [plain] * 3
    assert parsed(events={"sources": [EVENTS]}).events.meaning == plain
    partition = {"column": "dt", "holds": "ingestion_date"}
    other: list[dict[str, Any]] = [
        {"columns": {**COLUMNS, "weight": "seconds"}},
        {"time_zone": "Asia/Tokyo"},
        {"event_type": "play"},
        {"partition": partition},
        {"partition": {**partition, "max_lateness": "1d"}},
    ]
    meanings = [plain, *(meaning(**changes) for changes in other)]
    assert [found for k, found in enumerate(meanings) if found in meanings[:k]] == []
    assert meaning(partition={**partition, "max_lateness": "3d"}) == meaning(partition=partition)


def test_the_meaning_of_several_sources_follows_their_order() -> None:
    likes = {**EVENTS, "event_type": "like"}
    forth, back = (parsed(events={"sources": sources}).events.meaning for sources in ([EVENTS, likes], [likes, EVENTS]))
    assert forth == [meaning(), meaning(event_type="like")]
    assert back == forth[::-1]


@pytest.mark.parametrize(
    ("settings", "late_days"),
    [
        ({"holds": "event_date"}, 0),
        ({"holds": "ingestion_date"}, 3),
        ({"holds": "ingestion_date", "max_lateness": "0d"}, 0),
        ({"holds": "ingestion_date", "max_lateness": "47h"}, 1),
        ({"holds": "ingestion_date", "max_lateness": "48h"}, 2),
    ],
)
def test_lateness_counts_in_whole_days_and_only_by_ingestion_date(settings: dict[str, str], late_days: int) -> None:
    assert Partition(column="dt", **settings).late_days == late_days  # type: ignore[arg-type]
