"""The rows of one shard in the order of one epoch, from any row on, in bounded memory.

The shard's row groups are put into a random order; the rows in it are cut into buffers, and each buffer is permuted.
Which rows a buffer has follows from the seed, the number of shards and the width: from nothing that ranks differ in.
Shapes: B rows of a batch, N rows of a buffer, F numbers of a row: its inputs, then its targets.
"""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from userrep.training.data.row_stream import Batch, RowGroup, RowStream

MAX_BYTES = 128 * 2**20  # of rows that the reader of an epoch holds in a rank, its read buffers included


class Room(NamedTuple):
    """What one of a rank's shards may hold: two buffers of rows, half of one more while it grows, and a read buffer."""

    buffer_rows: int
    read_bytes: int

    @classmethod
    def of(cls, num_shards: int, width: int) -> "Room":
        """Divide ``MAX_BYTES`` by all shards, as if a rank owned them all."""
        room = MAX_BYTES // num_shards
        return cls(max(1, room // 3 // (8 + 4 * width)), min(room // 12, 2**20))

    def stream(self, groups: Sequence[RowGroup], *, start: int, width: int) -> RowStream:
        """Read row groups from row ``start`` on, a buffer at a time."""
        return RowStream(groups, start=start, width=width, slice_rows=self.buffer_rows, buffer_bytes=self.read_bytes)


class ShuffledShard:
    """The ``rows`` of a shard, positions in the epoch's order; a thread of ``pool`` decodes a buffer while one is used.

    Row groups that lie before the buffer of the first of ``rows`` are not read.
    """

    def __init__(
        self,
        groups: Sequence[RowGroup],
        *,
        width: int,
        seed: tuple[int, int, int],
        room: Room,
        rows: range,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._groups, self._width, self._seed, self._room, self._rows = groups, width, seed, room, rows
        self._pool, self._buffers = pool, self._read_buffers()
        self._next = pool.submit(next, self._buffers, None)
        self._order_N, self._buffer = np.empty(0, np.int64), Batch.empty(0, width)
        self._used = rows.start % room.buffer_rows  # of the buffer's rows

    def take_into(self, row_key_B: NDArray[np.int64], x_BF: NDArray[np.float32]) -> None:
        """Fill the arrays with the next rows."""
        num = 0
        while num < len(row_key_B):
            if self._used >= len(self._order_N):
                self._turn()
            which = self._order_N[self._used : self._used + len(row_key_B) - num]
            end = num + len(which)
            # Without mode, numpy takes into a copy of what it is given.
            np.take(self._buffer.row_key_B, which, out=row_key_B[num:end], mode="clip")
            np.take(self._buffer.x_BF, which, axis=0, out=x_BF[num:end], mode="clip")
            self._used += len(which)
            num = end

    def _turn(self) -> None:
        """Take the buffer that has been read, in the place of the one that is used up, and have the next one read."""
        self._used -= len(self._order_N)
        buffer = self._next.result()
        assert buffer is not None, f"{self._rows} are more rows than shard {self._seed[-1]} has"
        self._order_N, self._buffer = buffer
        self._next = self._pool.submit(next, self._buffers, None)

    def close(self) -> None:
        """Close the file that is being read; the pool's threads are at rest by now."""
        self._buffers.close()

    def _read_buffers(self) -> Generator[tuple[NDArray[np.int64], Batch]]:
        """Read the buffers in turn, each with the order in which its rows are taken."""
        groups = [self._groups[k] for k in self._permutation(0, len(self._groups))]
        size = self._room.buffer_rows
        first, end = self._rows.start // size, -(-self._rows.stop // size)
        with closing(self._room.stream(groups, start=first * size, width=self._width)) as stream:
            for k in range(first, end):
                buffer = stream.read(size)
                yield self._permutation(1 + k, len(buffer.row_key_B)), buffer

    def _permutation(self, purpose: int, length: int) -> NDArray[np.int64]:
        """Return an order that needs no earlier one: of row groups (purpose 0), of the rows of buffer k (1 + k)."""
        return np.random.default_rng([*self._seed, purpose]).permutation(length)
