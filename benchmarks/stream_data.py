"""Data for stream benchmarks, drawn once a day and kept: the stream base of many users, item vectors, a space.

The batch's code computes the base from events that are drawn for each user: 20 on average and long-tailed (lognormal),
over the 360 days of the default history window. It is for the two as-of dates after today, which a stream may reach. A
real broker and a real online store run next to it.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from benchmarks.inference_data import COUNTRIES, SPACE, feature_rows, save_space
from benchmarks.logs import link_files
from benchmarks.report import Line, ask, print_line, progress
from deploy.services import KafkaBroker, RedisServer
from userrep.config import Config, parse_config
from userrep.features.layout import InputLayout, Moments, Scaler
from userrep.features.profiles import profiles_fingerprint
from userrep.features.spec import PARTS_OF_DAY, FeatureSpec
from userrep.features.sums.chunk import Chunk, schema_of
from userrep.features.sums.item_matrix import vector_files
from userrep.features.sums.pooling import OutputRows, PoolingJob
from userrep.features.sums.pooling_tasks import Writing, Written
from userrep.items.version_training import train_versions
from userrep.items.versions import versions_of
from userrep.spaces.registry import add_candidate, find_space, mark_ready, promote
from userrep.spaces.snapshots import PUBLISHED, Snapshot, record_snapshots
from userrep.spark.session import get_session
from userrep.store.arrow import listed
from userrep.store.buckets import range_of
from userrep.store.open import open_tables
from userrep.store.schemas import EMBEDDING_UPDATES, OPENINGS, USER_OPENINGS
from userrep.store.tables import Tables
from userrep.store.xxhash import bucket_of
from userrep.utc import DAY_US, day_number, utc_now
from userrep.workflows.run_context import RunContext
from userrep.workflows.stream import StreamProgress, stream_embeddings

EVENTS, PICKS = "events", "onboarding"  # topics
OPEN_DAYS = 3
_EVENTS_PER_USER = 20
_SLICES = 8
_CHUNK = 2**14  # users drawn at a time
_UTC = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class StreamSize:
    """The number of users in the base, and the width of each of two modalities."""

    users: int
    dim: int = 80
    items: int = 20_000
    seed: int = 7

    @property
    def name(self) -> str:
        return f"stream-{self.users}-{self.items}-{self.dim}-seed{self.seed}"

    def of_users(self, users: int) -> "StreamSize":
        return replace(self, users=users)

    def facts(self) -> Line:
        return {"users": self.users, "items": self.items, "dim": self.dim, "cores": os.cpu_count()}

    def activity(self) -> NDArray[np.float64]:
        """Return each user's share of all events."""
        drawn = np.random.default_rng(self.seed).lognormal(sigma=1.2, size=self.users)
        return drawn / drawn.sum()


SMALL = StreamSize(users=20_000)
Measure = Callable[[SparkSession, StreamSize, Path, int], Line]


@dataclass(frozen=True)
class Base:
    """Tables that a stream can start from, a broker and an online store; a copy that may be changed and is deleted."""

    tables: Tables
    config: Config
    size: StreamSize
    broker: KafkaBroker
    redis_server: RedisServer

    def fill(self, num: int) -> None:
        """Send events of the current time to the topic, of users by their activity."""
        random, now = np.random.default_rng(self.size.seed), utc_now().isoformat()
        users = random.choice(self.size.users, size=num, p=self.size.activity())
        items = random.integers(self.size.items, size=num)
        self.broker.send(EVENTS, (message(*pair, "event_at", now) for pair in zip(users, items, strict=True)))

    def stream(self, *, until_empty: bool, is_stopping: Callable[[], bool] = lambda: False) -> StreamProgress:
        """Stream in this process, as ``userrep stream`` does."""
        work = RunContext(self.config, self.tables.spark)
        return stream_embeddings(work, until_empty=until_empty, new_query_id=None, is_stopping=is_stopping)

    def committed_at(self, batches: int) -> list[float]:
        """Return the commit times of the first ``batches`` batches, in seconds, in order.

        If a batch's share of a partition is not an integer, Spark takes one event less, and one more batch at the end.
        """
        history = DeltaTable(self.tables.uri(EMBEDDING_UPDATES)).history()
        at = sorted(of["timestamp"] / 1000 for of in history if of["operation"] == "WRITE")
        if not batches <= len(at) <= batches + 1:
            raise AssertionError(f"{batches} batches were expected, {len(at)} were committed")
        return at[:batches]


def message(user: int, item: int, at_column: str, at: str) -> bytes:
    """Format a row of the log or of the picks as a Kafka message; ``at``: UTC."""
    return f'{{"user_id": "{user_id(user)}", "item_id": "i{item:07d}", "{at_column}": "{at}Z"}}'.encode()


def user_id(number: int) -> str:
    return f"u{number:09d}"


def run(benchmark: str, measure: Measure, size: StreamSize, *, small: StreamSize = SMALL, runs: int = 1) -> None:
    """Run one benchmark with the arguments of the command line, in its own session, and print its line."""
    asked = ask(benchmark, size, small=small, runs=runs, unit="users", number=size.users, resized=size.of_users)
    spark = get_session(master=f"local[{os.cpu_count()}]", app_name=benchmark)
    progress(f"{benchmark}: {asked.size.name}")
    try:
        print_line(benchmark, lambda: measure(spark, asked.size, asked.root, asked.runs))
    finally:
        spark.stop()


@contextmanager
def open_base(spark: SparkSession, size: StreamSize, root: Path, **settings: Any) -> Iterator[Base]:
    """Open a base of today, which is drawn if it is missing. ``settings``: more of the section ``stream``."""
    kept = root / f"{size.name}-{utc_now():%Y%m%d}"
    if not kept.exists():
        for outdated in root.glob(f"{size.name}-*"):
            shutil.rmtree(outdated)
        progress(f"drawing {kept}")
        staged = root / f".{size.name}-{uuid4().hex}"  # a killed run leaves no half of the users behind
        _draw(spark, size, staged)
        staged.rename(kept)
    folder = root / f"run-{uuid4().hex}"
    link_files(kept / "root", folder)
    try:
        with KafkaBroker(folder / "kafka") as broker, RedisServer(folder / "redis") as redis_server:
            for topic in (EVENTS, PICKS):
                broker.create_topic(topic, partitions=2)
            stream = {
                "events": {"topic": EVENTS}, "onboarding": {"topic": PICKS}, "open_days": OPEN_DAYS,
                "kafka": {"bootstrap_servers": broker.bootstrap}, "redis": {"url": redis_server.url}, **settings,
            }  # fmt: skip
            config = _config(size, kept / "log", folder, stream=stream)
            tables = open_tables(config, spark)
            _record_openings(tables, config, utc_now().date())
            yield Base(tables, config, size, broker, redis_server)
    finally:
        shutil.rmtree(folder)


def _config(size: StreamSize, log: Path, root: Path, **sections: Any) -> Config:
    event = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at"}
    values = {
        "root": str(root),
        "events": {"path": str(log / "events.parquet"), "columns": event},
        "items": {"path": str(log / "items.parquet"), "columns": {"item_id": "item_id", "vector": "vec"}},
        "users": {
            "path": str(log / "users.parquet"),
            "columns": {"user_id": "user_id", "registered_at": "registered_at"},
            "attributes": ["country"],
        },
        "onboarding": {"path": str(log / "onboarding.parquet"), "columns": event | {"event_at": "picked_at"}},
        "windows_days": [7, 30, 180],
        "item_vectors": {modality: {"kind": "vector", "dim": size.dim} for modality in ("behaviour", "content")},
        **sections,
    }
    return parse_config(values, "benchmark")


def _draw(spark: SparkSession, size: StreamSize, folder: Path) -> None:
    """Write the tables to ``root``, and the owner's data to ``log``: all items, and one row of each other source."""
    today = utc_now().date()
    _write_log(size, folder / "log")
    config = _config(size, folder / "log", folder / "root")
    tables = open_tables(config, spark)
    train_versions(tables, config, versions_of(tables, config, anchor=today), [today])
    versions, since = versions_of(tables, config, anchor=today), tables.version(USER_OPENINGS)
    dated = tuple(vector_files(tables, versions, _as_ofs(today)).items())
    writing = Writing({"stream_base": tables.target(USER_OPENINGS)}, {"lineage_id": versions.lineage_id}, _SLICES)
    task = _Task(
        size, PoolingJob(FeatureSpec.of(config), dated, ("stream_base",)), writing, day_number(today) + 1 - OPEN_DAYS
    )
    rows = spark.range(0, _SLICES, 1, _SLICES).mapInArrow(task, writing.SCHEMA).collect()
    files = [Written.of(row).file for row in rows]
    tables.commit(USER_OPENINGS, files, replacing=lambda _: False, since=since)
    _publish(tables, config, size, today)


def _as_ofs(today: date) -> list[date]:
    return [today + timedelta(days=k) for k in range(1, OPEN_DAYS)]


def _record_openings(tables: Tables, config: Config, today: date) -> None:
    """Record that the stream base is complete for the users and picks as they are now."""
    versions = versions_of(tables, config, anchor=today)
    of = {"lineage_id": versions.lineage_id, "valid_from": versions.valid_at(today), "revision_by_day": {}}
    of |= {"sides_hash": profiles_fingerprint(tables.spark, config), "num_users": 0, "built_at": utc_now()}
    of |= {"table_version": tables.version(USER_OPENINGS)}
    dates = [{"as_of": as_of, "open_from": as_of - timedelta(days=OPEN_DAYS)} for as_of in _as_ofs(today)]
    tables.add(OPENINGS, [of | dated for dated in dates])


def _publish(tables: Tables, config: Config, size: StreamSize, today: date) -> None:
    """Make a space serve whose newest snapshot is today's."""
    spec, lineage_id = FeatureSpec.of(config), versions_of(tables, config, anchor=today).lineage_id
    layout = InputLayout.of(spec, {"attribute_country": COUNTRIES})
    drawn = feature_rows(spec, np.random.default_rng(size.seed), range(_CHUNK))
    scaler = Scaler.fit(layout, Moments.of(layout.raw(drawn)))
    content_hash = save_space(config, layout, scaler, lineage_id=lineage_id)
    add_candidate(tables, space_id=SPACE, lineage_id=lineage_id, trained_until=today, content_hash=content_hash)
    for step in (mark_ready, promote):
        step(tables, find_space(tables, SPACE))
    now = utc_now()
    record_snapshots(tables, [Snapshot(f"{SPACE}-r1", SPACE, today, 1, PUBLISHED, "x", size.users, now, now, "")])


def _write_log(size: StreamSize, folder: Path) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng([size.seed, 1])
    vectors = (random.standard_normal((size.items, size.dim)) / np.sqrt(size.dim)).astype(np.float32)
    items = pa.array([f"i{k:07d}" for k in range(size.items)])
    then = pa.array([0], _UTC)
    pq.write_table(pa.table({"item_id": items, "vec": listed(vectors)}), folder / "items.parquet")
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["i"], "event_at": then}), folder / "events.parquet")
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["i"], "picked_at": then}), folder / "onboarding.parquet")
    pq.write_table(pa.table({"user_id": ["u"], "registered_at": then, "country": ["c00"]}), folder / "users.parquet")


@dataclass(frozen=True)
class _Task:
    """Draws the users of a slice and writes their base sums. ``end``: the day (since 1970) before which events are."""

    size: StreamSize
    job: PoolingJob
    writing: Writing
    end: int

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in (number for batch in batches for number in batch.column("id").to_pylist()):
            yield from self.writing(self._made(number))

    def _made(self, number: int) -> Iterator[OutputRows]:
        ids = pc.utf8_lpad(pa.array(np.arange(self.size.users)).cast(pa.string()), 9, "0")
        ids = pc.binary_join_element_wise("u", ids, "")
        bucket_U, within = bucket_of(ids), range_of(number, _SLICES)
        own = np.flatnonzero((bucket_U >= within.start) & (bucket_U < within.stop))
        own = own[np.argsort(bucket_U[own], kind="stable")]
        num_U = self.size.activity() * self.size.users * _EVENTS_PER_USER
        random = np.random.default_rng([self.size.seed, 2, number])
        for start in range(0, len(own), _CHUNK):
            users = own[start : start + _CHUNK]
            keys = {"user_bucket": bucket_U[users], "user_id": ids.take(pa.array(users))}
            chunk = Chunk(
                tiles=self._tiles(pa.table(keys), random.poisson(num_U[users]), random),
                profiles=self._profiles(keys, random),
            )
            yield from self.job.run([chunk])

    def _tiles(self, keys: pa.Table, num_U: NDArray[np.int64], random: np.random.Generator) -> pa.Table:
        rows = keys.take(pa.array(np.repeat(np.arange(len(num_U)), num_U)))
        num = rows.num_rows
        at_N = self.end * DAY_US - random.integers(1, 359 * DAY_US, size=num)
        part_N = at_N % DAY_US // (DAY_US // len(PARTS_OF_DAY))
        columns: dict[str, Any] = {
            "user_bucket": rows.column("user_bucket"),
            "user_id": rows.column("user_id"),
            "item_id": self._items(num, random),
            "weight": np.ones(num),
            "num_events": np.ones(num, np.int32),
            "last_event_at": at_N,
            **{f"num_{part}": (part_N == k).astype(np.int32) for k, part in enumerate(PARTS_OF_DAY)},
            "day": (at_N // DAY_US).astype(np.int32),
            "before": np.zeros(num, bool),
            "after": np.ones(num, bool),
        }
        schema = schema_of("tiles", context=False)
        return pa.table({name: columns[name] for name in schema.names}, schema)

    def _profiles(self, keys: dict[str, Any], random: np.random.Generator) -> pa.Table:
        """Return the profiles: each user has registered, has a country, and has picked three items."""
        num = len(keys["user_bucket"])
        registered_at = (self.end - 200) * DAY_US + random.integers(DAY_US, size=num)
        threes = pa.array(np.arange(0, 3 * num + 1, 3, dtype=np.int32))
        countries = pa.array(COUNTRIES[:30]).take(pa.array(random.integers(30, size=num)))
        columns = keys | {
            "registered_at": registered_at,
            "attributes": pa.ListArray.from_arrays(pa.array(np.arange(num + 1, dtype=np.int32)), countries),
            "pick_items": pa.ListArray.from_arrays(threes, self._items(3 * num, random)),
            "picked_at": pa.ListArray.from_arrays(threes, pa.array(np.repeat(registered_at, 3))),
        }
        return pa.table(columns)

    def _items(self, num: int, random: np.random.Generator) -> pa.Array:
        known = pa.array([f"i{k:07d}" for k in range(self.size.items)])
        return known.take(pa.array((self.size.items * random.random(num) ** 3).astype(np.int64)))
