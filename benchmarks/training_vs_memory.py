"""How much slower is a training that reads rows from files, compared with rows in memory?

200k rows of 546 inputs in 16 shards, the preset `autoencoder`, batches of 512, one rank, one torch thread. Both sides
run ``train`` for an epoch. On the peer's side, slices of two arrays with the epoch's rows replace the reader;
everything else is the same, and the losses are bit-identical. The machine has a core for the thread that reads ahead.

    make bench-training-vs-memory
    python -m benchmarks.training_vs_memory --small
"""

import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.report import Line, alternating, ratio_line
from benchmarks.training_data import BATCH, SIZE, RowSize, run, training_task
from userrep.training import loop
from userrep.training.data.row_stream import Batch
from userrep.training.launch.comm import LocalComm
from userrep.training.loop import train


def measure(size: RowSize, root: Path, runs: int) -> Line:
    """Train with both alternately."""
    in_memory = _in_memory(size)
    losses: list[float] = []

    def epoch() -> None:
        with tempfile.TemporaryDirectory() as folder:
            task = training_task(size, root, folder)
            losses.append(train(task, LocalComm(), lambda _: None).metrics["train_loss"])

    def memory_epoch() -> None:
        with patch.object(loop, "epoch_batches", in_memory):
            epoch()

    with patch.object(loop, "epoch_batches", in_memory):
        epoch()  # the arrays are filled in the first, which does not count
    taken = alternating(epoch, memory_epoch, check=lambda: _check_same(losses), runs=runs)
    return ratio_line("training_vs_memory", size.facts(), taken, peer="rows in memory")


def _in_memory(size: RowSize) -> Callable[..., Generator[Batch]]:
    """Return a replacement of ``epoch_batches`` that reads from two arrays, which it fills on first use."""
    rows = Batch.empty(size.rows, size.layout.width)
    read = loop.epoch_batches
    filled = False

    def batches(files: list[list[str]], **wanted: Any) -> Generator[Batch]:
        nonlocal filled
        if not filled:
            for k, batch in enumerate(read(files, **wanted)):
                for whole, part in zip(rows.rows(k * BATCH, (k + 1) * BATCH), batch, strict=True):
                    whole[:] = part
            filled = True
        for start in range(0, size.rows, BATCH):
            yield rows.rows(start, start + BATCH)

    return batches


def _check_same(losses: list[float]) -> None:
    if len(set(losses)) != 1 or not np.isfinite(losses[0]):
        raise AssertionError(f"the same rows give the losses {losses}")


if __name__ == "__main__":
    run("training_vs_memory", measure, SIZE, runs=3)
