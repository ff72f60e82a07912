"""Small logs and configurations for tests; a test names only what matters to its claim."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from userrep.config import Config, parse_config
from userrep.store.arrow import packed
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import file_system
from userrep.store.schemas import TableSchema
from userrep.store.spark_tables import SparkTables
from userrep.store.tables import Tables
from userrep.synthetic.generator import LogSpec

# For sessions with thousands of small queries: generating and optimizing code for each costs more than it saves.
# Without the second compiler, the code cache would be 48 MB, and ten iterations of ALS would overflow a stack of 1 MB.
SPARK = {
    "spark.driver.memory": "2g",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:NewRatio=1 -XX:TieredStopAtLevel=1"
    " -XX:ReservedCodeCacheSize=240m -Xss4m",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "1000",  # below, the driver lists files without a job
}
EVENT_COLUMNS = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at"}


def at(text: str) -> datetime:
    """Parse ``2024-05-01`` or ``2024-05-01 23:59:59``."""
    return datetime.fromisoformat(text)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None = None) -> Path:
    """Write rows as one Parquet file; times are naive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path)
    return path


def event(user: str | None, item: str | None, when: str | None, **more: Any) -> dict[str, Any]:
    """Return a row of a log."""
    return {"user_id": user, "item_id": item, "event_at": at(when) if when else None, **more}


def config_of(folder: Path, **sections: Any) -> Config:
    """Return a configuration with tables below ``folder`` and the log in ``folder/events``, plus ``sections``."""
    events = {"path": str(folder / "events"), "columns": EVENT_COLUMNS, **sections.pop("events", {})}
    values = {
        "root": str(folder / "root"),
        "events": events,
        "windows_days": [2, 7],
        "item_vectors": {"behaviour": {"kind": "als", "dim": 4, "refit_days": 7}},
        "quality": {"self_check": False},
        **sections,
    }
    return parse_config(values, "test")


@contextmanager
def in_time_zone(zone: str) -> Iterator[None]:
    """Let this process run in a time zone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        yield
    time.tzset()


@contextmanager
def session_in(spark: SparkSession, zone: str) -> Iterator[None]:
    """Let the session run in a time zone."""
    with conf_of(spark, "spark.sql.session.timeZone", zone):
        yield


@contextmanager
def conf_of(spark: SparkSession, name: str, value: str) -> Iterator[None]:
    """Let the session run with another value of a setting."""
    before = spark.conf.get(name)
    spark.conf.set(name, value)
    try:
        yield
    finally:
        spark.conf.set(name, before)


def write_training_rows(
    root: str | Path, split: str, shard: int, keys: range, *, width: int, files: int = 2, group: int = 7
) -> list[str]:
    """Write ``training_rows`` whose inputs equal their key, in files of several row groups; return their URIs."""
    uris = []
    for k in range(files):
        file_keys = np.array(keys[k::files])
        x = np.repeat(file_keys[:, None], width, axis=1).astype(np.float32)
        uris.append(f"{root}/split={split}/shard={shard}/part {k}.parquet")
        store, path = file_system(uris[-1])
        store.create_dir(path.rpartition("/")[0])
        pq.write_table(
            pa.table({"row_key": file_keys, "x": packed(x)}),
            path,
            filesystem=store,
            row_group_size=group,
            use_dictionary=False,
            data_page_size=8192,
            compression="lz4",
        )
    return uris


@contextmanager
def cut_off_before_a_row_of(ledger: TableSchema, error: BaseException) -> Iterator[None]:
    """Raise an error when rows are about to be added to a ledger."""
    add = FileTables.add

    def cut_off(self: FileTables, table: TableSchema, rows: Sequence[Mapping[str, Any]], **how: Any) -> bool:
        if table == ledger:
            raise error
        return add(self, table, rows, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileTables, "add", cut_off)
        yield


@contextmanager
def interrupted_at(owner: object, name: str) -> Iterator[None]:
    """Raise KeyboardInterrupt, as Ctrl-C does, where the block calls a function, which it must."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield


# A generated log, and a pipeline on it: tests/conftest.py runs it once.
SPEC = LogSpec(num_users=600, num_items=150, first_day=date(2024, 1, 1), num_days=80, events_per_user_day=1.5, seed=3)
AS_OF = date(2024, 3, 15)


def pipeline_config(log: Path | str, root: Path | str, **more: Any) -> Config:
    """Return the configuration of a whole pipeline over a generated log."""
    return parse_config(pipeline_values(log, root, **more), "test")


def pipeline_values(log: Path | str, root: Path | str, **more: Any) -> dict[str, Any]:
    """Return the values of that configuration, as in a file."""
    return {
        "root": str(root),
        "events": {
            "path": f"{log}/events",
            "columns": {
                "user_id": "user_id", "item_id": "item_id", "event_at": "event_at", "event_id": "event_id",
                "event_type": "event_type", "weight": "weight", "context": ["device"],
            },
        },
        "items": {"path": f"{log}/items", "columns": {"item_id": "item_id", "text": "title"}},
        "users": {
            "path": f"{log}/users",
            "columns": {"user_id": "user_id", "registered_at": "registered_at"},
            "attributes": ["country", "age_band"],
        },
        "onboarding": {
            "path": f"{log}/onboarding",
            "columns": {"user_id": "user_id", "item_id": "item_id", "event_at": "picked_at"},
        },
        "windows_days": [7, 28],
        "item_vectors": {
            # With the default, 0.5, the example consumer is .0046 ahead of recency on this small log; .005 are claimed.
            "behaviour": {"kind": "als", "dim": 16, "iterations": 4, "regularization": 0.3},
            "content": {"kind": "text", "dim": 16},
        },
        "model": {"latent_dim": 48},
        "training": {
            "as_ofs": {"until": "2024-02-25", "every_days": 7}, "future_days": [7], "num_shards": 2, "batch_size": 64,
            "max_epochs": 20,
        },
        "snapshots": {"history_dates": 4},
        "tracking": {"mlflow": False},
        "quality": {"self_check": False},
        **more,
    }  # fmt: skip


def left_to_spark(tables: Tables) -> SparkTables:
    """Open the same tables such that only Spark reads and writes them, as in a catalog."""
    return SparkTables(tables.spark, artifacts=tables.artifacts_root)
