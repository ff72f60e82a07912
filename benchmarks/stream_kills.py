"""Does a stream that is killed again and again lose, duplicate or change a row?

100 micro-batches of a small generated log, one file each, in random order and with duplicates, processed by `userrep
stream --until-empty` in a process of its own. The process is killed (SIGKILL) and restarted 20 times. Each kill is at a
random time: after a given number of batches and up to three seconds later, within a batch or while Spark starts. Kills
alternate between only the process and its whole process group, as in a machine failure. The value is the number of rows
that are missing, duplicated or different compared with an uninterrupted stream, plus the number of users whose last
vector differs from the batch's snapshot of the day, built afterwards. Spark records a file before the batch that takes
it. After a kill in between, one batch has two files; it must have each user's last row of both.

    make bench-stream-kills
    python -m benchmarks.stream_kills --small
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.report import Line, ask, print_line, progress, seconds_of
from userrep.config import load_config
from userrep.spaces.registry import find_space
from userrep.spark.session import get_session
from userrep.store.open import open_tables
from userrep.store.schemas import EMBEDDING_UPDATES
from userrep.store.tables import Tables
from userrep.streaming.verify import verify_updates
from userrep.synthetic.generator import LogSpec, generate_log
from userrep.workflows.daily import daily
from userrep.workflows.pipeline import run_pipeline
from userrep.workflows.run_context import RunContext

AS_OF = date(2024, 3, 15)
DAY = timedelta(days=1)
SPEC = LogSpec(num_users=600, num_items=150, first_day=date(2024, 1, 1), num_days=80, events_per_user_day=1.5, seed=3)
UNDISTURBED, KILLED = "undisturbed", "killed"  # the two streams, each with a root of its own: equal ones


@dataclass(frozen=True)
class KillSize:
    """The number of batches and of kills. ``seed``: for the moments of the kills; None: random."""

    batches: int = 100
    kills: int = 20
    seed: int | None = None

    def of_kills(self, kills: int) -> "KillSize":
        return replace(self, kills=kills)

    def facts(self) -> Line:
        return vars(self) | {"cores": os.cpu_count()}


SIZE, SMALL = KillSize(), KillSize(batches=12, kills=2)


def measure(spark: SparkSession, size: KillSize, root: Path, runs: int) -> Line:
    """Stream without and with kills, and compare both with each other and with the batch."""
    found, taken = Counter[str](), []
    for _ in range(runs):
        drawn = size if size.seed is not None else replace(size, seed=random.SystemRandom().randrange(10**6))
        progress(f"seed {drawn.seed}")
        folder = root / f"run-{uuid4().hex}"
        try:
            right, tables = _prepare(spark, drawn, folder)
            with _Stream(folder, UNDISTURBED) as stream:
                stream.wait()
            with _Stream(folder, KILLED) as stream:
                taken.append(seconds_of(lambda of=(stream, tables, drawn): _with_kills(*of)))
            found.update(compare(right, tables, _batch_by_file(folder)) | _against_batch(spark, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        progress(f"{dict(found)}")
    return {
        "benchmark": "stream_kills",
        "size": drawn.facts() | {"rows": found.pop("rows")},
        "seconds": round(median(taken), 3),
        **found,
        "value": found.total(),
    }


def _batch_by_file(folder: Path) -> list[int]:
    """Return the batch of the killed stream that took each file; without kills, batch k takes file k."""
    offsets = folder / KILLED / "streams" / KILLED / "embeddings" / "offsets"
    batches = sorted(int(file.name) for file in offsets.iterdir() if file.name.isdigit())
    last = [json.loads((offsets / str(k)).read_text(encoding="utf-8").splitlines()[-1])["logOffset"] for k in batches]
    return [next(batch for batch, file in zip(batches, last, strict=True) if file >= k) for k in range(last[-1] + 1)]


def compare(undisturbed: Tables, killed: Tables, batch_by_file: list[int]) -> dict[str, int]:
    """Count rows of the stream that was killed that are missing, too many, or different; ``rows``: there should be.

    ``batch_by_file``: its batch for each batch of the undisturbed one, of which the last row counts.
    """
    keys = ["batch_id", "space_id", "as_of", "user_id"]
    content = F.struct("event_at", "is_new", "embedding")
    batch = F.element_at(F.lit(batch_by_file), F.col("batch_id").cast("int") + 1).cast("long").alias("batch_id")
    right = undisturbed.read(EMBEDDING_UPDATES).groupBy(batch, *keys[1:])
    found = killed.read(EMBEDDING_UPDATES).groupBy(*keys)
    rows = right.agg(F.max_by(content, "batch_id").alias("right")).join(
        found.agg(F.count("*").alias("num_found"), F.any_value(content).alias("found")), on=keys, how="full"
    )
    is_wanted, is_there = F.col("right").isNotNull(), F.col("found").isNotNull()
    counts = rows.agg(
        F.count("right").alias("rows"),
        F.count_if(is_wanted & ~is_there).alias("lost"),
        F.sum(F.coalesce("num_found", F.lit(0)) - (is_wanted & is_there).cast("int")).alias("duplicated"),
        F.count_if(is_wanted & is_there & (F.col("right") != F.col("found"))).alias("unequal"),
    ).first()
    assert counts is not None
    return {name: count or 0 for name, count in counts.asDict().items()}


def _against_batch(spark: SparkSession, folder: Path) -> dict[str, int]:
    """Publish the day's snapshot, and count users whose last streamed vector is not bit-identical to it."""
    config = load_config(folder / f"{KILLED}.yaml")
    daily(RunContext(config, spark, AS_OF + DAY), on_time=True)
    tables = open_tables(config, spark)
    found = verify_updates(tables, find_space(tables, None), AS_OF + DAY)
    return {"unequal_to_batch": found.different + found.not_streamed + found.not_in_snapshot}


def _prepare(spark: SparkSession, size: KillSize, folder: Path) -> list[Tables]:
    """Generate a log, run the pipeline on it, and let the events of the open days lie in a file for each batch.

    Returns the tables of the undisturbed stream and those of the one to be killed.
    """
    folder.mkdir(parents=True)
    generate_log(spark, SPEC, str(folder / "log"))
    for name in (UNDISTURBED, KILLED):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(_settings(folder, name)), encoding="utf-8")
    run_pipeline(RunContext(load_config(folder / f"{KILLED}.yaml"), spark, AS_OF))
    at = F.col("event_at")
    open_days = (at >= F.lit(AS_OF - 2 * DAY)) & (at < F.lit(AS_OF + DAY))
    rows = spark.read.parquet(str(folder / "log" / "events")).where(open_days).toArrow()
    order = [*range(rows.num_rows), *range(0, rows.num_rows, 7)]
    random.Random(size.seed).shuffle(order)
    (folder / "arriving").mkdir()
    for k in range(size.batches):
        file = folder / "arriving" / f"{k:04d}.parquet"
        pq.write_table(rows.take(pa.array(order[k :: size.batches])), file)
        os.utime(file, (k, k))  # they are taken in the order of their times
    shutil.copytree(folder / KILLED, folder / UNDISTURBED)
    return [open_tables(load_config(folder / f"{name}.yaml"), spark) for name in (UNDISTURBED, KILLED)]


def _settings(folder: Path, query_id: str) -> dict[str, Any]:
    log = folder / "log"
    event = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at"}
    return {
        "root": str(folder / query_id),
        "events": {"path": str(log / "events"), "columns": event | {"event_id": "event_id", "weight": "weight"}},
        "items": {"path": str(log / "items"), "columns": {"item_id": "item_id", "text": "title"}},
        "users": {
            "path": str(log / "users"),
            "columns": {"user_id": "user_id", "registered_at": "registered_at"},
            "attributes": ["country"],
        },
        "windows_days": [7, 28],
        "item_vectors": {"behaviour": {"kind": "als", "dim": 16, "iterations": 4}},
        "model": {"latent_dim": 48},
        "training": {
            "as_ofs": {"until": "2024-02-25", "every_days": 7}, "future_days": [7], "num_shards": 2, "batch_size": 64,
            "max_epochs": 5,
        },
        "snapshots": {"history_dates": 4},
        "tracking": {"mlflow": False},
        "quality": {"self_check": False},
        "stream": {"query_id": query_id, "events": {"path": str(folder / "arriving")}, "max_files_per_batch": 1},
        "spark": {"conf": {"spark.driver.memory": "2g"}},
    }  # fmt: skip


def _with_kills(stream: "_Stream", tables: Tables, size: KillSize) -> None:
    """Kill a stream at random moments, restart it each time, and let it finish."""
    drawn = random.Random(size.seed)
    numbers = sorted(drawn.sample(range(size.batches * 9 // 10), size.kills))
    for k, number in enumerate(numbers):
        while _last_batch(tables) < number:
            stream.check()
            time.sleep(0.05)
        time.sleep(drawn.uniform(0, 3))
        stream.check()
        progress(f"kill {k + 1} of {size.kills}: batch {_last_batch(tables)} is there")
        stream.kill(whole=k % 2 == 1)
        stream.start()
    stream.wait()


def _last_batch(tables: Tables) -> int:
    """Return the last committed batch; -1 if there is none."""
    last = tables.last_transaction(EMBEDDING_UPDATES, KILLED)
    return -1 if last is None else last


class _Stream:
    """``userrep stream --until-empty`` as processes that can be killed; none is left on exit."""

    def __init__(self, folder: Path, name: str) -> None:
        self._config, self._log = folder / f"{name}.yaml", folder / f"{name}.log"
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill(whole=True)

    def start(self) -> None:
        command = [sys.executable, "-m", "userrep.cli", "stream", "--config", str(self._config), "--until-empty"]
        with self._log.open("ab") as output:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def kill(self, *, whole: bool) -> None:
        """Kill the process, or its ``whole`` session including Spark's JVM and workers."""
        (os.killpg if whole else os.kill)(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def check(self) -> None:
        """Fail if the stream has ended without a kill."""
        if self._process.poll() is not None:
            raise AssertionError(f"the stream ended with {self._process.returncode}: {self._said()}")

    def wait(self) -> None:
        """Wait until it ends. Raises AssertionError if it fails."""
        if self._process.wait():
            raise AssertionError(f"the stream ended with {self._process.returncode}: {self._said()}")

    def _said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:]


def main() -> None:
    asked = ask("stream_kills", SIZE, small=SMALL, runs=1, unit="kills", number=SIZE.kills, resized=SIZE.of_kills)
    spark = get_session(master=f"local[{os.cpu_count()}]", conf={"spark.driver.memory": "2g"}, app_name="stream_kills")
    try:
        print_line("stream_kills", lambda: measure(spark, asked.size, asked.root, asked.runs))
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
