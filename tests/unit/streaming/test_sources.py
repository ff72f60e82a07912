"""Where rows arrive: which sources a stream has, how Kafka is reached, and what is refused before any work."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import EVENT_COLUMNS, config_of
from userrep.config import Kafka, StreamSource
from userrep.errors import UsageError
from userrep.streaming.sources import batch_source, check_arriving, kafka_options, stream_sources

pytestmark = pytest.mark.fast

NO_SESSION: Any = None  # paths are looked at without Spark
ONBOARDING = {"path": "picks", "columns": EVENT_COLUMNS}


def test_a_stream_without_a_source_of_events_reads_the_files_of_the_log(tmp_path: Path) -> None:
    events = {"path": "s3a://bucket/log", "format": "json"}
    config = config_of(tmp_path, events=events, onboarding=ONBOARDING, stream={"onboarding": {"path": "new/picks"}})
    assert stream_sources(config) == {
        "events": StreamSource(path="s3a://bucket/log", format="json"),
        "onboarding": StreamSource(path="new/picks"),
    }


def test_a_source_of_events_of_its_own_takes_the_place_of_the_log(tmp_path: Path) -> None:
    stream = {"events": {"topic": "clicks"}, "kafka": {"bootstrap_servers": "broker:9092"}}
    for events in ({}, {"path": "catalog.schema.log", "format": "table"}):
        config = config_of(tmp_path, events=events, stream=stream)
        assert stream_sources(config) == {"events": StreamSource(topic="clicks")}


def test_a_log_that_no_stream_can_follow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"stream\.events: missing, but the log is a table by name\. Set the"):
        stream_sources(config_of(tmp_path, events={"path": "catalog.schema.log", "format": "table"}, stream={}))
    log = {"path": str(tmp_path), "columns": EVENT_COLUMNS}
    several = config_of(tmp_path, stream={}).model_copy(
        update={"events": config_of(tmp_path).events.model_copy(update={"sources": [log, log]})}
    )
    with pytest.raises(UsageError, match=r"a log of several sources cannot be streamed\. Use a log of one source"):
        stream_sources(several)


def test_rows_are_read_by_the_columns_of_the_batch_source_of_the_same_name(tmp_path: Path) -> None:
    users = {"path": "people", "columns": {"user_id": "id", "registered_at": "since"}}
    config = config_of(tmp_path, onboarding=ONBOARDING, users=users)
    paths = {what: batch_source(config, what).path for what in ("events", "onboarding", "users")}
    assert paths == {"events": f"{tmp_path}/events", "onboarding": "picks", "users": "people"}


def test_options_of_kafka_are_prefixed_and_have_their_secrets_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", "hush")
    options = {"security.protocol": "SASL_SSL", "sasl.jaas.config": 'user="ada" password="${BROKER_PASSWORD}"'}
    assert kafka_options(Kafka(bootstrap_servers="a:9092,b:9092", options=options)) == {
        "kafka.bootstrap.servers": "a:9092,b:9092",
        "kafka.security.protocol": "SASL_SSL",
        "kafka.sasl.jaas.config": 'user="ada" password="hush"',
    }
    monkeypatch.delenv("BROKER_PASSWORD")
    with pytest.raises(UsageError, match=r"stream\.kafka\.options\.sasl\.jaas\.config: not set .*: BROKER_PASSWORD"):
        kafka_options(Kafka(bootstrap_servers="a:9092", options=options))


def test_a_folder_that_is_not_there_is_refused_and_a_pattern_is_not_looked_up(tmp_path: Path) -> None:
    def check(**stream: Any) -> None:
        check_arriving(NO_SESSION, config_of(tmp_path, onboarding=ONBOARDING, stream=stream))

    (tmp_path / "arriving").mkdir()
    there, nowhere = {"path": str(tmp_path / "arriving")}, {"path": str(tmp_path / "nowhere")}
    with pytest.raises(UsageError, match=r"stream\.events\.path: no such path, got .*/nowhere\. Create the folder"):
        check(events=nowhere, onboarding=there)
    for events in (there, {"path": f"{tmp_path}/no*where"}):
        with pytest.raises(UsageError, match=rf"stream\.onboarding\.path: no such path, got {tmp_path}/nowhere\."):
            check(events=events, onboarding=nowhere)
