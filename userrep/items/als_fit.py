"""ALS factorization of one version's interactions in one process, with the library ``implicit``.

Shapes: N rows of interactions, U users, I item numbers (0 up to the largest), D factors.
"""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from userrep.config import AlsVectors

_BYTES_PER_ROW = 96  # peak memory per row of interactions during a fit; 85 were measured with 8 million rows
_START_LENGTH = 0.1  # norm of initial factors: longer ones keep the fit closer to its start, but cost quality
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_COPIES = 2  # copies of all factors in memory


def event_counts(rows: pa.Table, num_items: int) -> csr_matrix:
    """Return the events of each user and item, float32 UI. Rows of the same user and item add up.

    ``rows``: user_hash, item_index, num_events, in any order. U contains only users with rows.
    """
    users, user_N = np.unique(rows.column("user_hash").to_numpy(), return_inverse=True)
    cells = user_N.astype(np.int32), rows.column("item_index").to_numpy()
    num_events_N = rows.column("num_events").to_numpy().astype(np.float32)
    counts_UI = csr_matrix((num_events_N, cells), shape=(len(users), num_items))
    counts_UI.sum_duplicates()  # integers, so the order of the rows does not change the sums
    return counts_UI


def initial_factors(before_ID: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return initial factors: short vectors in the directions of ``before_ID``, and random ones for new items.

    New items are zeros in ``before_ID``. An item's random direction depends only on its number and the seed.
    """
    random_ID = np.random.default_rng(seed).standard_normal(before_ID.shape, dtype=np.float32)
    is_new_I = ~before_ID.any(axis=1, keepdims=True)
    start_ID = np.where(is_new_I, random_ID / np.sqrt(before_ID.shape[1]), before_ID)
    return (_START_LENGTH * start_ID).astype(np.float32)


def fit_item_factors(
    counts_UI: csr_matrix, start_ID: NDArray[np.float32], *, settings: AlsVectors, iterations: int, num_threads: int
) -> NDArray[np.float32]:
    """Return the item factors after ``iterations`` rounds from ``start_ID``; zeros for items without an event.

    The confidence in a pair is 1 + alpha log(1 + events). The ridge is ``regularization`` times the mean number of
    pairs of a user or item, so the setting has the same effect on logs of all sizes. The same input gives the same bits
    on the same machine, regardless of the number of threads: each factor is solved by a single thread.
    """
    from implicit.cpu.als import AlternatingLeastSquares  # imported on workers only: takes 0.3 s

    num_factors = counts_UI.shape[0] + np.count_nonzero(np.bincount(counts_UI.indices))
    confidence_UI = counts_UI.copy()
    confidence_UI.data = 1 + np.float32(settings.alpha) * np.log1p(counts_UI.data)
    with threadpool_limits(1, user_api="blas"):
        model = AlternatingLeastSquares(
            factors=settings.dim,
            regularization=settings.regularization * 2 * counts_UI.nnz / max(1, num_factors),
            iterations=iterations,
            num_threads=num_threads,
        )
        model.item_factors = start_ID.copy()
        model.user_factors = np.zeros((counts_UI.shape[0], settings.dim), np.float32)  # solved first, from the items
        model.fit(confidence_UI, show_progress=False)
    return np.asarray(model.item_factors)


def needed_bytes(num_rows: int, num_factors: int, dim: int) -> int:
    """Return the approximate peak memory of a fit: its interactions, and the factors of users and items."""
    return _BYTES_PER_ROW * num_rows + 4 * _COPIES * num_factors * dim


def free_bytes() -> int:
    """Return the memory still available to this process: the machine's, or its container's if that is less.

    0 if unknown, as on systems other than Linux.
    """
    free = 1024 * int(_text(_MEMINFO).partition("MemAvailable:")[2].partition("kB")[0] or 0)
    limit = _text(_CGROUP / "memory.max").strip()
    if limit.isdigit():
        cache = re.search(r"^inactive_file (\d+)", _text(_CGROUP / "memory.stat"), re.MULTILINE)  # freed on demand
        used = int(_text(_CGROUP / "memory.current") or 0) - int(cache[1] if cache else 0)
        free = min(free, max(1, int(limit) - used))
    return free


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii") if path.exists() else ""


def largest(column: pa.ChunkedArray) -> int:
    """Return the largest value of an integer column, -1 if it is empty."""
    value = pc.max(column).as_py()
    return -1 if value is None else int(value)
