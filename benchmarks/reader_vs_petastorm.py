"""How fast do training rows come from Parquet in shuffled batches, against Petastorm?

Petastorm 0.12.1, its last release, is installed beside our packages into a folder of its own and imported, in each run:
where that fails, which it does with today's pyarrow, the line says how, and there is nothing to compare.

    make bench-reader-vs-petastorm
    python -m benchmarks.reader_vs_petastorm --small
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.peers import tried
from benchmarks.report import Line, Skipped
from benchmarks.training_data import SIZE, RowSize, run

PACKAGES = ("petastorm==0.12.1", "diskcache", "dill", "future", "pyzmq", "six")  # what it wants that we don't have


def measure(size: RowSize, root: Path, runs: int) -> Line:  # noqa: ARG001  # as all are called
    """Try to have Petastorm."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", folder]
        tried(PACKAGES[0], [*install, *PACKAGES])
        tried(
            PACKAGES[0], [sys.executable, "-c", "from petastorm import make_batch_reader"], "import", PYTHONPATH=folder
        )
    raise Skipped(f"{PACKAGES[0]} can be imported again, but nothing here reads {size.rows} rows with it yet")


if __name__ == "__main__":
    run("reader_vs_petastorm", measure, SIZE, runs=1)
