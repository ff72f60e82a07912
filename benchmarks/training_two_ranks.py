"""What do two ranks gain over one, at the same global batch?

200k rows of 546 inputs, the default model, batches of 512. One rank of one torch thread in this process, and two ranks
of one thread each by Horovod on Spark: rows a second of both ranks over twice those of the one, start-up left out. The
losses of both agree before speeds are compared. On two cores the two ranks also share them with the threads that read
ahead, and with Horovod's.

    make bench-training-two-ranks
    python -m benchmarks.training_two_ranks --small
"""

import statistics
import tempfile
from pathlib import Path

from pyspark.sql import SparkSession

from benchmarks.report import Line, progress
from benchmarks.training_data import RowSize, run, training_task
from userrep.session import get_session
from userrep.training.backends import run_training

SIZE = RowSize(rows=200_192)


def measure(size: RowSize, root: Path, runs: int) -> Line:
    """Train by one and by two in turn."""
    spark = get_session("local[2]", {"spark.driver.memory": "1g"})
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for k in range(runs):
        losses = {ranks: _train(size, root, ranks, speeds[ranks], spark) for ranks in speeds}
        if abs(losses[1] - losses[2]) > 1e-4 * abs(losses[1]):
            raise AssertionError(f"one rank comes to a loss of {losses[1]}, two to {losses[2]}")
        progress(f"run {k + 1} of {runs}: one rank {speeds[1][-1]:,.0f} rows/s, two {speeds[2][-1]:,.0f}")
    one, two = (statistics.median(speeds[ranks]) for ranks in (1, 2))
    return {
        "benchmark": "training_two_ranks",
        "size": size.told(),
        "rows_per_second": round(two),
        "peer": "twice one rank",
        "peer_rows_per_second": round(2 * one),
        "value": round(two / (2 * one), 3),
    }


def _train(size: RowSize, root: Path, ranks: int, speeds: list[float], spark: SparkSession) -> float:
    """Train for an epoch; note the rows a second, return the loss."""
    backend = "horovod" if ranks > 1 else "local"
    with tempfile.TemporaryDirectory() as folder:
        task = training_task(size, root, folder, backend=backend, num_workers=ranks)
        metrics = run_training(task, spark=spark, report=lambda _: None).metrics
    speeds.append(metrics["rows_per_second"])
    return metrics["train_loss"]


if __name__ == "__main__":
    run("training_two_ranks", measure, SIZE, runs=3)
