"""What do two ranks gain over one, at the same global batch?

200k rows of 546 inputs, the preset `autoencoder`, one torch thread per rank. Both sides are Horovod on Spark, with one
rank and with two. Each rank is pinned to one core with all its threads, including the reader's and Horovod's. The value
is the rows per second of two ranks divided by twice those of one, without start-up, at the default batch size of 512.
``value_4096`` is the same at the batch size of conf/production.yaml: a step of two ranks exchanges 3 MB over loopback
for any batch size, so larger batches gain more. Losses are compared before speeds.

    make bench-training-two-ranks
    python -m benchmarks.training_two_ranks --small
"""

import os
import statistics
import tempfile
from pathlib import Path
from unittest.mock import patch

from pyspark.sql import SparkSession

from benchmarks.report import Line, progress, span
from benchmarks.training_data import BATCH, RowSize, run, training_task
from userrep.spark.session import get_session
from userrep.training.launch import launchers
from userrep.training.launch.backends import run_training
from userrep.training.launch.rank_monitor import Address
from userrep.training.launch.ranks import train_rank
from userrep.training.task import TrainingTask

SIZE = RowSize(rows=200_704)
LARGE_BATCH = 4096
Speeds = dict[int, list[float]]  # rows per second of each run, by the number of ranks


def measure(size: RowSize, root: Path, runs: int) -> Line:
    """Train with one and with two ranks alternately, at both batch sizes."""
    spark = get_session("local[2]", {"spark.driver.memory": "1g"})
    small, large = (_speeds(size, root, batch, runs, spark) for batch in (BATCH, LARGE_BATCH))
    one, two = (statistics.median(small[ranks]) for ranks in (1, 2))
    gains = _gains(small)
    return {
        "benchmark": "training_two_ranks",
        "size": size.facts(),
        "seconds": round(size.rows / two, 3),
        "rows_per_second": round(two),
        "peer": "twice one rank",
        "peer_rows_per_second": round(2 * one),
        "value": round(statistics.median(gains), 3),
        "runs": runs,
        "range": {"value": span(gains)},
        f"value_{LARGE_BATCH}": round(statistics.median(_gains(large)), 3),
    }


def _speeds(size: RowSize, root: Path, batch: int, runs: int, spark: SparkSession) -> Speeds:
    speeds: Speeds = {1: [], 2: []}
    for k in range(runs):
        losses = {ranks: _train(size, root, batch, speeds=speeds, ranks=ranks, spark=spark) for ranks in speeds}
        if abs(losses[1] - losses[2]) > 1e-4 * abs(losses[1]):
            raise AssertionError(f"one rank comes to a loss of {losses[1]}, two to {losses[2]}")
        told = f"one rank {speeds[1][-1]:,.0f} rows/s, two {speeds[2][-1]:,.0f}"
        progress(f"batch {batch}, run {k + 1} of {runs}: {told}")
    return speeds


def _gains(speeds: Speeds) -> list[float]:
    return [two / (2 * one) for one, two in zip(speeds[1], speeds[2], strict=True)]


def _train(size: RowSize, root: Path, batch: int, *, speeds: Speeds, ranks: int, spark: SparkSession) -> float:
    """Train for an epoch; record the rows per second, return the loss."""
    with tempfile.TemporaryDirectory() as folder, patch.object(launchers, "train_rank", held_rank):
        task = training_task(size, root, folder, backend="horovod", num_workers=ranks, batch_size=min(batch, size.rows))
        metrics = run_training(task, spark=spark).metrics
    speeds[ranks].append(metrics["rows_per_second"])
    return metrics["train_loss"]


def held_rank(task: TrainingTask, address: Address, resume: str | None) -> None:
    """Run a rank on one core."""
    os.sched_setaffinity(0, {int(os.environ["HOROVOD_RANK"]) % (os.cpu_count() or 1)})
    train_rank(task, address, resume)


if __name__ == "__main__":
    run("training_two_ranks", measure, SIZE, runs=3)
