"""Initial weights of a training: the code begins as the principal components of the inputs.

From random weights, the few steps of a training on a small log would not reach what PCA knows without any
(docs/decisions/quality-measurements.md).

Shapes: B rows, F inputs, L learned dimensions, C components.
"""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from userrep import config
from userrep.features.layout import InputLayout
from userrep.features.targets import TargetLayout
from userrep.model.autoencoder import drawn_weights
from userrep.model.frozen_folder import Tensors


def principal_start(
    layout: InputLayout, targets: TargetLayout, model: config.Model, x_BF: NDArray[np.float32], *, seed: int
) -> Tensors:
    """Return initial weights by name; those that PCA does not determine are drawn from ``seed``, as in ``Autoencoder``.

    With a linear decoder, encoder and decoder are the first L principal axes of ``x_BF``, a sample of scaled training
    rows. Their coordinates are rotated at random, so that all dimensions have similar variance, as with random weights.
    With a hidden layer in the decoder, as in the paper, all weights are drawn. Cost: an eigendecomposition of F x F.
    """
    tensors = drawn_weights(layout, model, targets, seed=seed)
    if model.decoder_dim:
        return tensors
    num_learned = len(tensors["encoder_linear.bias"])
    mean_F = x_BF.mean(axis=0, dtype=np.float64)
    centered_BF = x_BF - mean_F
    with threadpool_limits(1, user_api="blas"):  # the same bits on any number of cores
        _, ascending_FF = np.linalg.eigh(centered_BF.T @ centered_BF)
        axes_FC = ascending_FF[:, ::-1][:, :num_learned]
        encoder_LF = random_rotation(num_learned, seed=seed)[:, : axes_FC.shape[1]] @ axes_FC.T
    fitted = {
        "encoder_linear.weight": encoder_LF, "encoder_linear.bias": -encoder_LF @ mean_F,
        "decoder_output.weight": encoder_LF.T, "decoder_output.bias": mean_F,
    }  # fmt: skip
    return tensors | {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in fitted.items()}


def random_rotation(size: int, *, seed: int) -> NDArray[np.float64]:
    """Return an orthogonal matrix: in its coordinates, all principal components mix, so none is the weakest."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]
