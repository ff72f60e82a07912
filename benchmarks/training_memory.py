"""Does the memory of a training rank stay the same with ten times as many rows?

10M rows of 32 inputs in 16 shards, compared with 1M. A rank is a process of its own that owns all shards. It takes a
hundred steps of the training loop, then reads an epoch of all rows, with prefetching. The ratio is that of the peaks of
resident memory. ``libraries_mib`` is the part that is in use once the libraries are loaded.

    make bench-training-memory
    python -m benchmarks.training_memory --small
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.report import Line, progress, span
from benchmarks.training_data import BATCH, RowSize, our_epoch, run, taken, training_files, training_task

SIZE = RowSize(rows=10_000_384, narrow=True)
SMALL = RowSize(rows=81_920, narrow=True)
TIMES = 10
STEPS = 100


def measure(size: RowSize, root: Path, runs: int) -> Line:
    """Run a rank on all rows and one on a tenth of them, one after the other."""
    smaller = size.of_rows(size.rows // TIMES)
    for each in (smaller, size):
        training_files(each, root)
    peaks: dict[RowSize, list[float]] = {smaller: [], size: []}
    for _ in range(runs):
        for each, mib in peaks.items():
            start = time.perf_counter()
            result = _rank(each, root)
            seconds = time.perf_counter() - start
            mib.append(result["mib"])
            progress(f"{each.rows:,} rows: {mib[-1]:.0f} MiB")
    mib, smaller_mib = max(peaks[size]), min(peaks[smaller])
    return {
        "benchmark": "training_memory",
        "size": size.facts(),
        "seconds": round(seconds, 3),
        "mib": round(mib),
        "libraries_mib": round(result["libraries_mib"]),
        "peer": f"{smaller.rows} rows",
        "peer_mib": round(smaller_mib),
        "value": round(mib / smaller_mib, 3),
        "runs": runs,
        "range": {"value": span([more / less for more, less in zip(peaks[size], peaks[smaller], strict=True)])},
    }


def _rank(size: RowSize, root: Path) -> dict[str, Any]:
    """Run a rank in a process of its own and return its result."""
    code = f"from benchmarks.training_memory import *; print(json.dumps(rank({size!r}, Path({str(root)!r}))))"
    ran = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[1]
    )
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


def rank(size: RowSize, root: Path) -> dict[str, Any]:
    """Train for some steps, read all rows, and return the peaks of memory before and after."""
    from userrep.training.launch.comm import LocalComm
    from userrep.training.loop import train

    libraries_mib = _peak_mib()
    files = training_files(size, root)
    with tempfile.TemporaryDirectory() as folder:
        task = training_task(size, root, folder)
        train(replace(task, steps=min(STEPS, size.rows // BATCH)), LocalComm(), lambda _: None)
    rows = taken(our_epoch(files, size))
    if rows != size.rows:
        raise AssertionError(f"{rows} rows were read of {size.rows}")
    return {"mib": _peak_mib(), "libraries_mib": libraries_mib}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    run("training_memory", measure, SIZE, small=SMALL, runs=3)
