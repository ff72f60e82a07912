"""Labels and snapshots for join benchmarks, drawn once and kept, and the code that runs these benchmarks."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import userrep
from benchmarks.answers import check_same, content_hash
from benchmarks.report import Line, alternating, ask, in_warm_session, ratio_line
from userrep.joins.join import join_embeddings
from userrep.spaces.registry import add_candidate
from userrep.spaces.snapshots import PUBLISHED, Snapshot, record_snapshots
from userrep.store.arrow import listed
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import TableWriter
from userrep.store.schemas import SNAPSHOTS, USER_EMBEDDINGS
from userrep.store.tables import Tables
from userrep.store.xxhash import bucket_of

SPACE = "s001-bench"
FIRST = date(2024, 1, 1)
EVERY, DELAY = timedelta(days=7), timedelta(hours=6)
_ROWS = 100_000  # of a file of labels


@dataclass(frozen=True)
class JoinSize:
    """The numbers of labels, snapshots and users; vectors have 120 numbers."""

    labels: int
    users: int = 200_000
    snapshots: int = 10
    dim: int = 120

    @property
    def name(self) -> str:
        return f"{self.labels}-labels-{self.users}-users-{self.snapshots}-snapshots-{self.dim}"

    def of_labels(self, labels: int) -> "JoinSize":
        return replace(self, labels=labels)

    def facts(self) -> Line:
        return {**vars(self), "cores": os.cpu_count()}

    def available_at(self, k: int) -> datetime:
        return datetime.combine(FIRST + k * EVERY, time()) + DELAY


SMALL = JoinSize(labels=20_000, users=2_000, snapshots=4)
Measure = Callable[[SparkSession, JoinSize, Path, int], Line]


@dataclass(frozen=True)
class JoinSite:
    """Tables with one space's snapshots, and a folder of labels: label_id, user_id, label_at."""

    tables: Tables
    labels: Path
    size: JoinSize

    @property
    def vectors(self) -> str:
        """The files of the snapshots, in folders space_id=/as_of=/revision=."""
        return f"{self.tables.uri(USER_EMBEDDINGS)}/*/*/*/*.parquet"

    @property
    def times(self) -> DataFrame:
        """The time at which each snapshot became available, broadcast: as_of, revision, available_at."""
        return F.broadcast(self.tables.read(SNAPSHOTS).select("as_of", "revision", "available_at"))

    def with_vectors(self, rows: DataFrame) -> DataFrame:
        """Add the vectors of the snapshots that a peer has found for its labels: one equi-join, as an expert would.

        Vectors of 120 numbers therefore do not pass through the sort or the window that finds the snapshots.
        """
        vectors = self.tables.read(USER_EMBEDDINGS).select("user_id", "as_of", "revision", "embedding")
        return rows.join(vectors, on=["user_id", "as_of", "revision"], how="left")

    def read_labels(self) -> DataFrame:
        """Return the labels."""
        return self.tables.spark.read.parquet(str(self.labels))

    def to_files(self, labels: DataFrame | pd.DataFrame, out: Path) -> None:
        """Join labels into files, by tasks or, for pandas, in this process."""
        assert isinstance(self.tables, FileTables)
        userrep.open(self.tables.location).write_training_set("bench", labels, out, space=SPACE)

    def ours(self, out: Path) -> None:
        """Join, and write by Spark."""
        rows = join_embeddings(self.read_labels(), tables=self.tables, space=SPACE)
        comparable(rows).write.mode("overwrite").parquet(str(out))


def join_site(spark: SparkSession, size: JoinSize, root: Path) -> JoinSite:
    """Draw the missing data. Users with odd labels may be new; some labels are before the first snapshot."""
    snapshots = replace(size, labels=0).name
    place, labels = root / f"join-{snapshots}", root / f"join-labels-{size.name}"
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        _draw_snapshots(FileTables(spark, str(place)), size)
        (place / "done").touch()
    if not labels.exists():
        _draw_labels(labels, size)
    return JoinSite(FileTables(spark, str(place)), labels, size)


def comparable(rows: DataFrame) -> DataFrame:
    """Return the columns that are compared, one row per label."""
    return rows.select("label_id", "user_id", "label_at", "as_of", "embedding")


def check_joined(spark: SparkSession, ours: Path, theirs: Path) -> None:
    """Check that a peer's labels, dates and vectors are bit-identical to ours."""
    as_of = F.when(F.col("embedding").isNotNull(), F.to_date("as_of"))  # ours has it for labels without a vector, too
    same = ["label_id", as_of.alias("as_of"), F.col("embedding").cast("array<float>")]
    check_same(*(content_hash(spark.read.parquet(str(folder)).select(*same)) for folder in (ours, theirs)))


def against(
    benchmark: str, peer: str, join: Callable[[JoinSite, Path], None], spark: SparkSession, size: JoinSize, *,
    root: Path, runs: int, ours_by: Callable[[JoinSite, Path], None] = JoinSite.ours,
) -> Line:  # fmt: skip
    """Compare our join with a peer's, which writes to a folder; both answers are compared before times.

    ``ours_by``: our join, by default one that Spark writes.
    """
    site, folder = join_site(spark, size, root), run_folder(root)
    ours, theirs = folder / "ours", folder / "theirs"
    try:
        taken = alternating(
            lambda: ours_by(site, ours),
            lambda: join(site, theirs),
            check=lambda: check_joined(spark, ours, theirs),
            runs=runs,
        )
    finally:
        shutil.rmtree(folder)
    return ratio_line(benchmark, size.facts(), taken, peer=peer)


def run(benchmark: str, measure: Measure, size: JoinSize, *, runs: int) -> None:
    """Run one benchmark with the arguments of the command line, in its own warm session, and print its line."""
    asked = ask(benchmark, size, small=SMALL, runs=runs, unit="labels", number=size.labels, resized=size.of_labels)
    in_warm_session(benchmark, measure, asked, small=SMALL)


def run_folder(root: Path) -> Path:
    """Create a folder for the output of one run; the caller deletes it."""
    folder = root / f"run-{uuid4().hex}"
    folder.mkdir()
    return folder


def _draw_snapshots(tables: Tables, size: JoinSize) -> None:
    add_candidate(tables, space_id=SPACE, lineage_id="bench", trained_until=FIRST, content_hash="none")
    made = []
    users = pa.array([f"u{k:07d}" for k in range(size.users)])
    buckets = bucket_of(users)
    order = np.argsort(buckets, kind="stable")  # as the snapshot job writes them
    for k in range(size.snapshots):
        as_of, at = FIRST + k * EVERY, size.available_at(k)
        vectors = np.random.default_rng(k).standard_normal((size.users, size.dim), np.float32)
        writer, since = TableWriter(tables.target(USER_EMBEDDINGS)), tables.version(USER_EMBEDDINGS)
        rows = pa.table({"user_bucket": buckets, "user_id": users, "embedding": listed(vectors)})
        writer.write(rows.take(order), {"space_id": SPACE, "as_of": as_of, "revision": 1})
        tables.commit(USER_EMBEDDINGS, writer.close(), replacing=lambda _: False, since=since)
        made.append(Snapshot(f"{SPACE}-{as_of:%Y%m%d}-r1", SPACE, as_of, 1, PUBLISHED, "x", size.users, at, at, ""))
    record_snapshots(tables, made)


def _draw_labels(folder: Path, size: JoinSize) -> None:
    partial = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    start = datetime.combine(FIRST - timedelta(days=3), time())
    span = int((size.snapshots * EVERY + timedelta(days=3)).total_seconds() * 1e6)
    for first in range(0, size.labels, _ROWS):
        rng = np.random.default_rng((7, first))
        count = min(_ROWS, size.labels - first)
        users = rng.integers(0, int(size.users * 1.02), count)
        at = np.datetime64(start, "us") + rng.integers(0, span, count).astype("timedelta64[us]")
        table = pa.table(
            {
                "label_id": np.arange(first, first + count),
                "user_id": [f"u{k:07d}" for k in users],
                "label_at": pa.array(at, pa.timestamp("us", "UTC")),
            }
        )
        pq.write_table(table, partial / f"part-{first:09d}.parquet")
    partial.rename(folder)
