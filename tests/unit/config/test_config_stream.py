"""Settings of a stream: where events arrive, and the broker and the online store that it needs."""

from typing import Any

import pytest

from tests.support.configurations import SMALLEST, fault_of, parsed

pytestmark = pytest.mark.fast

TOPIC = {"topic": "clicks"}
KAFKA = {"bootstrap_servers": "broker:9092"}


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        ({"events": {}}, "stream.events: set exactly one of topic and path"),
        ({"events": {**TOPIC, "path": "arriving"}, "kafka": KAFKA}, "stream.events: set exactly one of topic and"),
        ({"events": {"topic": ""}, "kafka": KAFKA}, "stream.events.topic: must not be empty, got ''."),
        ({"events": TOPIC}, "stream: events.topic needs kafka.bootstrap_servers"),
        ({"users": TOPIC, "events": {"path": "arriving"}}, "stream: users.topic needs kafka.bootstrap_servers"),
        ({"kafka": {"bootstrap_servers": ""}}, "stream.kafka.bootstrap_servers: must not be empty, got ''."),
        ({"redis": {"url": "http://cache"}}, "stream.redis.url: must match the pattern"),
        ({"redis": {"url": "x-redis://cache"}}, "stream.redis.url: must match the pattern"),
        ({"open_days": 1}, "stream.open_days: must be at least 2"),
        ({"open_days": 8}, "stream.open_days: must be at most 7"),
        ({"query_id": "../x"}, "stream.query_id: not a valid name"),
    ],
)
def test_a_stream_that_cannot_run_is_refused(stream: dict[str, Any], said: str) -> None:
    assert fault_of({**SMALLEST, "stream": stream}).startswith(said)


@pytest.mark.parametrize("url", ["redis://cache", "rediss://:${PASSWORD}@cache:6380/1", "unix:///run/redis.sock"])
def test_the_online_store_is_named_by_any_address_that_redis_knows(url: str) -> None:
    redis = parsed(stream={"redis": {"url": url}}).streaming.redis
    assert redis is not None
    assert redis.url == url


def test_sources_of_a_stream_are_those_that_are_named_with_events_first() -> None:
    sections = {"users": {"path": "u"}, "events": TOPIC, "kafka": KAFKA}
    config = parsed(stream=sections, users={"path": "users", "columns": {"user_id": "id"}})
    found = [(name, source.topic, source.path) for name, source in config.streaming.sources.items()]
    assert found == [("events", "clicks", None), ("users", None, "u")]
    assert parsed().streaming.sources == {}
