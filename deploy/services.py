"""A real Kafka broker and Redis server on this machine, for tests and benchmarks.

    with KafkaBroker(folder / "kafka") as broker, RedisServer(folder / "redis") as redis_server:
        broker.create_topic("events", partitions=2)
        broker.send("events", [b"first", b"second"])

Each is bound to 127.0.0.1 and keeps its port, so that clients can wait while it is stopped or killed and started again.
"""

import base64
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyspark
import redis
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from deploy.fetch_jars import broker_jars_folder
from deploy.local_server import START_SECONDS, LocalServer, free_port
from deploy.standalone_cluster import tail_of
from userrep.errors import UserrepError

ANSWER_SECONDS = 10  # timeout of a request to a broker


class RedisServer(LocalServer):
    """A Redis server that writes nothing to disk. After a stop it starts empty. Cost: 10 MB, 0.1 s to start."""

    name = "redis"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[object]:
        server = shutil.which("redis-server")
        if server is None:
            raise UserrepError("redis: no redis-server found. Install it (Debian: apt-get install redis-server).")
        return [server, "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]

    def answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.exceptions.ConnectionError:
            return False


class KafkaBroker(LocalServer):
    """One node, both broker and controller (KRaft). Messages survive ``stop`` and ``kill`` and never expire.

    ``make setup`` fetches its JARs. Cost: 256 MiB of heap; 5 s to start, 8 s after a kill, 1 s to stop.
    """

    name = "kafka"

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        super().__init__(folder, port=port)
        self._controller_port = free_port(but=self.port)
        self._producer: Producer | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Create a topic, and return when it can be read and written.

        Raises
        ------
        UserrepError
            If the topic exists already, or the broker does not answer.
        """
        admin = AdminClient(self._client_settings())
        try:
            created = admin.create_topics(
                [NewTopic(name, num_partitions=partitions, replication_factor=1)], request_timeout=ANSWER_SECONDS
            )
            created[name].result()
            deadline = time.monotonic() + ANSWER_SECONDS
            while _num_ready_partitions(admin, name) < partitions:
                if time.monotonic() > deadline:
                    raise UserrepError(f"kafka: the topic {name} was created, but its partitions have no leader.")
                time.sleep(0.05)
        except KafkaException as error:
            raise UserrepError(f"kafka: the topic {name} could not be created ({error.args[0].str()}).") from error

    def send(self, topic: str, values: Iterable[bytes], *, keys: Iterable[bytes] | None = None) -> None:
        """Send messages, each once and in order, and return when the broker has them.

        With ``keys``, a message's key determines its partition; without, the partition is random. Cost: 1 s for the
        first call after a start, then milliseconds plus about 5 µs per message.

        Raises
        ------
        UserrepError
            If the broker has not confirmed all of them after ten seconds.
        """
        self._producer = self._producer or Producer(self._client_settings() | {
            "enable.idempotence": True, "message.timeout.ms": ANSWER_SECONDS * 1000, "delivery.report.only.error": True,
        })  # fmt: skip
        failed: list[KafkaError] = []
        pairs = ((value, None) for value in values) if keys is None else zip(values, keys, strict=True)
        for value, key in pairs:
            if failed:
                break
            _produce(self._producer, topic, value, key, failed)
        left = self._producer.flush(ANSWER_SECONDS + 1)
        if failed or left:
            self._producer = None
            reason = failed[0].str() if failed else "no answer"
            raise UserrepError(f"kafka: {len(failed) + left} messages did not reach the topic {topic} ({reason}).")

    def command(self) -> list[object]:
        jars = broker_jars_folder()
        if not jars.is_dir():
            raise UserrepError(f"kafka: the broker's JARs are not in {jars}; `make setup` fetches them.")
        (scala,) = (Path(pyspark.__file__).parent / "jars").glob("scala-library-*.jar")
        home = os.environ.get("JAVA_HOME")
        java: list[object] = [
            Path(home) / "bin" / "java" if home else "java",
            *("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dlog4j2.level=WARN"),
            *("-cp", f"{jars / '*'}:{scala}"),
        ]
        settings = self.folder / "server.properties"
        settings.write_text("".join(f"{key}={value}\n" for key, value in self._settings().items()), encoding="utf-8")
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(java, settings)
        return [*java, "kafka.Kafka", settings]

    def answers(self) -> bool:
        try:
            return bool(AdminClient(self._client_settings()).list_topics(timeout=0.5).brokers)
        except KafkaException:
            return False

    def stop(self) -> None:
        self._producer = None
        super().stop()

    def _format(self, java: list[object], settings: Path) -> None:
        cluster_id = (
            base64.urlsafe_b64encode(b"u" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        )  # the id must not begin with -
        tool = [*java, "kafka.tools.StorageTool", "format", "--cluster-id", cluster_id, "--config", settings]
        try:
            failed = self.launch(tool).wait(START_SECONDS) != 0
        except subprocess.TimeoutExpired:
            failed = True
        if failed:
            lines = tail_of(self.log).splitlines() or ["no output"]
            raise UserrepError(
                f"kafka: {self.folder} cannot store a broker's data ({lines[-1]}). Choose another folder."
            )

    def _settings(self) -> dict[str, object]:
        voter = f"127.0.0.1:{self._controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{voter}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{voter}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "broker.session.timeout.ms": 3000,  # a killed broker counts as running for this long and blocks a restart
            "broker.heartbeat.interval.ms": 500,
            "log.dirs": self.folder / "data",
            "log.retention.ms": -1,  # keep events of any age
            "log.cleaner.dedupe.buffer.size": 2 * 2**20,  # the default is half of the heap
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            "offsets.topic.num.partitions": 1,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
        }

    def _client_settings(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200}


def _produce(producer: Producer, topic: str, value: bytes, key: bytes | None, failed: list[KafkaError]) -> None:
    """Pass a message to a producer, and wait while its buffer is full."""
    while True:
        try:
            return producer.produce(topic, value, key, on_delivery=lambda error, _: failed.append(error))
        except BufferError:
            producer.poll(0.1)


def _num_ready_partitions(admin: AdminClient, topic: str) -> int:
    partitions = admin.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic].partitions.values()
    return sum(partition.error is None and partition.leader >= 0 for partition in partitions)
