"""The shared pipeline's tables, copied, and a stream over them: what arrives is the generated log's own events."""

import json
import shutil
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tests.support.builders import AS_OF, pipeline_config
from userrep.config import Config
from userrep.daily import daily
from userrep.pipeline import Pipeline
from userrep.schemas import EMBEDDING_UPDATES
from userrep.spaces.registry import Space, find_space
from userrep.stream import Progress, stream_embeddings
from userrep.streaming.verify import Agreement, verify_updates
from userrep.tables import Tables

DAY = timedelta(days=1)
NEXT = AS_OF + DAY  # the as-of date that a stream works on after the pipeline's
Row = dict[str, Any]


class World:
    """Tables as the pipeline left them, in ``folder``, and the lines that were said."""

    def __init__(self, spark: SparkSession, log: Path, root: str, folder: Path, stream: Row) -> None:
        self.spark, self.log, self.folder = spark, log, folder
        self.config: Config = pipeline_config(log, shutil.copytree(root, folder / "root"), stream=stream)
        self.said: list[str] = []

    def reconfigure(self, **stream: Any) -> None:
        self.config = pipeline_config(self.log, self.folder / "root", stream=stream)

    def work(self, as_of: date | None = None) -> Pipeline:
        return Pipeline(self.config, self.spark, as_of, report=self.said.append)

    @cached_property
    def tables(self) -> Tables:
        return Tables.of(self.config, self.spark)

    @property
    def space(self) -> Space:
        return find_space(self.tables, None)

    def stream(
        self,
        *,
        until_empty: bool = True,
        new_query_id: str | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> Progress:
        return stream_embeddings(
            self.work(), until_empty=until_empty, new_query_id=new_query_id, is_stopping=is_stopping
        )

    def close(self, day: date) -> None:
        """Publish the snapshot of the as-of date after a day, as the night does."""
        daily(self.work(day + DAY), on_time=True)

    def agreement(self, as_of: date) -> Agreement:
        return verify_updates(self.tables, self.space, as_of)

    def updates(self) -> DataFrame:
        return self.tables.read(EMBEDDING_UPDATES)


NewWorld = Callable[..., World]


def events_between(spark: SparkSession, log: Path, start: date, end: date) -> list[Row]:
    """Return the log's rows of the days ``[start, end)``."""
    at = F.col("event_at")
    rows = spark.read.parquet(str(log / "events")).where((at >= F.lit(start)) & (at < F.lit(end)))
    return rows.drop("ingest_date").toArrow().to_pylist()


def arrive(folder: Path, rows: Sequence[Row], name: str, like: pa.Schema | None = None) -> None:
    """Let a file appear whole, as a writer's commit does."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=like), folder / f".{name}")
    (folder / f".{name}").rename(folder / name)


def as_message(row: Row) -> bytes:
    """Write a row as a message of Kafka's."""
    return json.dumps({k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()}).encode()
