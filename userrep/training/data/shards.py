"""Batches of training rows from virtual shards, such that global batches do not depend on the number of ranks.

A global batch of B rows takes B / V rows from each of V shards. Rank r of W owns the shards r, r + W, ...; W divides V.
Memory of a rank: ``MAX_BYTES`` of rows (userrep/training/data/shuffled_shard.py), for any number of shards.
Shapes: B rows of a batch, N rows, F numbers per row: its inputs, then its targets.
"""

import re
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from userrep.errors import UsageError
from userrep.store.filesystem import is_local, parquet_footer
from userrep.training.data.row_stream import Batch, RowGroup, row_groups
from userrep.training.data.shuffled_shard import MemoryBudget, ShuffledShard

READERS = 8  # threads for files in an object store, where each thread spends most of its time waiting
LOCAL_READERS = 1  # one thread decodes faster than a model trains; more would compete for the interpreter lock
ShardFiles = dict[str, list[list[str]]]  # split -> shard -> its files, sorted


def shard_files(uris: Iterable[str], num_shards: int) -> ShardFiles:
    """Group the files of ``training_rows`` by split and shard, read from the partition values in their paths.

    ``uris`` are percent-encoded paths or URIs as returned by Spark's ``inputFiles``. They are not changed.

    Raises
    ------
    ValueError
        If a path has no split and shard, or its shard is not below ``num_shards``.
    """
    files: ShardFiles = {}
    for uri in sorted(uris):
        match = re.search(r"/split=([^/]+)/shard=(\d+)/", unquote(uri))
        if match is None or int(match[2]) >= num_shards:
            raise ValueError(f"{uri}: expected a file under split=NAME/shard=N with N below {num_shards}")
        files.setdefault(match[1], [[] for _ in range(num_shards)])[int(match[2])].append(uri)
    return files


def count_rows(files: Sequence[Sequence[str]]) -> list[int]:
    """Count the rows of each shard. Cost: reads the Parquet footers only."""
    with ThreadPoolExecutor(READERS) as pool:
        return [sum(footer.num_rows for footer in pool.map(parquet_footer, uris)) for uris in files]


def steps_per_epoch(num_rows: Sequence[int], batch_size: int) -> int:
    """Return the number of steps that the smallest shard allows. It is the same for any number of ranks.

    Raises
    ------
    UsageError
        If the smallest shard has too few rows for one step.
    """
    portion = batch_size // len(num_rows)
    steps = min(num_rows) // portion
    if not steps:
        raise UsageError(
            f"training: the smallest of {len(num_rows)} shards has {min(num_rows)} rows, but one step takes {portion} "
            "from each. Lower training.batch_size or training.num_shards, or train on more users or as-of dates."
        )
    return steps


def epoch_batches(
    files: Sequence[Sequence[str]],
    *,
    rank: int,
    size: int,
    batch_size: int,
    steps: int,
    width: int,
    seed: int,
    epoch: int,
    first_step: int = 0,
) -> Generator[Batch]:
    """Yield a rank's part of each global batch of ``batch_size`` rows, for the steps in [first_step, steps).

    (seed, epoch, shard) determines the order of a shard's row groups, and the order of rows within each buffer. Row
    groups that only earlier steps need are not read. Threads read ahead; they end when the generator is closed.
    """
    portion, owned = batch_size // len(files), range(rank, len(files), size)
    budget = MemoryBudget.of(len(files), width)
    pool = ThreadPoolExecutor(_num_readers(files[rank]), thread_name_prefix="reader")
    shards: list[ShuffledShard] = []
    try:
        groups_by_shard = pool.map(row_groups, [files[number] for number in owned])
        shards += [
            ShuffledShard(
                groups,
                width=width,
                seed=(seed % (1 << 64), epoch, number),
                budget=budget,
                rows=range(first_step * portion, steps * portion),
                pool=pool,
            )
            for number, groups in zip(owned, groups_by_shard, strict=True)
        ]
        for _ in range(first_step, steps):
            batch = Batch.empty(portion * len(shards), width)
            for k, shard in enumerate(shards):
                shard.take_into(*batch.rows(k * portion, (k + 1) * portion))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
        for shard in shards:
            shard.close()


def _num_readers(uris: Sequence[str]) -> int:
    return LOCAL_READERS if not uris or is_local(uris[0]) else READERS


def first_rows(
    files: Sequence[Sequence[str]],
    *,
    rank: int,
    size: int,
    max_rows: int,
    width: int,
    columns: Sequence[int] | None = None,
) -> list[NDArray[np.float32]]:
    """Return the first rows of each shard that a rank owns, as one x_NF per shard; at most ``max_rows`` over all ranks.

    ``columns``: indices of the numbers to return, in order; all by default. Memory: the result, and up to ``READERS``
    streams.
    """
    owned = [row_groups(files[shard]) for shard in range(rank, len(files), size)]
    portion = max(max_rows // len(files), 1)
    ends = np.cumsum([0, *(min(portion, sum(group.num_rows for group in groups)) for groups in owned)])
    x_NF = np.empty((ends[-1], width if columns is None else len(columns)), np.float32)
    budget = MemoryBudget.of(len(files), width)

    def read(groups: list[RowGroup], start: int, stop: int) -> None:
        with closing(budget.buffers(groups, first=0, width=width)) as buffers:
            while start < stop:
                x_BF = next(buffers).x_BF[: stop - start]
                x_NF[start : start + len(x_BF)] = x_BF if columns is None else x_BF[:, columns]
                start += len(x_BF)

    with ThreadPoolExecutor(READERS, thread_name_prefix="reader") as pool:
        list(pool.map(read, owned, ends[:-1], ends[1:]))
    return [x_NF[start:stop] for start, stop in pairwise(ends)]
