"""Training rows in virtual shards, dealt over ranks so that global batches don't depend on their number.

A global batch of B rows takes B / V rows of each of V shards. Rank r of W owns the shards r, r + W, ...; W divides V.
Memory of a rank: ``MAX_BYTES`` of rows (userrep/training/data/shuffled_shard.py), whatever the number of its shards.
Shapes: B rows of a batch, N rows, F numbers of a row: its inputs, then its targets.
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
from userrep.store.storage import is_local, parquet_footer
from userrep.training.data.row_stream import Batch, RowGroup, row_groups
from userrep.training.data.shuffled_shard import Room, ShuffledShard

READERS = 8  # threads of an epoch on an object store, where each waits most of its time
LOCAL_READERS = 1  # it decodes faster than a model trains; more would take turns for the interpreter
ShardFiles = dict[str, list[list[str]]]  # split -> shard -> its files, sorted


def shard_files(uris: Iterable[str], num_shards: int) -> ShardFiles:
    """Group the files of ``training_rows`` by split and shard, from the partition values in their paths.

    ``uris`` are paths or URIs, percent-encoded, as Spark's ``inputFiles`` gives them, and stay as they are.

    Raises
    ------
    ValueError
        If a path has no split and shard, or its shard is not below ``num_shards``.
    """
    files: ShardFiles = {}
    for uri in sorted(uris):
        match = re.search(r"/split=([^/]+)/shard=(\d+)/", unquote(uri))
        if match is None or int(match[2]) >= num_shards:
            raise ValueError(f"{uri}: a file under split=NAME/shard=N with N below {num_shards} was expected")
        files.setdefault(match[1], [[] for _ in range(num_shards)])[int(match[2])].append(uri)
    return files


def count_rows(files: Sequence[Sequence[str]]) -> list[int]:
    """Count the rows of each shard, from the Parquet footers alone."""
    with ThreadPoolExecutor(READERS) as pool:
        return [sum(footer.num_rows for footer in pool.map(parquet_footer, uris)) for uris in files]


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
) -> Generator[Batch]:
    """Yield a rank's part of an epoch's global batches of ``batch_size`` rows, from ``first_step`` up to ``steps``.

    The order of a shard's row groups, and of the rows within each of its buffers, follows from (seed, epoch, shard).
    With ``first_step``, row groups of earlier steps are not read. Threads read on while batches are used; closing the
    generator ends them.
    """
    portion, owned = batch_size // len(files), range(rank, len(files), size)
    room = Room.of(len(files), width)
    pool = ThreadPoolExecutor(_num_readers(files[rank]), thread_name_prefix="reader")
    shards: list[ShuffledShard] = []
    try:
        groups = pool.map(row_groups, [files[shard] for shard in owned])
        shards += [
            ShuffledShard(
                of_shard,
                width=width,
                seed=(seed % (1 << 64), epoch, shard),
                room=room,
                rows=range(first_step * portion, steps * portion),
                pool=pool,
            )
            for shard, of_shard in zip(owned, groups, strict=True)
        ]
        for _ in range(first_step, steps):
            batch = Batch.empty(portion * len(shards), width)
            for k, shard in enumerate(shards):
                shard.take_into(*batch.rows(k * portion, (k + 1) * portion))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
        for shard_read in shards:
            shard_read.close()


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
    """Return x_NF of the first rows of each shard that a rank owns, at most ``max_rows`` over all ranks.

    ``columns``: the numbers of a row that are wanted. Memory: these, and up to ``READERS`` streams.
    """
    owned = [row_groups(files[shard]) for shard in range(rank, len(files), size)]
    portion = max(max_rows // len(files), 1)
    ends = np.cumsum([0, *(min(portion, sum(group.num_rows for group in groups)) for groups in owned)])
    x_NF = np.empty((ends[-1], width if columns is None else len(columns)), np.float32)
    room = Room.of(len(files), width)

    def read(groups: list[RowGroup], start: int, stop: int) -> None:
        with closing(room.stream(groups, start=0, width=width)) as stream:
            while start < stop:
                part = stream.read(min(room.buffer_rows, stop - start))
                x_NF[start : start + len(part.x_BF)] = part.x_BF if columns is None else part.x_BF[:, columns]
                start += len(part.x_BF)

    with ThreadPoolExecutor(READERS, thread_name_prefix="reader") as pool:
        list(pool.map(read, owned, ends[:-1], ends[1:]))
    return [x_NF[start:stop] for start, stop in pairwise(ends)]
