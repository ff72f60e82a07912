"""A stream from a real Kafka to a real Redis: messages are encoded as in the batch, or kept with a reason."""

import json
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pytest
from pyspark.sql import functions as F

from deploy.local_server import free_port
from deploy.services import KafkaBroker, RedisServer
from return_propensity.training import CONSUMER
from tests.support.builders import AS_OF
from tests.support.streaming_world import (
    DAY,
    NEXT,
    NewWorld,
    Row,
    World,
    as_message,
    events_between,
    is_valid,
    write_to_log,
)
from userrep.errors import UsageError, UserrepError
from userrep.model.artifact import load_artifact
from userrep.spaces.consumers import pin_consumer
from userrep.spaces.create import save_space
from userrep.spaces.registry import add_candidate, artifact_folder, find_space, mark_ready, promote
from userrep.store.schemas import REJECTED_EVENTS, USER_EMBEDDINGS
from userrep.streaming.redis_store import online_store
from userrep.streaming.verify import verify_updates
from userrep.tiles.ledger import STREAM_REVISION

pytestmark = pytest.mark.full

LONG = "u" * 900_000  # near the limit of a message
NOON = datetime(AS_OF.year, AS_OF.month, AS_OF.day, 12)
GOOD: Row = {
    "event_id": "x", "user_id": "u0000001", "item_id": "i000001", "event_at": NOON, "event_type": "play", "weight": 1.0,
    "device": "tv",
}  # fmt: skip


def as_good(**more: Any) -> bytes:
    return as_message(GOOD | more)


def malformed() -> dict[bytes | None, str]:
    """Return messages that must not stop a stream, with the reasons why they are rejected."""
    in_five_hours = (datetime.now(UTC) + timedelta(hours=5)).replace(tzinfo=None)
    return {
        b"not json": "unparsable_row",
        None: "unparsable_row",
        b"": "unparsable_row",
        b"null": "unparsable_row",
        b"5": "unparsable_row",
        b"\xff\xfe\x00{\x80": "unparsable_row",
        b"[" * 5000: "unparsable_row",
        as_good()[:-9]: "unparsable_row",
        as_good(weight="heavy"): "unparsable_row",
        b"{}": "unreadable_event_at",
        as_good(event_at="yesterday"): "unparsable_row",
        as_good(event_at="1970-01-01T00:00:00"): "implausible_event_at",
        as_good(event_at="2099-01-01T00:00:00"): "ahead_of_the_clock",
        as_good(event_at=in_five_hours): "ahead_of_the_clock",
        as_good(user_id=None): "missing_user_id",
        as_good(user_id="  "): "missing_user_id",
        as_good(item_id=None): "missing_item_id",
        as_good(weight=float("nan")): "unreadable_weight",
        as_good(weight=-1.0): "negative_weight",
    }


class Streamed(NamedTuple):
    """The tables, the rows of the user who has only picks, and the partition and offset of each malformed message."""

    world: World
    newcomers: list[Row]
    malformed: dict[bytes | None, str]
    places: dict[bytes | None, str]


def places_of(world: World, broker: KafkaBroker, topic: str) -> dict[bytes | None, str]:
    options = {"kafka.bootstrap.servers": broker.bootstrap, "subscribe": topic}
    rows = world.spark.read.format("kafka").options(**options).load().collect()
    return {
        None if row["value"] is None else bytes(row["value"]): f"{topic}/{row['partition']}/{row['offset']}"
        for row in rows
    }


@pytest.fixture(scope="module")
def streamed(new_world: NewWorld, broker: KafkaBroker, redis_server: RedisServer) -> Streamed:
    broker.create_topic("events", partitions=2)
    broker.create_topic("picks")
    world = new_world(
        own_log=True, events={"topic": "events"}, onboarding={"topic": "picks"}, max_rows_per_batch=2000,
        kafka={"bootstrap_servers": broker.bootstrap}, redis={"url": redis_server.url},
    )  # fmt: skip
    pick = {"user_id": "newcomer", "item_id": "i000002", "picked_at": NOON}
    bad_picks = [
        b"no json",
        as_message(pick | {"picked_at": "2099-01-01T00:00:00"}),
        as_message(pick | {"item_id": None}),
    ]
    broker.send("picks", [*bad_picks, as_message(pick)])
    world.stream()
    newcomers = [row.asDict() for row in world.updates().collect()]
    rows = events_between(world.spark, world.log, AS_OF - 2 * DAY, AS_OF + DAY)
    long = GOOD | {"user_id": LONG, "event_id": "long"}
    bad = malformed()
    odd = as_good(event_id="odd", user_id="POISON").replace(b"POISON", b"\xff\xfe")  # no UTF-8: Spark puts U+FFFD
    messages: list[Any] = [*map(as_message, [*rows, *rows[::5], long]), odd, *bad]
    random.Random(7).shuffle(messages)
    broker.send("events", messages)
    world.stream()
    write_to_log(world.log, "events", [long, GOOD | {"event_id": "odd", "user_id": "\ufffd\ufffd"}])
    write_to_log(world.log, "onboarding", [pick])
    world.close(AS_OF)
    return Streamed(world, newcomers, bad, places_of(world, broker, "events"))


def test_the_picks_of_a_new_user_give_an_embedding_at_once(streamed: Streamed) -> None:
    (row,) = streamed.newcomers
    assert (row["user_id"], row["as_of"], row["event_at"], row["is_new"]) == ("newcomer", NEXT, NOON, True)
    assert np.any(np.array(row["embedding"]))


def test_shuffled_messages_with_copies_and_malformed_ones_end_in_the_vectors_of_the_batch(streamed: Streamed) -> None:
    world = streamed.world
    found = world.agreement(NEXT)
    users = world.updates().where(f"as_of = DATE'{NEXT}'").select("user_id").distinct()
    published = world.tables.read(USER_EMBEDDINGS).where(f"as_of = DATE'{NEXT}'")
    assert users.join(published, on="user_id", how="left_anti").collect() == []
    assert found.is_equal, found
    assert found.equal > 100
    assert users.where(F.col("user_id").isin(LONG, "newcomer")).count() == 2


def test_each_malformed_message_is_kept_with_its_reason_partition_and_offset(streamed: Streamed) -> None:
    rows = streamed.world.tables.read(REJECTED_EVENTS).where(f"revision = {STREAM_REVISION}").collect()
    found = {(told := json.loads(row["row"]))["place"]: (row["reason"], told["row"]) for row in rows}
    for message, reason in streamed.malformed.items():
        assert found[streamed.places[message]][0] == reason, message
    assert found[streamed.places[b"not json"]][1] == "not json"
    assert json.loads(found[streamed.places[as_good(weight=-1.0)]][1])["weight"] == -1.0


def test_redis_has_the_last_vector_of_each_user(streamed: Streamed) -> None:
    world = streamed.world
    last = F.max_by("embedding", F.struct("as_of", "event_at", "computed_at")).alias("vector")
    rows = world.updates().where(f"space_id = '{world.space.space_id}'").groupBy("user_id").agg(last).collect()
    assert world.config.stream is not None
    store = online_store(world.config.stream)
    assert store is not None
    found = store.read(world.space.space_id, [row["user_id"] for row in rows])
    assert len(rows) > 100
    for row, of in zip(rows, found, strict=True):
        assert of is not None
        assert np.array_equal(np.array(row["vector"], np.float32), of.vector), row["user_id"][:20]


def test_a_missing_topic_path_or_server_is_reported_in_one_line_before_any_work(
    new_world: NewWorld, broker: KafkaBroker, redis_server: RedisServer, lines: list[str]
) -> None:
    port, kafka = free_port(), {"bootstrap_servers": broker.bootstrap}
    world = new_world(events={"topic": "nowhere"}, kafka=kafka)
    with pytest.raises(
        UsageError, match=rf"^stream.events.topic: no such topic at {broker.bootstrap}, got nowhere\. Create it .*\.$"
    ):
        world.stream()
    stream = {"events": {"topic": "events"}, "kafka": {"bootstrap_servers": f"127.0.0.1:{port}"}}
    world.reconfigure(**stream)
    with pytest.raises(
        UserrepError, match=rf"^stream: Kafka at 127.0.0.1:{port} does not answer \(.*right\.$"
    ) as raised:
        world.stream()
    assert raised.value.exit_code == 1
    world.reconfigure(events={"topic": "events"}, kafka=kafka, redis={"url": f"redis://:secret@127.0.0.1:{port}/0"})
    with pytest.raises(
        UserrepError, match=rf"^stream: Redis at redis://127.0.0.1:{port}/0 does not answer \("
    ) as raised:
        world.stream()
    assert raised.value.exit_code == 1
    world.reconfigure(events={"path": str(world.folder / "nowhere")})
    with pytest.raises(UsageError, match=r"^stream.events.path: no such path, got \S+/nowhere\. Create the folder"):
        world.stream()
    assert not any(line.startswith(("open_days", "stream_embeddings")) for line in lines)


class Live:
    """A stream that runs in a thread until it is stopped. ``lines``: what it logs."""

    def __init__(self, world: World, lines: list[str]) -> None:
        self.world, self.lines, self.failed = world, lines, list[BaseException]()
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.world.stream(until_empty=False, is_stopping=self.stopping.is_set)
        except BaseException as error:
            self.failed.append(error)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        until = time.monotonic() + 300
        while not is_so():
            assert self.failed == []
            assert time.monotonic() < until, self.lines
            time.sleep(0.3)

    def wait_for_line(self, text: str) -> None:
        self.wait_until(lambda: any(text in line for line in self.lines))

    def wait_for(self, rows: list[Row]) -> None:
        """Wait until the users of these events have vectors that include them."""
        wanted: dict[str, datetime] = {}
        for row in rows:
            if row["event_at"].date() == AS_OF:
                at = row["event_at"].replace(tzinfo=None)
                wanted[row["user_id"]] = max(at, wanted.get(row["user_id"], at))

        def is_there() -> bool:
            rows = self.world.updates().where(f"as_of = DATE'{NEXT}'")
            newest = rows.groupBy("user_id").agg(F.max("event_at").alias("newest"))
            found = {row["user_id"]: row["newest"] for row in newest.collect()}
            return all(user_id in found and found[user_id] >= at for user_id, at in wanted.items())

        self.wait_until(is_there)

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join()


def add_mirrored_space(world: World, space_id: str) -> None:
    """Register a ready space whose vectors are those of the serving space, negated. Costs no training."""
    like = world.space
    artifact = load_artifact(artifact_folder(world.tables, like))
    encoder = ("encoder_linear", "encoder_latent", "propensity_P")  # not the knots, which are points of inputs
    mirrored = {name: -t if name.startswith(encoder) else t for name, t in artifact.tensors.items()}
    manifest = artifact.manifest.model_copy(update={"space_id": space_id})
    made = save_space(str(world.config.root), manifest, mirrored)
    add_candidate(
        world.tables, space_id=space_id, lineage_id=like.lineage_id, trained_until=like.trained_until,
        content_hash=made.content_hash,
    )  # fmt: skip
    mark_ready(world.tables, find_space(world.tables, space_id))


def test_a_stream_waits_for_broker_and_redis_and_encodes_a_promoted_space_from_the_next_batch_on(
    new_world: NewWorld, broker: KafkaBroker, redis_server: RedisServer, lines: list[str]
) -> None:
    broker.create_topic("live", partitions=2)
    world = new_world(
        events={"topic": "live"}, kafka={"bootstrap_servers": broker.bootstrap}, redis={"url": redis_server.url},
        trigger="1s",
    )  # fmt: skip
    first = world.space
    pin_consumer(world.tables, CONSUMER, first.space_id)
    rows = list(filter(is_valid, events_between(world.spark, world.log, AS_OF - 2 * DAY, AS_OF + DAY)))
    random.Random(9).shuffle(rows)
    parts = [rows[k::5] for k in range(5)]
    live = Live(world, lines)
    try:
        broker.send("live", map(as_message, parts[0]))
        live.wait_for(parts[0])
        broker.stop()
        live.wait_for_line("stream: no answer from a source for 10 s")
        broker.start()
        broker.send("live", map(as_message, parts[1]))
        live.wait_for(parts[1])
        redis_server.stop()
        broker.send("live", map(as_message, parts[2]))
        live.wait_for_line("waits: Redis does not answer")
        redis_server.start()
        live.wait_for(parts[2])
        add_mirrored_space(world, "s002-mirrored")
        broker.send("live", map(as_message, parts[3]))
        live.wait_for(parts[3])
        promote(world.tables, find_space(world.tables, "s002-mirrored"))
        broker.send("live", map(as_message, parts[4]))
        live.wait_for(parts[4])
    finally:
        live.stop()
        for server in (broker, redis_server):
            if not server.processes():
                server.start()
    assert live.failed == []
    mirrored = world.updates().where("space_id = 's002-mirrored'").select("batch_id", "user_id", "as_of", "embedding")
    plain = world.updates().where(f"space_id = '{first.space_id}'").withColumnRenamed("embedding", "plain")
    both = plain.join(mirrored, on=["batch_id", "user_id", "as_of"], how="left")
    by_batch: dict[int, list[Any]] = {}
    for row in both.collect():
        by_batch.setdefault(row["batch_id"], []).append((row["plain"], row["embedding"]))
    of_two = {batch_id for batch_id, pairs in by_batch.items() if any(other is not None for _, other in pairs)}
    assert of_two == {batch_id for batch_id in by_batch if batch_id >= min(of_two)}
    assert min(of_two) > min(by_batch)
    for batch_id in of_two:
        assert all(np.array_equal(np.array(one), -np.array(other)) for one, other in by_batch[batch_id])
    assert mirrored.count() == sum(len(by_batch[batch_id]) for batch_id in of_two)
    world.close(AS_OF)
    found = verify_updates(world.tables, find_space(world.tables, first.space_id), NEXT)
    assert found.is_equal, found
