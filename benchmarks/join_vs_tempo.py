"""How long does a point-in-time join take, against dbl-tempo's as-of join?

200k labels on 10 weekly snapshots of 200k users, 120 numbers each; Parquet to Parquet, the same session. Tempo unites
labels and vectors, sorts them by user and time, and takes the last vector by a window. It is installed beside our
packages, into a folder of its own: where that fails, the line says how.

    make bench-join-vs-tempo
    python -m benchmarks.join_vs_tempo --small
"""

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.join_data import JoinSite, JoinSize, against, run, told
from benchmarks.peers import tried
from benchmarks.report import Line, Skipped

PEER = "dbl-tempo==0.1.30"
SIZE = JoinSize(labels=200_000)


def measure(spark: SparkSession, size: JoinSize, root: Path, runs: int) -> Line:
    """Join and write by both."""
    tempo = _tempo(root / "peers" / "tempo")
    return against("join_vs_tempo", PEER, partial(tempo_join, tempo), spark, size, root=root, runs=runs)


def tempo_join(tempo: Any, site: JoinSite, out: Path) -> None:
    """Join and write."""
    vectors = site.known_vectors.select("user_id", F.col("available_at").alias("label_at"), "as_of", "embedding")
    right = tempo.TSDF(vectors, "label_at", ["user_id"])  # it wants one name for both sides' times
    left = tempo.TSDF(site.tables.spark.read.parquet(str(site.labels)), "label_at", ["user_id"])
    rows = left.asofJoin(right, right_prefix="v").df
    rows = rows.withColumnsRenamed({"v_as_of": "as_of", "v_embedding": "embedding"})
    told(rows).write.mode("overwrite").parquet(str(out))


def _tempo(folder: Path) -> Any:
    """Import Tempo; IPython is what it wants that we don't have."""
    if not (folder / "done").exists():
        install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", str(folder)]
        tried(PEER, [*install, "--no-deps", PEER])
        tried(PEER, [*install, "ipython<10"])
        (folder / "done").touch()
    sys.path.append(str(folder))
    try:
        return importlib.import_module("tempo")
    except ImportError as error:
        raise Skipped(f"{PEER} does not import ({error})") from None
    finally:
        sys.path.remove(str(folder))


if __name__ == "__main__":
    run("join_vs_tempo", measure, SIZE, runs=1)
