"""Training rows for benchmarks: drawn once from a seed, kept below a root folder, in the layout of the table.

Inputs are normally distributed, flags are 1. Both sides read the same rows, and their rows are compared before their
times.
"""

import os
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.report import Line, alternating, ask, print_line, progress, ratio_line
from userrep import config
from userrep.features.layout import UNKNOWN, InputLayout
from userrep.features.spec import FeatureSpec
from userrep.features.targets import TargetLayout
from userrep.store.arrow import listed, packed
from userrep.store.parquet_writer import TableWriter, Target
from userrep.store.schemas import TRAINING_ROWS
from userrep.training.data.shards import epoch_batches, read_steps_per_epoch, shard_files
from userrep.training.task import TrainingTask

BATCH = 512
NUM_SHARDS = 16
SHUFFLED_ROWS = 20_000  # that peers shuffle among; ours has as many in its buffers at 546 inputs
_CHUNK = 2**24  # numbers drawn at a time

Rows = tuple[NDArray[np.int64], NDArray[np.float32]]  # row_key_B, x_BF


@dataclass(frozen=True)
class RowSize:
    """The number of training rows (a multiple of the batch) and of their inputs: 546, or 32."""

    rows: int
    narrow: bool = False
    seed: int = 7

    @property
    def name(self) -> str:
        return f"rows-{self.rows}-{self.layout.width}-{NUM_SHARDS}-seed{self.seed}"

    @property
    def layout(self) -> InputLayout:
        """Return the layout of two modalities of 80 and a country, or a small one."""
        spec = FeatureSpec(
            windows_days=[7] if self.narrow else [7, 30, 180],
            modalities={"behaviour": 13} if self.narrow else {"behaviour": 80, "content": 80},
            onboarding=False,
            registered_at=not self.narrow,
            attributes=[] if self.narrow else ["country"],
            context=[],
        )
        return InputLayout.of(spec, {"attribute_country": [*(f"c{k:02d}" for k in range(33)), UNKNOWN]})

    def of_rows(self, rows: int) -> "RowSize":
        return replace(self, rows=max(1, rows // BATCH) * BATCH)

    def facts(self) -> dict[str, Any]:
        """Return the fields of ``size`` in a benchmark's line."""
        return {
            "rows": self.rows,
            "inputs": self.layout.width,
            "shards": NUM_SHARDS,
            "batch": BATCH,
            "cores": os.cpu_count(),
        }


SIZE = RowSize(rows=200_192)
SMALL = RowSize(rows=8192)


def training_files(size: RowSize, root: Path, *, lists: bool = False) -> list[list[str]]:
    """Return the files of each shard; draw them if they are missing.

    ``lists``: with inputs as lists of floats, for readers that do not support bytes.
    """
    folder = root / (size.name + "-lists" * lists)
    if not folder.exists():
        progress(f"drawing {folder}")
        staged = root / f".{size.name}-{uuid4().hex}"  # a killed run leaves no half of the rows behind
        _write(size, staged, lists=lists)
        staged.rename(folder)
    return shard_files(map(str, folder.rglob("*.parquet")), NUM_SHARDS)["train"]


def training_task(size: RowSize, root: Path, folder: str, **training: Any) -> TrainingTask:
    """Create a task of one epoch with the paper's model; checkpoints go to ``folder``."""
    files = {"train": training_files(size, root)}
    settings = config.Training(**{"num_shards": NUM_SHARDS, "batch_size": BATCH, "max_epochs": 1} | training)
    return TrainingTask(
        files=files,
        steps=read_steps_per_epoch(files, settings),
        layout=size.layout,
        targets=TargetLayout(futures=[], blocks=[]),
        model=config.Model(preset="autoencoder"),
        training=settings,
        empty_F=np.zeros(size.layout.width, np.float32),
        folder=folder,
    )


def our_epoch(files: list[list[str]], size: RowSize, *, epoch: int = 1) -> Generator[Rows]:
    """Yield the batches of an epoch as a training on one rank receives them, before noise."""
    yield from epoch_batches(
        files,
        rank=0,
        size=1,
        batch_size=BATCH,
        steps=size.rows // BATCH,
        width=size.layout.width,
        seed=size.seed,
        epoch=epoch,
    )


def taken(batches: Iterable[Rows]) -> int:
    """Take all batches and return their number of rows."""
    return sum(len(row_key_B) for row_key_B, _ in batches)


def checksum(batches: Iterable[Rows]) -> tuple[int, int, int]:
    """Return the number of rows, the sum of their keys, and that of their inputs' bits, independent of their order."""
    num_rows = keys = bits = 0
    for row_key_B, x_BF in batches:
        num_rows += len(row_key_B)
        keys += int(np.asarray(row_key_B).sum())
        bits += int(np.ascontiguousarray(x_BF).view(np.uint32).sum(dtype=np.uint64))
    return num_rows, keys, bits


def check_rows(ours: tuple[int, int, int], theirs: tuple[int, int, int], size: RowSize) -> None:
    """Check that two checksums are equal and cover all rows."""
    if ours != theirs or ours[0] != size.rows:
        raise AssertionError(f"of {size.rows} rows, ours delivers {ours} and the peer {theirs}")


def against(
    benchmark: str, peer: str, epoch: Callable[[list[list[str]], int], Iterable[Rows]], size: RowSize, *,
    root: Path, runs: int,
) -> Line:  # fmt: skip
    """Compare our reader with a peer's ``epoch(files, number)`` on the same files, with the same consumer."""
    files = training_files(size, root)
    check_rows(checksum(our_epoch(files, size)), checksum(epoch(files, 1)), size)
    numbers = iter(range(2, 2 + 2 * runs))
    seconds = alternating(
        lambda: taken(our_epoch(files, size, epoch=next(numbers))),
        lambda: taken(epoch(files, next(numbers))),
        check=lambda: None,  # done
        runs=runs,
    )
    return ratio_line(benchmark, size.facts(), seconds, peer=peer)


def run(
    benchmark: str, measure: Callable[[RowSize, Path, int], Line], size: RowSize = SIZE, *, small: RowSize = SMALL,
    runs: int = 5,
) -> None:  # fmt: skip
    """Run one benchmark with the arguments of the command line, and print its line."""
    asked = ask(benchmark, size, small=small, runs=runs, unit="rows", number=size.rows, resized=size.of_rows)
    progress(f"{benchmark}: {asked.size.name}")
    print_line(benchmark, lambda: measure(asked.size, asked.root, asked.runs))


def _write(size: RowSize, folder: Path, *, lists: bool) -> None:
    """Write a file for each shard, chunk by chunk."""
    layout = size.layout
    x_type = pa.list_(pa.float32()) if lists else pa.binary()
    schema = pa.schema([("row_key", pa.int64()), ("x", x_type)])
    writer = TableWriter(Target(str(folder), schema, ("split", "shard"), TRAINING_ROWS.properties))
    per_shard, chunk = size.rows // NUM_SHARDS, _CHUNK // layout.width
    for shard in range(NUM_SHARDS):
        random = np.random.default_rng([size.seed, shard])
        for start in range(0, per_shard, chunk):
            num = min(chunk, per_shard - start)
            x = random.standard_normal((num, layout.width), dtype=np.float32)
            x[:, layout.blocks[-1].start :] = 1
            rows = {"row_key": random.integers(2**40, size=num), "x": listed(x) if lists else packed(x)}
            writer.write(pa.table(rows, schema=schema), {"split": "train", "shard": shard})
    writer.close()
