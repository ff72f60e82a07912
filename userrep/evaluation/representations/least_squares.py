"""User factors given item factors: regularized least squares, one small linear system per row.

Shapes: N rows, I items, D factors, E entries of a sparse matrix, R rows of a chunk.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float64]

_CHUNK = 512  # rows solved at once; their D x D systems take 26 MB with 80 factors


def factors_of_rows(
    counts_NI: csr_array,
    left_E: Floats,
    right_E: Floats,
    item_ID: Floats,
    *,
    zeros_N: Floats,
    gram_DD: Floats,
    ridge: float,
) -> Floats:
    """Solve the normal equations of each row for its factors x_ND, given the item factors ``item_ID``.

    The equations of a row are ``(zeros G + sum of left y y' + ridge n) x = sum of right y``. The sums run over the
    factors y of the row's n entries in ``counts_NI``; ``left_E`` and ``right_E`` are in the order of those entries. G
    (``gram_DD``) is the sum of y y' over all items, so ``zeros_N`` weights the pull of a row's product with every item
    towards zero. Rows without an entry are zeros. Cost: N x D^3 + E x D^2 multiplications in float64 on one core.
    """
    num_rows, dim = counts_NI.shape[0], item_ID.shape[1]
    x_ND = np.zeros((num_rows, dim))
    starts, items_E = counts_NI.indptr, counts_NI.indices
    num_N = np.diff(starts)
    with threadpool_limits(1):  # small systems; one thread makes the sums independent of the number of cores
        for first in range(0, num_rows, _CHUNK):
            rows = first + np.flatnonzero(num_N[first : first + _CHUNK])
            left_RDD = zeros_N[rows, None, None] * gram_DD + (ridge * num_N[rows])[:, None, None] * np.eye(dim)
            right_RD = np.empty((len(rows), dim))
            for r, row in enumerate(rows):
                entries = slice(starts[row], starts[row + 1])
                y_ED = item_ID[items_E[entries]]
                left_RDD[r] += (y_ED * left_E[entries, None]).T @ y_ED
                right_RD[r] = right_E[entries] @ y_ED
            x_ND[rows] = np.linalg.solve(left_RDD, right_RD[:, :, None])[:, :, 0]
    return x_ND
