"""Training rows from Parquet: virtual shards, dealt over ranks so that global batches don't depend on their number.

A global batch of B rows takes B / V rows of each of V shards. Rank r of W owns the shards r, r + W, ...; W divides V.
Memory per shard that a rank owns: at most two buffers of ``BUFFER_ROWS`` rows, whatever the size of a row group.
Shapes: B rows, F inputs.
"""

import queue
import re
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from userrep.errors import UsageError

BUFFER_ROWS = 2048
ShardFiles = dict[str, list[list[str]]]  # split -> shard -> its files, sorted
Item = TypeVar("Item")


class Batch(NamedTuple):
    row_key_B: NDArray[np.int64]
    x_BF: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: "Sequence[Batch]") -> "Batch":
        return cls(np.concatenate([part.row_key_B for part in parts]), np.concatenate([part.x_BF for part in parts]))

    def rows(self, which: "slice | NDArray[np.int64]") -> "Batch":
        return Batch(self.row_key_B[which], self.x_BF[which])


def shard_files(paths: Iterable[str], num_shards: int) -> ShardFiles:
    """Group the files of ``training_rows`` by split and shard, from the partition values in their paths.

    ``paths`` are local paths or ``file:`` URIs, percent-encoded, as Spark's ``inputFiles`` gives them.

    Raises
    ------
    ValueError
        If a path has no split and shard, or its shard is not below ``num_shards``.
    """
    files: ShardFiles = {}
    for path in sorted(_local_path(path) for path in paths):
        match = re.search(r"/split=([^/]+)/shard=(\d+)/", path)
        if match is None or int(match[2]) >= num_shards:
            raise ValueError(f"{path}: a file under split=NAME/shard=N with N below {num_shards} was expected")
        files.setdefault(match[1], [[] for _ in range(num_shards)])[int(match[2])].append(path)
    return files


def count_rows(files: Sequence[Sequence[str]]) -> list[int]:
    """Count the rows of each shard, from the Parquet footers alone."""

    def count(path: str) -> int:
        with pa.OSFile(path) as source:
            return int(pq.read_metadata(source).num_rows)

    with ThreadPoolExecutor(8) as pool:
        return [sum(pool.map(count, paths)) for paths in files]


def steps_per_epoch(num_rows: Sequence[int], batch_size: int) -> int:
    """Return how many steps all shards can serve: equal on every rank, at any number of ranks.

    Raises
    ------
    UsageError
        If the smallest shard has too few rows for one step.
    """
    portion = batch_size // len(num_rows)
    steps = min(num_rows) // portion
    if not steps:
        raise UsageError(
            f"training: the smallest of {len(num_rows)} shards has {min(num_rows)} rows, "
            f"one step takes {portion} of each: "
            "set training.batch_size or training.num_shards lower, or train on more users or as-of dates."
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
) -> Iterator[Batch]:
    """Yield a rank's part of each of an epoch's ``steps`` global batches of ``batch_size`` rows.

    The order of a shard's row groups, and of the rows within a buffer, follows from (seed, epoch, shard).
    """
    portions = [
        _portions(
            _shuffled(_row_groups(files[shard]), width, np.random.default_rng([seed % (1 << 64), epoch, shard])),
            batch_size // len(files),
        )
        for shard in range(rank, len(files), size)
    ]
    for step in range(steps):
        batch = Batch.joined([next(portion) for portion in portions])
        if step >= first_step:
            yield batch


def first_rows(
    files: Sequence[Sequence[str]], *, rank: int, size: int, max_rows: int, width: int
) -> NDArray[np.float32]:
    """Return x_BF of the first rows of each shard that a rank owns, at most ``max_rows`` over all ranks."""
    portion = max(max_rows // len(files), 1)
    parts = [np.empty((0, width), np.float32)]
    for shard in range(rank, len(files), size):
        missing = portion
        for batch in _read(_row_groups(files[shard]), width):
            parts.append(batch.x_BF[:missing])
            missing -= len(parts[-1])
            if not missing:
                break
    return np.concatenate(parts)


def prefetched(source: Generator[Item], depth: int = 4) -> Generator[Item]:
    """Yield from ``source``, which a thread runs ahead by at most ``depth`` items (and the one it holds).

    Close this generator, or run it to its end: either ends the thread. What the source raises is raised here.
    """
    items: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Item | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                items.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return

    def fill() -> None:
        end: BaseException = StopIteration()
        try:
            for item in source:
                put(item, None)
                if stopped.is_set():
                    break
        except BaseException as error:  # whatever it is, it belongs to the consumer
            end = error
        finally:
            source.close()
        put(None, end)

    thread = threading.Thread(target=fill, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = items.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()


def _local_path(path: str) -> str:
    """Return a local path; this and ``_read`` are where object stores would come in."""
    return unquote(re.sub(r"^file:(//)?(?=/)", "", path)) if path.startswith("file:") else path


def _row_groups(paths: Sequence[str]) -> list[tuple[str, int]]:
    groups = []
    for path in paths:
        with pa.OSFile(path) as source:
            groups += [(path, group) for group in range(pq.read_metadata(source).num_row_groups)]
    return groups


def _read(groups: Iterable[tuple[str, int]], width: int) -> Iterator[Batch]:
    """Read row groups in order, in batches of at most ``BUFFER_ROWS`` rows."""
    for path, group in groups:
        with pa.OSFile(path) as source:
            # A buffered stream instead of the whole column chunk: memory does not follow the row group's size.
            file = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
            for part in file.iter_batches(BUFFER_ROWS, row_groups=[group], columns=["row_key", "x"], use_threads=False):
                x = part.column("x").flatten().to_numpy(zero_copy_only=False)
                if len(x) != part.num_rows * width:
                    raise ValueError(
                        f"{path}: rows of {width} inputs were expected, got {len(x)} in {part.num_rows} rows"
                    )
                yield Batch(part.column("row_key").to_numpy(), x.reshape(part.num_rows, width))


def _shuffled(groups: list[tuple[str, int]], width: int, random: np.random.Generator) -> Iterator[Batch]:
    """Yield all rows in buffers of ``BUFFER_ROWS`` to twice as many rows, the last one smaller, each permuted."""
    order = (groups[k] for k in random.permutation(len(groups)))
    buffer: list[Batch] = []
    for batch in _read(order, width):
        buffer.append(batch)
        if sum(len(part.row_key_B) for part in buffer) >= BUFFER_ROWS:
            yield _permuted(buffer, random)
            buffer = []
    if buffer:
        yield _permuted(buffer, random)


def _permuted(buffer: list[Batch], random: np.random.Generator) -> Batch:
    rows = Batch.joined(buffer)
    return rows.rows(random.permutation(len(rows.row_key_B)))


def _portions(buffers: Iterator[Batch], num_rows: int) -> Iterator[Batch]:
    """Cut buffers into portions of exactly ``num_rows`` rows; what is left at the end is left out."""
    rest: list[Batch] = []
    for buffer in buffers:
        rows = Batch.joined([*rest, buffer])
        end = len(rows.row_key_B) // num_rows * num_rows
        for start in range(0, end, num_rows):
            yield rows.rows(slice(start, start + num_rows))
        rest = [rows.rows(slice(end, None))]
