"""How long does a point-in-time join take, compared with Feast's historical features?

200k labels on 10 weekly snapshots of 200k users, 120 numbers each; Parquet to Parquet, from pandas in one process, as
one does with labels of this size: ours by ``userrep.open(ROOT).write_training_set``, which needs no JVM. Feast runs on
DuckDB, its fastest local offline store, in a virtual environment of its own in the user's cache. It finds the snapshot
of each label, and DuckDB joins the vectors afterwards. A first join of each is not counted. If Feast cannot be
installed or does not finish, the line gives the reason. ``spark_seconds``: ours by Spark, which larger labels need.

    make bench-join-vs-feast
    python -m benchmarks.join_vs_feast --small
"""

import json
import shutil
import statistics
import sys
from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.join_data import JoinSite, JoinSize, check_joined, join_site, run, run_folder
from benchmarks.peers import UV, installed, tried
from benchmarks.report import Line, progress, ratio_line, seconds_of
from userrep.store.schemas import USER_EMBEDDINGS

PEER = "feast[duckdb]==0.67.0"
SIZE = JoinSize(labels=200_000)

# Run by the peer's Python; its arguments are the file of vectors, the labels, the output and the registry.
_SCRIPT = """
import json, sys, time
from datetime import timedelta
import duckdb
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.data_format import ParquetFormat
from feast.types import String
vectors, labels, out, registry = sys.argv[1:]
source = FileSource(path=vectors, timestamp_field="available_at", file_format=ParquetFormat())
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
schema = [Field(name="as_of", dtype=String)]
view = FeatureView(name="users", entities=[user], ttl=timedelta(0), schema=schema, source=source)
online = {"type": "sqlite", "path": registry + ".online"}
stores = dict(registry=registry, offline_store={"type": "duckdb"}, online_store=online)
settings = dict(project="bench", provider="local", **stores)
store = FeatureStore(config=RepoConfig(**settings, entity_key_serialization_version=3))
store.apply([user, view])
for _ in range(2):
    start = time.perf_counter()
    rows = pd.read_parquet(labels).rename(columns={"label_at": "event_timestamp"})
    found = store.get_historical_features(rows, ["users:as_of"]).to_arrow()
    joined = "SELECT found.*, embedding FROM found LEFT JOIN read_parquet($1) USING (user_id, as_of)"
    duckdb.execute("COPY (" + joined.replace("$1", repr(vectors)) + ") TO " + repr(out) + " (FORMAT parquet)")
    seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds}))
"""


def measure(spark: SparkSession, size: JoinSize, root: Path, runs: int) -> Line:
    """Join and write with both."""
    python = _python()
    site, folder = join_site(spark, size, root), run_folder(root)
    ours, theirs, taken = folder / "ours", folder / "feast", []
    try:
        _as_feast_reads(site, folder / "vectors")
        theirs.mkdir()
        (vectors,) = (folder / "vectors").glob("*.parquet")
        files = [vectors, site.labels, theirs / "part.parquet", folder / "registry.db"]
        site.to_files(pd.read_parquet(site.labels), ours)
        for k in range(runs):
            said = tried(PEER, [python, "-c", _SCRIPT, *map(str, files)], "finish", FEAST_USAGE="False")
            peer = float(json.loads(said.strip().splitlines()[-1])["seconds"])
            taken.append((seconds_of(lambda: site.to_files(pd.read_parquet(site.labels), ours)), peer))
            progress(f"run {k + 1} of {runs}: ours {taken[-1][0]:.1f} s, the peer's {peer:.1f} s")
        check_joined(spark, ours, theirs)
        by_spark = statistics.median(seconds_of(lambda: site.ours(folder / "spark")) for _ in range(runs))
    finally:
        shutil.rmtree(folder)
    return ratio_line("join_vs_feast", size.facts(), taken, peer=PEER, spark_seconds=round(by_spark, 3))


def _as_feast_reads(site: JoinSite, out: Path) -> None:
    """Write the snapshots to one file, with their times as a column."""
    vectors = site.tables.read(USER_EMBEDDINGS).join(site.times, on=["as_of", "revision"], how="inner")
    as_of = F.col("as_of").cast("string").alias("as_of")
    vectors.select("user_id", "available_at", as_of, "embedding").coalesce(1).write.parquet(str(out))


def _python() -> str:
    """Return the interpreter of Feast's environment."""

    def commands(folder: Path) -> list[list[str]]:
        python = str(folder / "bin" / "python")
        return [
            [*UV, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            [*UV, "pip", "install", "--quiet", "--python", python, PEER],
            [python, "-c", "import feast, duckdb, ibis"],
        ]

    return str(installed(PEER, commands) / "bin" / "python")


if __name__ == "__main__":
    run("join_vs_feast", measure, SIZE, runs=3)
