"""Users' factors given the items': regularised least squares, one small system a row.

Shapes: N rows, I items, D factors, E entries of a sparse matrix.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float64]

_CHUNK = 512  # rows whose D x D systems are in memory at once: 26 MB with 80 factors


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
    """Solve the normal equations of each row for its factors x_ND, from the factors ``item_ID`` of what it has met.

    Of a row they are ``(zeros G + sum of left y y' + ridge n) x = sum of right y``, summed over the factors y of its n
    entries in ``counts_NI``, in whose order ``left_E`` and ``right_E`` lie. G, ``gram_DD``, is the sum of y y' over all
    items: ``zeros_N`` weighs the wish that a row's product with every item be zero. Rows without an entry are zeros.
    Cost: N x D^3 + E x D^2 multiplications, in float64, on one core.
    """
    num_rows, dim = counts_NI.shape[0], item_ID.shape[1]
    x_ND = np.zeros((num_rows, dim))
    starts, items_E = counts_NI.indptr, counts_NI.indices
    num_N = np.diff(starts)
    with threadpool_limits(1):  # the systems are small, and sums then don't depend on the number of cores
        for first in range(0, num_rows, _CHUNK):
            rows = first + np.flatnonzero(num_N[first : first + _CHUNK])
            left_RDD = zeros_N[rows, None, None] * gram_DD + (ridge * num_N[rows])[:, None, None] * np.eye(dim)
            right_RD = np.empty((len(rows), dim))
            for r, row in enumerate(rows):
                mine = slice(starts[row], starts[row + 1])
                met_ED = item_ID[items_E[mine]]
                left_RDD[r] += (met_ED * left_E[mine, None]).T @ met_ED
                right_RD[r] = right_E[mine] @ met_ED
            x_ND[rows] = np.linalg.solve(left_RDD, right_RD[:, :, None])[:, :, 0]
    return x_ND
