"""The factorization of one version's interactions in one process, by the library ``implicit``.

Shapes: N rows of interactions, U users, I item numbers (0 up to the largest), D factors.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from userrep.config import AlsVectors

_BYTES_PER_ROW = 96  # of interactions, at the peak of a fit: 85 were measured with 8 million rows
_START_LENGTH = 0.1  # of initial factors: with longer ones the fit stays closer to its start, at the price of quality
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_COPIES = 2  # of the factors of users and items


def event_counts(rows: pa.Table, num_items: int) -> csr_matrix:
    """Return the events of each user and item, float32 UI; rows of a user and an item are added up.

    ``rows``: user_hash, item_index, num_events, in any order. Users without rows have none here.
    """
    users, user_N = np.unique(rows.column("user_hash").to_numpy(), return_inverse=True)
    cells = user_N.astype(np.int32), rows.column("item_index").to_numpy()
    num_events_N = rows.column("num_events").to_numpy().astype(np.float32)
    counts_UI = csr_matrix((num_events_N, cells), shape=(len(users), num_items))
    counts_UI.sum_duplicates()  # whole numbers: the order of the rows does not change the sums
    return counts_UI


def initial_factors(before_ID: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return short factors to start from: the directions of the version before, and random ones for items it lacks.

    Zeros in ``before_ID`` mark these items. An item's random direction depends on its number and the seed only.
    """
    random_ID = np.random.default_rng(seed).standard_normal(before_ID.shape, dtype=np.float32)
    is_new_I = ~before_ID.any(axis=1, keepdims=True)
    start_ID = np.where(is_new_I, random_ID / np.sqrt(before_ID.shape[1]), before_ID)
    return (_START_LENGTH * start_ID).astype(np.float32)


def fit_item_factors(
    counts_UI: csr_matrix, start_ID: NDArray[np.float32], *, settings: AlsVectors, num_threads: int
) -> NDArray[np.float32]:
    """Return the item factors after ``iterations`` rounds from ``start_ID``; zeros for items without an event.

    The confidence in a pair is 1 + alpha log(1 + events). The ridge is ``regularization`` times the mean number of
    pairs of a user or an item, so that it means the same on logs of all sizes. The same bits for the same input on the
    same machine, whatever the number of threads: each factor is solved by one of them.
    """
    from implicit.cpu.als import AlternatingLeastSquares  # on workers only: 0.3 s

    num_factors = counts_UI.shape[0] + np.count_nonzero(np.bincount(counts_UI.indices))
    confidence_UI = counts_UI.copy()
    confidence_UI.data = 1 + np.float32(settings.alpha) * np.log1p(counts_UI.data)
    with threadpool_limits(1, user_api="blas"):
        model = AlternatingLeastSquares(
            factors=settings.dim,
            regularization=settings.regularization * 2 * counts_UI.nnz / max(1, num_factors),
            iterations=settings.iterations,
            num_threads=num_threads,
        )
        model.item_factors = start_ID.copy()
        model.user_factors = np.zeros((counts_UI.shape[0], settings.dim), np.float32)  # solved first, from the items
        model.fit(confidence_UI, show_progress=False)
    return np.asarray(model.item_factors)


def needed_bytes(num_rows: int, num_factors: int, dim: int) -> int:
    """Return about how much memory a fit takes at its peak: of interactions, and of the factors of users and items."""
    return _BYTES_PER_ROW * num_rows + 4 * _COPIES * num_factors * dim


def free_bytes() -> int:
    """Return the memory that this process may still take: the machine's, or its container's if that is less.

    0 if it is unknown, as it is on other systems than Linux.
    """
    free = 1024 * int(_text(_MEMINFO).partition("MemAvailable:")[2].partition("kB")[0] or 0)
    limit = _text(_CGROUP / "memory.max").strip()
    if limit.isdigit():
        free = min(free, int(limit) - int(_text(_CGROUP / "memory.current") or 0))
    return free


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii") if path.exists() else ""


def largest(column: pa.ChunkedArray) -> int:
    """Return the largest value of a column of whole numbers, -1 of none."""
    found = pc.max(column).as_py()
    return -1 if found is None else int(found)
