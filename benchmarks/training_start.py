"""How long does it take from ``horovod.spark.run`` to the end of the first step, and which parts does that have?

Two ranks on two slots of an existing session, 20k rows of 546 inputs, the preset `autoencoder`, one step of 512. The
peer is a naive implementation that follows Horovod's examples with their defaults: a rank has ``torch.optim.AdamW`` in
a ``DistributedOptimizer``, broadcasts weights, and reads its shards in full before the first step. The parts are those
of the slower rank: until its process exists (``spark``), until the function is called (``process``), until its imports
are done (``libraries``), until the ranks are connected (``join``), until the step is done (``step``).

    make bench-training-start
    python -m benchmarks.training_start --small
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
from pyspark.sql import SparkSession

from benchmarks.report import Line, progress, span
from benchmarks.training_data import RowSize, run, training_task
from userrep.spark.session import get_session
from userrep.training.launch import launchers
from userrep.training.launch.backends import run_training
from userrep.training.launch.rank_monitor import Address
from userrep.training.launch.ranks import train_rank
from userrep.training.task import TrainingTask

SIZE = RowSize(rows=20_480)
PARTS = ("spark", "process", "libraries", "join", "step")
Marks = list[float]  # the ends of the parts, in seconds since the epoch


def measure(size: RowSize, root: Path, runs: int) -> Line:
    """Start both alternately."""
    spark = get_session("local[2]", {"spark.driver.memory": "1g"})
    spark.range(2).count()  # the session is warm
    taken: dict[Callable[..., list[Marks]], list[list[float]]] = {ours: [], naive: []}
    for k in range(runs):
        for start, seen in taken.items():
            with tempfile.TemporaryDirectory() as folder:
                task = training_task(size, root, folder, backend="horovod", num_workers=2)
                began = time.time()
                marks = start(replace(task, steps=1), spark)
            slower = max(marks, key=lambda ends: ends[-1])
            seen.append([end - before for before, end in zip([began, *slower], slower, strict=False)])
        progress(f"run {k + 1} of {runs}: ours {sum(taken[ours][-1]):.1f} s, naive {sum(taken[naive][-1]):.1f} s")
    seconds, peer_seconds = (statistics.median(map(sum, seen)) for seen in taken.values())
    return {
        "benchmark": "training_start",
        "size": size.facts(),
        "seconds": round(seconds, 3),
        "parts": _parts(taken[ours]),
        "peer": "naive first version",
        "peer_seconds": round(peer_seconds, 3),
        "peer_parts": _parts(taken[naive]),
        "ratio": round(seconds / peer_seconds, 3),
        "runs": runs,
        "range": {"ratio": span([sum(mine) / sum(its) for mine, its in zip(*taken.values(), strict=True)])},
    }


def _parts(seen: list[list[float]]) -> dict[str, float]:
    return {
        name: round(statistics.median(column), 2) for name, column in zip(PARTS, zip(*seen, strict=True), strict=True)
    }


def ours(task: TrainingTask, spark: SparkSession) -> list[Marks]:
    """Train for one step as the pipeline does. Ranks write their times next to the checkpoints."""
    launchers.train_rank = marked_rank
    try:
        run_training(task, spark=spark)
    finally:
        launchers.train_rank = train_rank
    files = sorted(Path(task.folder).glob("marks-*"))
    return [[float(mark) for mark in file.read_text().split()] for file in files]


def marked_rank(task: TrainingTask, address: Address, resume: str | None) -> None:
    """Run one of our ranks, recording the time at the end of each part."""
    marks = [_born(), time.time()]
    from userrep.training import loop
    from userrep.training.launch import comm

    marks.append(time.time())
    train = loop.train

    class Joined(comm.HorovodComm):
        def __init__(self) -> None:
            super().__init__()
            marks.append(time.time())

    def timed(task: TrainingTask, group: comm.Comm, *args: object, **more: object) -> object:
        result = train(task, group, *args, **more)
        marks.append(time.time())
        Path(task.folder, f"marks-{group.rank}").write_text(" ".join(map(str, marks)))
        return result

    comm.HorovodComm, loop.train = Joined, timed
    train_rank(task, address, resume)


def naive(task: TrainingTask, spark: SparkSession) -> list[Marks]:
    """Run one step as in Horovod's examples."""
    del spark  # Horovod finds it
    import horovod.spark

    with open(os.devnull, "w") as nowhere:
        marks: list[Marks] = horovod.spark.run(
            naive_rank, args=(task,), num_proc=2, use_gloo=True, stdout=nowhere, stderr=nowhere
        )
    return marks


def naive_rank(task: TrainingTask) -> Marks:
    """Run a rank of the naive implementation."""
    marks = [_born(), time.time()]
    import horovod.torch as hvd
    import pandas as pd
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from userrep.model.autoencoder import Autoencoder

    marks.append(time.time())
    hvd.init()
    marks.append(time.time())
    shards = task.files["train"][hvd.rank() :: hvd.size()]
    rows = pd.concat(pd.read_parquet(path) for paths in shards for path in paths)
    layout = task.layout
    x_NF = torch.frombuffer(bytearray(b"".join(rows["x"])), dtype=torch.float32).reshape(-1, layout.width)
    model = Autoencoder(layout, task.model, task.targets)
    optimizer = hvd.DistributedOptimizer(torch.optim.AdamW(model.parameters()), model.named_parameters())
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    (x_BF,) = next(iter(DataLoader(TensorDataset(x_NF), batch_size=256, shuffle=True)))
    (model(x_BF).reconstruction_BF - x_BF).square().mean().backward()
    optimizer.step()
    marks.append(time.time())
    return marks


def _born() -> float:
    return psutil.Process().create_time()


if __name__ == "__main__":
    run("training_start", measure, SIZE, runs=3)
