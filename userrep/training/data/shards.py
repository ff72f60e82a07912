"""Batches of training rows from virtual shards, such that global batches do not depend on the number of ranks.

A global batch of B rows takes B / V rows from each of V shards. Rank r of W owns the shards r, r + W, ...; W divides V.
A shard's row groups are put in random order, their rows are cut into buffers, and each buffer is permuted. Seed, number
of shards and width determine which rows a buffer has; the number of ranks has no influence.
Memory of a rank: ``MAX_BYTES`` of rows, for any number of shards.
Shapes: B rows of a batch, N rows, F numbers per row: its inputs, then its targets.
"""

import re
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from userrep import config
from userrep.errors import UsageError
from userrep.store.filesystem import is_local, parquet_footer
from userrep.training.data.row_stream import Batch, RowGroup, row_batches, row_groups

READERS = 8  # threads for files in an object store, where each thread spends most of its time waiting
LOCAL_READERS = 1  # one thread decodes faster than a model trains; more would compete for the interpreter lock
ShardFiles = dict[str, list[list[str]]]  # split -> shard -> its files, sorted
MAX_BYTES = 128 * 2**20  # per rank, for the rows that an epoch's reader keeps in memory, including read buffers


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


def read_steps_per_epoch(files: ShardFiles, training: config.Training) -> int:
    """Return the number of steps that the smallest shard allows. It is the same for any number of ranks.

    Cost: reads the footer of each training file.

    Raises
    ------
    UsageError
        If the smallest shard has too few rows for one step.
    """
    shards = files.get("train") or [[] for _ in range(training.num_shards)]
    with ThreadPoolExecutor(READERS) as pool:
        num_rows: int = min(sum(footer.num_rows for footer in pool.map(parquet_footer, uris)) for uris in shards)
    portion = training.batch_size // len(shards)
    if num_rows < portion:
        raise UsageError(
            f"training: the smallest of {len(shards)} shards has {num_rows} rows, but one step takes {portion} "
            "from each. Lower training.batch_size or training.num_shards, or train on more users or as-of dates."
        )
    return num_rows // portion


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
    budget, rows = MemoryBudget.of(len(files), width), range(first_step * portion, steps * portion)
    num_readers = LOCAL_READERS if all(map(is_local, files[rank])) else READERS
    pool = ThreadPoolExecutor(num_readers, thread_name_prefix="reader")
    shards: list[ShuffledShard] = []
    try:
        for number, groups in zip(owned, pool.map(row_groups, [files[number] for number in owned]), strict=True):
            key = seed % (1 << 64), epoch, number
            shards.append(ShuffledShard(groups, width, seed=key, budget=budget, rows=rows, pool=pool))
        for _ in range(first_step, steps):
            batch = Batch.empty(portion * len(shards), width)
            for k, shard in enumerate(shards):
                shard.take_into(*batch.rows(k * portion, (k + 1) * portion))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
        for shard in shards:
            shard.close()


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


class MemoryBudget(NamedTuple):
    """The memory of one shard: two buffers of rows, half a buffer more while one is decoded, and a read buffer."""

    buffer_rows: int
    read_bytes: int

    @classmethod
    def of(cls, num_shards: int, width: int) -> "MemoryBudget":
        """Divide ``MAX_BYTES`` by the number of all shards, as if one rank owned them all."""
        num_bytes = MAX_BYTES // num_shards
        return cls(max(1, num_bytes // 3 // (8 + 4 * width)), min(num_bytes // 12, 2**20))

    def buffers(self, groups: Sequence[RowGroup], *, first: int, width: int) -> Generator[Batch]:
        """Yield the rows of the row groups in buffers, from number ``first`` on."""
        start = first * self.buffer_rows
        return row_batches(groups, start=start, num_rows=self.buffer_rows, width=width, buffer_bytes=self.read_bytes)


@dataclass(eq=False)
class ShuffledShard:
    """A shard's rows in the order of an epoch. A thread of ``pool`` decodes the next buffer while one is in use.

    ``seed``: seed, epoch and shard. ``rows``: the positions to read, in the epoch's order. Row groups before the buffer
    that contains the first position are not read.
    """

    groups: Sequence[RowGroup]
    width: int
    seed: tuple[int, int, int]
    budget: MemoryBudget
    rows: range
    pool: ThreadPoolExecutor

    def __post_init__(self) -> None:
        self._buffers = self._read_buffers()
        self._next = self.pool.submit(next, self._buffers, None)
        self._order_N, self._buffer = np.empty(0, np.int64), Batch.empty(0, self.width)
        self._num_used = self.rows.start % self.budget.buffer_rows  # rows of the current buffer

    def take_into(self, row_key_B: NDArray[np.int64], x_BF: NDArray[np.float32]) -> None:
        """Fill the arrays with the next rows."""
        num = 0
        while num < len(row_key_B):
            if self._num_used >= len(self._order_N):
                self._next_buffer()
            rows = self._order_N[self._num_used : self._num_used + len(row_key_B) - num]
            end = num + len(rows)
            # Without mode, numpy writes to a temporary copy of ``out`` first.
            np.take(self._buffer.row_key_B, rows, out=row_key_B[num:end], mode="clip")
            np.take(self._buffer.x_BF, rows, axis=0, out=x_BF[num:end], mode="clip")
            self._num_used += len(rows)
            num = end

    def _next_buffer(self) -> None:
        """Replace the current buffer by the one that was read ahead, and start reading the next."""
        self._num_used -= len(self._order_N)
        buffer = self._next.result()
        assert buffer is not None, f"shard {self.seed[-1]} has fewer rows than {self.rows}"
        self._order_N, self._buffer = buffer
        self._next = self.pool.submit(next, self._buffers, None)

    def close(self) -> None:
        """Close the open file. The pool's threads must be idle."""
        self._buffers.close()

    def _read_buffers(self) -> Generator[tuple[NDArray[np.int64], Batch]]:
        """Yield the buffers one after another, each with the order in which its rows are used."""
        groups = [self.groups[k] for k in self._permutation(0, len(self.groups))]
        size = self.budget.buffer_rows
        numbers = range(self.rows.start // size, -(-self.rows.stop // size))
        with closing(self.budget.buffers(groups, first=numbers.start, width=self.width)) as buffers:
            for k, buffer in zip(numbers, buffers, strict=False):
                yield self._permutation(1 + k, len(buffer.row_key_B)), buffer

    def _permutation(self, purpose: int, length: int) -> NDArray[np.int64]:
        """Return the order of the row groups (purpose 0), or of the rows of buffer k (purpose 1 + k).

        Each order has its own generator, so none depends on the ones before it.
        """
        return np.random.default_rng([*self.seed, purpose]).permutation(length)
