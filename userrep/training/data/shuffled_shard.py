"""The shuffled rows of one shard in one epoch, readable from any position in bounded memory.

The shard's row groups are put in random order, their rows are cut into buffers, and each buffer is permuted. The seed,
the number of shards and the width determine which rows a buffer has; the number of ranks has no influence.
Shapes: B rows of a batch, N rows of a buffer, F numbers per row: its inputs, then its targets.
"""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from userrep.training.data.row_stream import Batch, RowGroup, row_batches

MAX_BYTES = 128 * 2**20  # per rank, for the rows that an epoch's reader keeps in memory, including read buffers


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
