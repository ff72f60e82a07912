"""Tastes: principal axes of a user's mean item text, as dimensions of the embedding.

A code that must predict the next days spreads its distances over all that it knows, so a user's nearest neighbors by
cosine share less of the taste than those by the mean text of the user's items. A fifth of the dimensions are therefore
the principal axes of these means over the longest window and the history, with most of a vector's length. They are not
centered: a user of many interests is near the mean of all users, and the direction of a small difference from it is
mostly noise. Probes and models that standardize each dimension are not affected by the length.

Shapes: B rows, F inputs, M inputs that describe taste, K tastes.
"""

import numpy as np
from numpy.typing import NDArray

from userrep.features.layout import InputLayout, Scaler
from userrep.model.frozen_folder import Tensors
from userrep.model.principal_start import random_rotation

_SHARE = 64.0  # of a vector's mean squared length: tastes to all other dimensions


def fitted_tastes(
    layout: InputLayout, scaler: Scaler, x_BF: NDArray[np.float32], *, num_tastes: int, latent_dim: int, seed: int
) -> Tensors:
    """Return taste_KF and taste_K, the weights of the tastes on the inputs, and their bias.

    The first K - 1 principal axes of the unit vectors, and their mean as one more axis, are rotated at random, so that
    no dimension is constant. An absent mean counts as that of all users. Cost: an eigendecomposition of M x M.
    """
    inputs_M = np.concatenate([np.arange(block.start, block.stop) for block in layout.tastes])
    scale_M, center_M = scaler.scale_F[inputs_M].astype(np.float64), scaler.center_F[inputs_M].astype(np.float64)
    centered_BM = x_BF[:, inputs_M] * scale_M
    mean_M = center_M + centered_BM.mean(axis=0)
    centered_BM -= centered_BM.mean(axis=0)
    _, ascending_MM = np.linalg.eigh(centered_BM.T @ centered_BM)
    axes_MC = ascending_MM[:, ::-1][:, : num_tastes - 1]
    squared = np.square(centered_BM @ axes_MC).sum(axis=1).mean() + mean_M @ mean_M
    length = np.sqrt(_SHARE * (latent_dim - num_tastes) / max(squared, 1e-12))
    rotation_KK = random_rotation(num_tastes, seed=seed) * length
    weight_KM = rotation_KK[:, :-1] @ axes_MC.T
    taste_KF = np.zeros((num_tastes, layout.width))
    taste_KF[:, inputs_M] = weight_KM * scale_M
    taste_K = rotation_KK[:, -1] * np.linalg.norm(mean_M) - weight_KM @ (mean_M - center_M)
    return {"taste_KF": taste_KF.astype(np.float32), "taste_K": taste_K.astype(np.float32)}
