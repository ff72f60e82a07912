"""Tastes: principal axes of a user's mean item text, as dimensions of the embedding.

A code that must predict the next days spreads its distances over all that it knows, so the items of a user's nearest
neighbors by cosine are less similar than those of neighbors by the mean text of the user's items. A fifth of the
dimensions are therefore the principal axes of these means over the longest window, the history and the picks, with most
of a vector's length. They are not centered: a user of many interests is near the mean of all users, and the direction
of a small difference from it is mostly noise. Models that standardize each dimension are not affected by the length.

Shapes: B rows, F inputs, M inputs of ``InputLayout.means``, K tastes.
"""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from userrep.features.layout import InputLayout, Scaler
from userrep.model.frozen_folder import Tensors
from userrep.model.principal_start import random_rotation

_SHARE = 64.0  # of a vector's mean squared length: tastes to all other dimensions
_PICKS = 0.25  # length of the picks' mean, where that of events is 1: later items say more


def fitted_tastes(
    layout: InputLayout, scaler: Scaler, x_BF: NDArray[np.float32], *, num_tastes: int, latent_dim: int, seed: int
) -> Tensors:
    """Return taste_KF and taste_K, the weights of the tastes on scaled inputs, and their bias.

    With K = M, cosines are those of the means side by side: unit vectors of events, and shorter ones of picks. An
    absent one is the mean of all users. The axes are rotated at random, so that all dimensions have similar variance.
    Cost: an eigendecomposition of M x M.
    """
    inputs_M = np.concatenate([np.arange(block.start, block.stop) for block in layout.means])
    length_M = np.concatenate([np.full(block.width, _PICKS if block.newcomer else 1.0) for block in layout.means])
    scale_M, center_M = length_M * scaler.scale_F[inputs_M], length_M * scaler.center_F[inputs_M]
    mean_BM = center_M + scale_M * x_BF[:, inputs_M]
    with threadpool_limits(1, user_api="blas"):  # the same bits on any number of cores
        squared_M, ascending_MM = np.linalg.eigh(mean_BM.T @ mean_BM / len(mean_BM))
        length = np.sqrt(_SHARE * (latent_dim - num_tastes) / max(squared_M[-num_tastes:].sum(), 1e-12))
        weight_KM = length * random_rotation(num_tastes, seed=seed) @ ascending_MM[:, -num_tastes:].T
    taste_KF = np.zeros((num_tastes, layout.width))
    taste_KF[:, inputs_M] = weight_KM * scale_M
    return {"taste_KF": taste_KF.astype(np.float32), "taste_K": (weight_KM @ center_M).astype(np.float32)}
