"""The coordinates of a latent space: what training leaves open, and consumers feel.

An autoencoder is as good in any coordinates of its latent space, since decoders make up for them. Consumers are not:
heads standardise and shrink each dimension by itself, cosines add them up. Training ends in coordinates in which what
hardly matters may vary as much as what matters most, and a head then has to find a little signal in many loud
dimensions.

So a trained space is moved into coordinates in which the squared distance of two codes is that of what can be read from
them linearly about the inputs. Of all that do, those nearest to the ones before are taken (the symmetric root): there
is nothing to choose, and a space that begins with another's weights stays near it. Dimensions that carry inputs stay as
they are.
Shapes: B rows, F inputs, D latent dimensions, H hidden units.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from userrep.features.layout import InputLayout
from userrep.model.autoencoder import Autoencoder
from userrep.model.tensor_file import Tensors

ROWS = 16_384  # that coordinates are measured on
_POOLED, _OTHER = 1.0, 0.2  # what a block counts: its deviation, all its inputs together
_FLOOR = 1e-6  # of the largest: what says next to nothing keeps a thousandth of its length
_RIDGE = 1e-6

Matrix = NDArray[np.float64]


class Coordinates(NamedTuple):
    """New coordinates of a code z are ``(z - mean_D) @ to_DD``."""

    mean_D: Matrix
    to_DD: Matrix


def in_readable_coordinates(
    autoencoder: Autoencoder, weights: Tensors, layout: InputLayout, x_BF: NDArray[np.float32]
) -> Tensors:
    """Return weights that compute the same reconstructions and predictions from codes in readable coordinates.

    ``x_BF``: scaled training rows, some thousands. Afterwards learned dimensions have mean zero, and variance one in
    the mean over all of them. Cost: a second for 16,384 rows.
    """
    autoencoder.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in weights.items()})
    with torch.inference_mode():
        z_BD = autoencoder.encode(torch.from_numpy(x_BF)).double().numpy()
    carried = autoencoder.num_carried
    learned = coordinates(z_BD[:, carried:], x_BF.astype(np.float64), layout)
    to_DD = np.eye(z_BD.shape[1])
    to_DD[carried:, carried:] = learned.to_DD
    return moved(weights, Coordinates(np.pad(learned.mean_D, (carried, 0)), to_DD))


def coordinates(z_BD: Matrix, x_BF: Matrix, layout: InputLayout) -> Coordinates:
    """Measure what codes say of the inputs: by least squares, each block as heavy as its kind.

    Each vector of items counts as ``_POOLED``, all else, numbers for the most part, as ``_OTHER``: there are many of
    them, and they say much the same.
    """
    weight_F = np.zeros(layout.width)
    for block in layout.blocks:
        weight = _POOLED if block.kind == "pooled" else _OTHER
        weight_F[block.start : block.stop] = weight / np.sqrt(block.stop - block.start)
    mean_D = z_BD.mean(axis=0)
    centred_BD = z_BD - mean_D
    covariance_DD = centred_BD.T @ centred_BD / len(z_BD)
    shared_DF = centred_BD.T @ ((x_BF - x_BF.mean(axis=0)) * weight_F) / len(z_BD)
    ridge = _RIDGE * max(float(np.trace(covariance_DD)) / len(mean_D), _RIDGE)
    read_DF = np.linalg.solve(covariance_DD + ridge * np.eye(len(mean_D)), shared_DF)
    squares_D, axes_DD = np.linalg.eigh(read_DF @ read_DF.T)
    root_D = np.sqrt(np.maximum(squares_D, max(squares_D[-1], _RIDGE) * _FLOOR))
    to_DD = (axes_DD * root_D) @ axes_DD.T
    variance = float(np.trace(to_DD @ covariance_DD @ to_DD)) / len(mean_D)
    return Coordinates(mean_D, to_DD / np.sqrt(max(variance, _RIDGE)))


def moved(weights: Tensors, new: Coordinates) -> Tensors:
    """Move the codes that weights make and read into new coordinates."""
    wide = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    back_DD = np.linalg.inv(new.to_DD)
    for name in ("encoder_latent.weight", "encoder_skip.weight"):
        wide[name] = new.to_DD.T @ wide[name]
    wide["encoder_latent.bias"] = new.to_DD.T @ (wide["encoder_latent.bias"] - new.mean_D)
    for layer in ("decoder_hidden", "future_hidden"):
        if f"{layer}.weight" in wide:
            weight_HD = wide[f"{layer}.weight"]
            wide[f"{layer}.bias"] += weight_HD @ new.mean_D
            wide[f"{layer}.weight"] = weight_HD @ back_DD.T
    return {name: tensor.astype(np.float32) for name, tensor in wide.items()}
