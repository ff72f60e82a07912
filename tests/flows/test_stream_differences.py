"""The differences between stream and batch that docs/explanation/streaming.md names: these users differ, and no others.

The users of these tests are made up. Two users with the same records have the same vector, so ``plain``, who has one
event at noon, shows which records the stream or the batch has counted for the others.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from tests.support.builders import AS_OF
from tests.support.streaming_world import (
    DAY,
    NEXT,
    NewWorld,
    Row,
    Vectors,
    active_users,
    arrive,
    events_between,
    write_to_log,
)

pytestmark = pytest.mark.full

MIDNIGHT = datetime(AS_OF.year, AS_OF.month, AS_OF.day, tzinfo=UTC)
PLAIN = ("plain", "late", "twin first", "twin last", "changed", "picked")  # one event at noon, and what the name says
REGISTERED = ("swede", "brazilian", "to brazil", "unsent", "to sweden", "later")


def play(user: str, hour: int = 12, item: str = "i000001", **more: object) -> Row:
    """Return an event of the last open day."""
    row = {
        "event_id": f"noon of {user}", "user_id": user, "item_id": item, "event_at": MIDNIGHT + timedelta(hours=hour),
        "event_type": "play", "weight": 1.0, "device": "tv",
    }  # fmt: skip
    return row | more


def registration(user: str, country: str, registered_at: datetime = MIDNIGHT - DAY) -> Row:
    return {"user_id": user, "registered_at": registered_at, "country": country, "age_band": "25-34"}


class Replay(NamedTuple):
    """Vectors of the stream, of the batch over the log as it was streamed, and of the batch after the log changed."""

    streamed: Vectors
    batch: Vectors
    changed: Vectors
    active: set[str]


@pytest.fixture(scope="module")
def replay(new_world: NewWorld) -> Replay:
    world = new_world(own_log=True)
    events, registrations = world.folder / "events", world.folder / "registrations"
    world.reconfigure(events={"path": str(events)}, users={"path": str(registrations)})
    own = [
        *(play(user) for user in (*PLAIN, *REGISTERED)),
        play("other", item="i000002"),
        play("late", event_id="too late", event_at=MIDNIGHT - 5 * DAY),
        play("twin first", hour=10, event_id="twins"),
        play("twin last", hour=11, event_id="twins"),
    ]
    users = {
        "swede": "SE", "brazilian": "BR", "to brazil": "SE", "unsent": "SE", "to sweden": "BR", "later": "SE"
    }  # fmt: skip
    first = [registration(user, country) for user, country in users.items()]
    sent = [registration("to brazil", "BR"), registration("to sweden", "SE"), registration("later", "SE", MIDNIGHT)]
    rows = [*events_between(world.spark, world.log, AS_OF - 2 * DAY, NEXT), *own]
    arrive(events, rows, "0.parquet")
    arrive(registrations, [*first, *sent], "0.parquet")
    world.stream()

    write_to_log(world.log, "events", own)
    write_to_log(world.log, "users", first)
    world.close(AS_OF)
    batch = world.published(NEXT)

    now = {row["user_id"]: row for row in (*first, *sent, registration("unsent", "BR"))}
    write_to_log(
        world.log, "events", [row | {"item_id": "i000002"} if row["user_id"] == "changed" else row for row in own]
    )
    write_to_log(world.log, "users", list(now.values()))
    write_to_log(world.log, "onboarding", [{"user_id": "picked", "item_id": "i000002", "picked_at": MIDNIGHT}])
    world.close(AS_OF)
    return Replay(world.streamed(NEXT), batch, world.published(NEXT), active_users(rows, AS_OF))


def test_an_event_from_before_the_open_days_is_only_in_the_batch(replay: Replay) -> None:
    assert replay.streamed["late"] == replay.streamed["plain"]
    assert replay.batch["late"] != replay.batch["plain"]


def test_an_event_id_of_two_users_counts_for_both_in_the_stream_and_for_the_later_in_the_batch(replay: Replay) -> None:
    streamed, batch = replay.streamed, replay.batch
    assert streamed["plain"] not in (streamed["twin first"], streamed["twin last"])
    assert batch["twin first"] == batch["plain"]
    assert batch["twin last"] == streamed["twin last"]


def test_a_row_of_the_log_that_changes_after_it_was_streamed_changes_only_the_batch(replay: Replay) -> None:
    assert replay.streamed["changed"] == replay.streamed["plain"] == replay.batch["changed"]
    assert replay.changed["changed"] == replay.changed["other"] != replay.changed["plain"]


def test_a_user_and_a_pick_that_are_not_streamed_change_only_the_batch(replay: Replay) -> None:
    assert replay.streamed["unsent"] == replay.streamed["swede"] == replay.batch["unsent"]
    assert replay.changed["unsent"] == replay.changed["brazilian"] != replay.changed["swede"]
    assert replay.streamed["picked"] == replay.streamed["plain"] == replay.batch["picked"]
    assert replay.changed["picked"] != replay.changed["plain"]


def test_of_changed_attributes_the_stream_keeps_the_largest_and_the_batch_has_the_newest(replay: Replay) -> None:
    assert replay.streamed["to brazil"] == replay.streamed["to sweden"] == replay.streamed["swede"]
    assert replay.changed["to brazil"] == replay.changed["brazilian"] != replay.changed["swede"]
    assert replay.changed["to sweden"] == replay.changed["swede"]


def test_of_changed_registrations_the_stream_keeps_the_earliest_and_the_batch_has_the_newest(replay: Replay) -> None:
    assert replay.streamed["later"] == replay.streamed["swede"] == replay.batch["later"]
    assert replay.changed["later"] != replay.changed["swede"]


def test_all_other_users_have_the_vectors_of_the_batch(replay: Replay) -> None:
    assert len(replay.active) > 50
    assert replay.active <= replay.streamed.keys()
    assert differing(replay.streamed, replay.batch) == {"late", "twin first", "to sweden"}
    assert differing(replay.streamed, replay.changed) == {
        "late", "twin first", "changed", "picked", "unsent", "to brazil", "later"
    }  # fmt: skip


def differing(streamed: Vectors, batch: Vectors) -> set[str]:
    return {user for user, vector in streamed.items() if batch.get(user) != vector}
