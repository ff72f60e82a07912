"""The rows of one shard in the order of one epoch, from any row on, in bounded memory.

The shard's row groups are put into a random order; the rows in it are cut into buffers, and each buffer is permuted.
Which rows a buffer has follows from the seed, the number of shards and the width: from nothing that ranks differ in.
Shapes: B rows of a batch, S shards of a rank, N rows of a buffer, F inputs.
"""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from userrep.training.row_stream import RowGroup, RowStream

MAX_BYTES = 128 * 2**20  # of rows that the reader of an epoch holds in a rank, its read buffers included


class Room(NamedTuple):
    """What one of a rank's shards may hold: two buffers of rows, and a stream with two read buffers and two slices."""

    buffer_rows: int
    stream_bytes: int

    @classmethod
    def of(cls, num_shards: int, width: int) -> "Room":
        """Divide ``MAX_BYTES`` by all shards, as if a rank owned them all."""
        room = MAX_BYTES // num_shards
        return cls(max(1, room // 3 // (8 + 4 * width)), min(room // 12, 2**21))


class Buffers(NamedTuple):
    """Two buffers of up to N rows for each of S shards, in one piece: the system gives it in large pages."""

    row_key_S2N: NDArray[np.int64]
    x_S2NF: NDArray[np.float32]

    @classmethod
    def empty(cls, num_shards: int, num_rows: int, width: int) -> "Buffers":
        return cls(
            np.empty((num_shards, 2, num_rows), np.int64), np.empty((num_shards, 2, num_rows, width), np.float32)
        )


class ShuffledShard:
    """The ``rows`` of a shard, positions in the epoch's order; a thread of ``pool`` fills a buffer while one is used.

    ``row_key_2N`` and ``x_2NF`` are the shard's own buffers, for ``room.buffer_rows`` or for all of its rows.
    Row groups that lie before the buffer of the first of ``rows`` are not read.
    """

    def __init__(
        self,
        groups: Sequence[RowGroup],
        row_key_2N: NDArray[np.int64],
        x_2NF: NDArray[np.float32],
        *,
        seed: tuple[int, int, int],
        room: Room,
        rows: range,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._groups, self._seed, self._room, self._rows = groups, seed, room, rows
        self._row_key_2N, self._x_2NF = row_key_2N, x_2NF
        self._pool, self._filled = pool, self._fill()
        self._next = pool.submit(next, self._filled, None)
        self._current = self._num_rows = 0  # which of the two buffers is used, and its rows
        self._used = rows.start % room.buffer_rows  # of these rows

    def take_into(self, row_key_B: NDArray[np.int64], x_BF: NDArray[np.float32]) -> None:
        """Fill the arrays with the next rows."""
        num = 0
        while num < len(row_key_B):
            if self._used >= self._num_rows:
                self._turn()
            taken = min(self._num_rows - self._used, len(row_key_B) - num)
            rows = slice(self._used, self._used + taken)
            row_key_B[num : num + taken] = self._row_key_2N[self._current, rows]
            x_BF[num : num + taken] = self._x_2NF[self._current, rows]
            self._used += taken
            num += taken

    def _turn(self) -> None:
        """Take the buffer that has been filled, and have the one that is used up filled again."""
        filled = self._next.result()
        assert filled is not None, f"{self._rows} are more rows than shard {self._seed[-1]} has"
        self._used -= self._num_rows
        self._current, self._num_rows = filled
        self._next = self._pool.submit(next, self._filled, None)

    def close(self) -> None:
        """Close the file that is being read; the pool's threads are at rest by now."""
        self._filled.close()

    def _fill(self) -> Generator[tuple[int, int]]:
        """Fill the buffers in turn, each row into its place by chance; say which one, and how many rows it has."""
        groups = [self._groups[k] for k in self._permutation(0, len(self._groups))]
        size, total = self._room.buffer_rows, sum(group.num_rows for group in groups)
        first, end = self._rows.start // size, -(-self._rows.stop // size)
        width = self._x_2NF.shape[-1]
        stream = RowStream(groups, start=first * size, width=width, max_bytes=self._room.stream_bytes)
        with closing(stream):
            for k in range(first, end):
                num_rows = min(size, total - k * size)
                rows = (k % 2, slice(num_rows))
                stream.read_into(self._row_key_2N[rows], self._x_2NF[rows], self._permutation(1 + k, num_rows))
                yield k % 2, num_rows

    def _permutation(self, purpose: int, length: int) -> NDArray[np.int64]:
        """Return an order that needs no earlier one: of row groups (purpose 0), of the rows of buffer k (1 + k)."""
        return np.random.default_rng([*self._seed, purpose]).permutation(length)
