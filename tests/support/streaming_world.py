"""Copies of the shared pipeline's tables, and streams over them, whose events are those of its log."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tests.support.builders import AS_OF, pipeline_config
from userrep.config import Config
from userrep.spaces.registry import Space, find_space
from userrep.store.open import open_tables
from userrep.store.schemas import EMBEDDING_UPDATES, USER_EMBEDDINGS
from userrep.store.tables import Tables
from userrep.streaming.verify import StreamAgreement, verify_updates
from userrep.workflows.daily import daily
from userrep.workflows.run_context import RunContext
from userrep.workflows.stream import StreamProgress, stream_embeddings

DAY = timedelta(days=1)
NEXT = AS_OF + DAY  # the as-of date that a stream works on after the pipeline's
Row = dict[str, Any]
Vectors = dict[str, bytes]  # by user; float32, little-endian
# Sections of a small log from 2024-01-01 on, trained within seconds; item vectors are refitted from 2024-01-19 on.
SMALL: dict[str, Any] = {
    "windows_days": [3, 7],
    "history_days": 0,
    "item_vectors": {
        "behaviour": {"kind": "als", "dim": 4, "iterations": 2, "refit_days": 7},
        "content": {"kind": "text", "dim": 4},
    },
    "model": {"latent_dim": 8},
    "training": {
        "as_ofs": {"until": "2024-01-26", "every_days": 7}, "future_days": [7], "num_shards": 2, "batch_size": 64,
        "max_epochs": 3,
    },
    "snapshots": {"history_dates": 2},
}  # fmt: skip


class World:
    """Tables below ``folder``.

    ``root``: the initial tables, which are copied. ``stream``: settings of the stream. ``sections``: sections that
    replace those of ``pipeline_config``.
    """

    def __init__(
        self,
        spark: SparkSession,
        log: Path,
        root: str | None,
        folder: Path,
        stream: Row,
        sections: Mapping[str, Any] | None = None,
    ) -> None:
        self.spark, self.log, self.folder, self.sections = spark, log, folder, sections or {}
        if root is not None:
            shutil.copytree(root, folder / "root")
        self.reconfigure(**stream)

    def reconfigure(self, **stream: Any) -> None:
        """Use other settings of the stream."""
        self.config: Config = pipeline_config(self.log, self.folder / "root", stream=stream, **self.sections)

    def work(self, as_of: date | None = None) -> RunContext:
        return RunContext(self.config, self.spark, as_of)

    @cached_property
    def tables(self) -> Tables:
        return open_tables(self.config, self.spark)

    @property
    def space(self) -> Space:
        return find_space(self.tables, None)

    def stream(
        self,
        *,
        until_empty: bool = True,
        new_query_id: str | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> StreamProgress:
        """Run the stream in this process."""
        return stream_embeddings(
            self.work(), until_empty=until_empty, new_query_id=new_query_id, is_stopping=is_stopping
        )

    def close(self, day: date) -> None:
        """Publish the snapshot of the as-of date after a day, as the daily run does."""
        daily(self.work(day + DAY), on_time=True)

    def agreement(self, as_of: date) -> StreamAgreement:
        """Return the counts of ``userrep stream verify``."""
        return verify_updates(self.tables, self.space, as_of)

    def updates(self) -> DataFrame:
        return self.tables.read(EMBEDDING_UPDATES)

    def streamed(self, as_of: date, *, query_id: str | None = None) -> Vectors:
        """Return each user's last streamed vector for an as-of date: by the newest event, then the newest computation.

        Reads with delta-rs, as an oracle for Spark. ``query_id``: only of this stream.
        """
        wanted = [("space_id", "=", self.space.space_id), ("as_of", "=", as_of)]
        wanted += [("query_id", "=", query_id)] if query_id else []
        rows = DeltaTable(self.tables.uri(EMBEDDING_UPDATES)).to_pyarrow_table(filters=wanted).to_pylist()
        rows.sort(key=lambda row: (row["event_at"], row["computed_at"]))
        return {row["user_id"]: _as_bytes(row["embedding"]) for row in rows}

    def published(self, as_of: date) -> Vectors:
        """Return each user's vector in the newest snapshot of an as-of date."""
        wanted = [("space_id", "=", self.space.space_id), ("as_of", "=", as_of)]
        rows = DeltaTable(self.tables.uri(USER_EMBEDDINGS)).to_pyarrow_table(filters=wanted).to_pylist()
        newest = max(row["revision"] for row in rows)
        return {row["user_id"]: _as_bytes(row["embedding"]) for row in rows if row["revision"] == newest}

    def differing(self, as_of: date) -> set[str]:
        """Return the users whose last streamed vector is not bit-identical to that in the newest snapshot."""
        published = self.published(as_of)
        return {user_id for user_id, vector in self.streamed(as_of).items() if published.get(user_id) != vector}


NewWorld = Callable[..., World]


def _as_bytes(vector: Sequence[float]) -> bytes:
    return np.asarray(vector, "<f4").tobytes()


def events_between(spark: SparkSession, log: Path, start: date, end: date) -> list[Row]:
    """Return the log's rows of the days ``[start, end)``."""
    at = F.col("event_at")
    rows = spark.read.parquet(str(log / "events")).where((at >= F.lit(start)) & (at < F.lit(end)))
    return rows.drop("ingest_date").toArrow().to_pylist()


def is_valid(row: Row) -> bool:
    """Return whether a row of a generated log is a valid event."""
    is_whole = row["user_id"] is not None and row["item_id"] is not None and row["event_at"] is not None
    return is_whole and row["event_at"].year > 2000 and row["weight"] >= 0


def active_users(rows: Sequence[Row], *days: date) -> set[str]:
    """Return the users with events that count, of some days or, without days, of all."""
    return {row["user_id"] for row in rows if is_valid(row) and (not days or row["event_at"].date() in days)}


def arrive(folder: Path, rows: Sequence[Row], name: str, like: pa.Schema | None = None) -> None:
    """Let a file appear whole, as a writer's commit does."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=like), folder / f".{name}")
    (folder / f".{name}").rename(folder / name)


def write_to_log(log: Path, table: str, rows: Sequence[Row], *, ingest_date: date = AS_OF) -> None:
    """Write rows to a file of their own in a table of a log; rows of an earlier call are replaced."""
    folder = log / table
    like = pq.read_schema(next(folder.rglob("part-*.parquet")))
    folder = folder / f"ingest_date={ingest_date}" if table == "events" else folder
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=like), folder / "streamed.parquet")


def as_message(row: Row) -> bytes:
    """Write a row as a Kafka message."""
    return json.dumps({k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()}).encode()
