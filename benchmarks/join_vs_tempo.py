"""How long does a point-in-time join take, compared with dbl-tempo's as-of join?

200k labels on 10 weekly snapshots of 200k users, 120 numbers each; Parquet to Parquet, in the same session. Tempo
unions labels with the users and times of the vectors, sorts them by user and time, and takes the last time with a
window; the vectors are joined afterwards. Tempo is installed in a folder of its own in the user's cache. If that fails,
the line gives the reason.

    make bench-join-vs-tempo
    python -m benchmarks.join_vs_tempo --small
"""

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from benchmarks.join_data import JoinSite, JoinSize, against, comparable, run
from benchmarks.peers import UV, installed
from benchmarks.report import Line, Skipped
from userrep.store.schemas import USER_EMBEDDINGS

PEER = "dbl-tempo==0.1.30"
SIZE = JoinSize(labels=200_000)


def measure(spark: SparkSession, size: JoinSize, root: Path, runs: int) -> Line:
    """Join and write with both."""
    return against("join_vs_tempo", PEER, partial(tempo_join, _tempo()), spark, size, root=root, runs=runs)


def tempo_join(tempo: Any, site: JoinSite, out: Path) -> None:
    """Join and write. Only keys pass through Tempo's sort; ``sql_join_opt`` would drop labels without a vector."""
    keys = site.tables.read(USER_EMBEDDINGS).select("user_id", "as_of", "revision").join(
        site.times, on=["as_of", "revision"], how="inner"
    )  # fmt: skip
    right = tempo.TSDF(keys.withColumnRenamed("available_at", "label_at"), "label_at", ["user_id"])  # one name of times
    left = tempo.TSDF(site.read_labels(), "label_at", ["user_id"])
    found = left.asofJoin(right, right_prefix="v").df.withColumnsRenamed({"v_as_of": "as_of", "v_revision": "revision"})
    comparable(site.with_vectors(found)).write.mode("overwrite").parquet(str(out))


def _tempo() -> Any:
    """Install and import Tempo. IPython is its only dependency that our packages lack."""
    install = [*UV, "pip", "install", "--quiet", "--target"]
    folder = installed(
        PEER, lambda folder: [[*install, str(folder), "--no-deps", PEER], [*install, str(folder), "ipython<10"]]
    )
    sys.path.append(str(folder))
    try:
        return importlib.import_module("tempo")
    except ImportError as error:
        raise Skipped(f"{PEER} does not import ({error})") from None
    finally:
        sys.path.remove(str(folder))


if __name__ == "__main__":
    run("join_vs_tempo", measure, SIZE, runs=3)
