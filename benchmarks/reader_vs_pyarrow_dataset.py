"""How fast are training rows read from Parquet in shuffled batches, compared with pyarrow.dataset in a DataLoader?

800k rows of 546 inputs in 16 shards, batches of 512. The peer scans row groups in random order with Arrow's threads,
shuffles within 20,000 rows, and decodes as ours does. It runs in the process of torch's DataLoader, which was faster
than in worker processes.

    make bench-reader-vs-pyarrow-dataset
    python -m benchmarks.reader_vs_pyarrow_dataset --small
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.report import Line
from benchmarks.training_data import BATCH, SHUFFLED_ROWS, SIZE, Rows, RowSize, against, run
from userrep.store.arrow import unpacked


def measure(size: RowSize, root: Path, runs: int) -> Line:
    """Read an epoch with both."""

    def epoch(files: list[list[str]], number: int) -> DataLoader[Rows]:
        scan = ShuffledScan([file for shard in files for file in shard], size.layout.width, number)
        return DataLoader(scan, batch_size=None, collate_fn=lambda batch: batch)

    return against("reader_vs_pyarrow_dataset", "pyarrow.dataset", epoch, size, root=root, runs=runs)


class ShuffledScan(IterableDataset[Rows]):
    """Row groups in random order, rows permuted in buffers: the same shuffling as ours."""

    def __init__(self, files: list[str], width: int, seed: int) -> None:
        self._files, self._width, self._seed = files, width, seed

    def __iter__(self) -> Iterator[Rows]:
        random = np.random.default_rng(self._seed)
        whole = ds.dataset(self._files)
        groups = [group for fragment in whole.get_fragments() for group in fragment.split_by_row_group()]
        shuffled = [groups[k] for k in random.permutation(len(groups))]
        scan = ds.FileSystemDataset(shuffled, whole.schema, whole.format, whole.filesystem)
        waiting: list[pa.RecordBatch] = []
        for part in scan.to_batches(columns=["row_key", "x"]):
            waiting.append(part)
            if sum(map(len, waiting)) >= SHUFFLED_ROWS:
                waiting = yield from self._batches(waiting, random, BATCH)
        if waiting:
            yield from self._batches(waiting, random, 1)

    def _batches(self, parts: list[pa.RecordBatch], random: np.random.Generator, least: int) -> Iterator[Rows]:
        """Yield permuted batches, and return the remaining rows when fewer than ``least`` are left."""
        rows = pa.Table.from_batches(parts).combine_chunks()
        keys = rows.column("row_key").chunk(0).to_numpy()
        x = unpacked(rows.column("x").chunk(0), self._width)
        order = random.permutation(len(keys))
        start = 0
        while len(keys) - start >= least:
            which = order[start : start + BATCH]
            yield keys[which], x[which]
            start += len(which)
        return rows.take(pa.array(order[start:])).to_batches()


if __name__ == "__main__":
    run("reader_vs_pyarrow_dataset", measure, SIZE.of_rows(800_000))
