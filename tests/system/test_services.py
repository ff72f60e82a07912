"""The servers that streaming tests and benchmarks start: they keep their data, and leave no process behind."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from pyspark.sql import SparkSession

from deploy import local_server, services
from deploy.local_server import PORTS, LocalServer, free_port
from deploy.services import KafkaBroker, RedisServer
from userrep.errors import UserrepError

pytestmark = pytest.mark.full

MESSAGES = [b'{"user_id": "u%d"}' % k for k in range(100)]
needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server")


def read(spark: SparkSession, broker: KafkaBroker, topic: str) -> list[tuple[bytes | None, bytes, int]]:
    """Return (key, value, partition) of all messages, in the order of partitions and offsets."""
    options = {"kafka.bootstrap.servers": broker.bootstrap, "subscribe": topic}
    rows = spark.read.format("kafka").options(**options).load().orderBy("partition", "offset").collect()
    return [(row["key"] and bytes(row["key"]), bytes(row["value"]), row["partition"]) for row in rows]


def test_sent_messages_are_read_by_spark_in_order(spark: SparkSession, broker: KafkaBroker) -> None:
    broker.create_topic("in-order")
    broker.send("in-order", MESSAGES[:60])
    broker.send("in-order", MESSAGES[60:])
    assert read(spark, broker, "in-order") == [(None, value, 0) for value in MESSAGES]


def test_messages_with_one_key_are_in_one_partition_in_order(spark: SparkSession, broker: KafkaBroker) -> None:
    keys = [b"u%d" % (k % 7) for k in range(100)]
    broker.create_topic("keyed", partitions=3)
    broker.send("keyed", MESSAGES, keys=keys)
    rows = read(spark, broker, "keyed")
    assert len({partition for _, _, partition in rows}) > 1
    for key in set(keys):
        assert [value for k, value, _ in rows if k == key] == [
            v for k, v in zip(keys, MESSAGES, strict=True) if k == key
        ]
        assert len({partition for k, _, partition in rows if k == key}) == 1


def test_a_broker_keeps_its_messages_when_it_is_stopped_or_killed(
    spark: SparkSession, broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.create_topic("kept")
    broker.send("kept", MESSAGES[:50])
    bootstrap = broker.bootstrap
    (process,) = broker.processes()
    broker.stop()
    assert not psutil.pid_exists(process.pid)
    with monkeypatch.context() as patch:
        patch.setattr(services, "ANSWER_SECONDS", 1)
        with pytest.raises(UserrepError, match=r"kafka: 1 messages did not reach the topic kept \(Local: Message tim"):
            broker.send("kept", [b"lost"])
        with pytest.raises(UserrepError, match=r"kafka: the topic other could not be created \(.*[Tt]imed out\)\.$"):
            broker.create_topic("other")
    broker.start()
    broker.send("kept", MESSAGES[50:])
    broker.kill()
    assert broker.processes() == []
    broker.start()
    assert broker.bootstrap == bootstrap
    assert read(spark, broker, "kept") == [(None, value, 0) for value in MESSAGES]


def test_an_existing_topic_is_not_created_again(broker: KafkaBroker) -> None:
    broker.create_topic("twice")
    with pytest.raises(
        UserrepError, match=r"^kafka: the topic twice could not be created \(Topic 'twice' already exists"
    ):
        broker.create_topic("twice")


def test_a_folder_that_the_broker_cannot_write_to_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    broker = KafkaBroker(tmp_path)
    with pytest.raises(
        UserrepError, match=rf"^kafka: {tmp_path} cannot store a broker's data \(.+\)\. Choose another folder\.$"
    ):
        broker.start()
    assert broker.processes() == []


def test_missing_jars_of_the_broker_are_reported_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USERREP_JARS", str(tmp_path / "none"))
    with pytest.raises(UserrepError, match=r"^kafka: the broker's JARs are not in .*none.*; `make setup` fetches them"):
        KafkaBroker(tmp_path).start()


def test_redis_keeps_values_until_it_is_stopped(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("kept", b"value")
        assert client.get("kept") == b"value"
        redis_server.stop()
        assert redis_server.processes() == []
        with pytest.raises(redis.exceptions.ConnectionError):
            client.get("kept")
        redis_server.start()
        assert client.get("kept") is None
        client.set("again", b"value")
        assert client.get("again") == b"value"


@needs_redis
def test_a_redis_server_leaves_no_process(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        (process,) = server.processes()
    assert server.processes() == []
    assert not psutil.pid_exists(process.pid)


@needs_redis
def test_a_server_that_cannot_be_stopped_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisServer(tmp_path) as server, monkeypatch.context() as patch:
        patch.setattr(subprocess.Popen, "terminate", lambda self: None)
        patch.setattr(subprocess.Popen, "kill", lambda self: None)
        patch.setattr(local_server, "STOP_SECONDS", 0.1)
        with pytest.raises(UserrepError, match=r"redis: processes \[\d+\] could not be stopped"):
            server.stop()


@needs_redis
def test_a_server_that_ends_at_its_start_is_reported_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = RedisServer(tmp_path)
    good = server.command()
    monkeypatch.setattr(server, "command", lambda: [*good, "--maxmemory", "much"])
    with pytest.raises(UserrepError, match=r"redis: the server ended at its start; its log \S+ ends with\n(?s:.*)much"):
        server.start()
    assert server.processes() == []


@needs_redis
def test_a_server_that_does_not_answer_is_reported_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_server, "START_SECONDS", 0.2)
    server = RedisServer(tmp_path)
    monkeypatch.setattr(server, "answers", lambda: False)
    with pytest.raises(UserrepError, match=r"redis: the server did not answer within 0.2 s; its log"):
        server.start()
    assert server.processes() == []


def test_a_missing_redis_server_is_reported_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserrepError, match=r"^redis: no redis-server found. Install it \(Debian: apt-get install redis"
    ):
        RedisServer(tmp_path).start()


@pytest.fixture(params=[KafkaBroker, RedisServer])
def kind(request: pytest.FixtureRequest) -> type[LocalServer]:
    kind: type[LocalServer] = request.param
    return kind


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_in_use_is_reported_in_one_line(kind: type[LocalServer], taken: int, tmp_path: Path) -> None:
    with pytest.raises(
        UserrepError, match=rf"^{kind.name}: port {taken} of 127.0.0.1 is in use\. Choose another, or none"
    ):
        kind(tmp_path, port=taken).start()


def test_a_folder_that_is_a_file_is_reported_in_one_line(kind: type[LocalServer], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        UserrepError, match=rf"^{kind.name}: \S+/file cannot be a folder \(File exists\)\. Choose another"
    ):
        kind(tmp_path / "file").start()


def test_free_ports_are_never_those_of_outgoing_connections(taken: int) -> None:
    ports = {free_port(but=taken) for _ in range(20)}
    assert ports <= set(PORTS) - {taken}
