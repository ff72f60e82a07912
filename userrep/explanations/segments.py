"""Segments of users: k-means on vectors, and the identity of segments from one snapshot or space to the next.

Shapes: N users, D dimensions, S segments, P previous segments, Q dimensions of the previous space.
"""

from collections.abc import Callable, Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.cluster import MiniBatchKMeans

from userrep.errors import UsageError

_SEED = 17
_BATCH_ROWS = 4_096
_STARTS = 10  # of which the best is kept

Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Convert = Callable[[Floats32], Floats32]  # vectors of a space to the coordinates of the previous one


def fit_centers(z_ND: Floats32, num_segments: int, seeds_SD: Floats32 | None = None) -> Floats32:
    """Fit k-means to a sample of vectors; return the centers, largest segment first, or in the order of the seeds.

    ``seeds_SD``: centers to start from, so that segments stay what they were if users have moved little.

    Raises
    ------
    UsageError
        If the sample has fewer vectors than segments.
    """
    if len(z_ND) < num_segments:
        raise UsageError(f"--segments {num_segments}: more than the {len(z_ND)} users. Choose fewer.")
    init, num_starts = ("k-means++", _STARTS) if seeds_SD is None else (seeds_SD, 1)
    model = MiniBatchKMeans(
        num_segments, init=init, n_init=num_starts, batch_size=_BATCH_ROWS, random_state=_SEED,
        reassignment_ratio=0,  # keeps seeds in their places
    )  # fmt: skip
    centers_SD = np.asarray(model.fit(z_ND).cluster_centers_, np.float32)
    if seeds_SD is not None:
        return centers_SD
    sizes_S = np.bincount(nearest(z_ND, centers_SD), minlength=num_segments)
    return centers_SD[np.argsort(-sizes_S, kind="stable")]


def nearest(z_ND: Floats32, centers_SD: Floats32) -> Ints:
    """Return the index of the center nearest to each vector. Memory: N x S numbers."""
    return np.asarray((np.square(centers_SD).sum(axis=1) - 2 * (z_ND @ centers_SD.T)).argmin(axis=1), np.int64)


def seeds(z_ND: Floats32, centers_PQ: Floats32, convert: Convert) -> Floats32 | None:
    """Return the mean vector of the users nearest to each previous center; None if a center has no user."""
    segment_N = nearest(convert(z_ND), centers_PQ)
    size_P = np.bincount(segment_N, minlength=len(centers_PQ))
    if not size_P.all():
        return None
    sum_PD = np.zeros((len(centers_PQ), z_ND.shape[1]))
    np.add.at(sum_PD, segment_N, z_ND)
    return (sum_PD / size_P[:, None]).astype(np.float32)


def match(centers_SQ: Floats32, previous_PQ: Floats32) -> dict[int, int]:
    """Match segments to previous ones in the same coordinates: index of the previous segment by index of the segment.

    The matching with the smallest sum of squared distances (Kuhn 1955, the Hungarian method), of which a pair is kept
    if no other previous center is nearer. Other segments are new, or have ended.
    """
    distance_SP = cdist(centers_SQ, previous_PQ, "sqeuclidean")
    near_S = distance_SP.argmin(axis=1)
    return {int(s): int(p) for s, p in zip(*linear_sum_assignment(distance_SP), strict=True) if near_S[s] == p}


def ids_of(num_segments: int, matched: dict[int, int], previous: Sequence[str], num_used: int) -> list[str]:
    """Return the ids of segments: those of the matched ``previous`` ones, else new ones after ``num_used``."""
    new = count(num_used + 1)
    return [previous[matched[s]] if s in matched else f"s{next(new):02d}" for s in range(num_segments)]
