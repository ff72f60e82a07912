"""The learned code's coordinates after the training: distances that mean something, mean 0, and a mean variance of 1.

The losses are the same for a code in other coordinates, whose decoders take them back. So coordinates are free, and are
chosen here.

Shapes: B rows, F inputs, L learned dimensions.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import gelu

from userrep.model.tensor_file import Tensors

_ENCODER, _READERS = ("encoder_linear", "encoder_latent"), ("decoder_hidden", "item_query", "next_days")


def standardized_code(weights: Tensors, x_BF: NDArray[np.float32]) -> Tensors:
    """Return weights of the code in its final coordinates, which predict the same of it.

    A linear decoder D gives the coordinates (D'D)^(1/4) z: distances of users halfway between those of the code as it
    was trained and those of the inputs that are reconstructed from it. Then all dimensions are shifted, and share one
    scale. ``x_BF``: scaled training rows, some thousands. What rows ask for changes by a constant that goes into the
    items' worth.
    """
    wide = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    if "decoder_hidden.weight" not in wide:
        _to_decoders_distances(wide)
    x_BF = x_BF.astype(np.float64)
    code_BL = x_BF @ wide["encoder_linear.weight"].T + wide["encoder_linear.bias"]
    if "encoder_hidden.weight" in wide:
        h_BH = torch.from_numpy(x_BF @ wide["encoder_hidden.weight"].T + wide["encoder_hidden.bias"])
        code_BL += gelu(h_BH).numpy() @ wide["encoder_latent.weight"].T
    mean_L, scale = code_BL.mean(axis=0), max(float(np.sqrt(code_BL.var(axis=0).mean())), 1e-9)
    wide["encoder_linear.bias"] -= mean_L
    for name in _ENCODER:
        for part in ("weight", "bias"):
            if f"{name}.{part}" in wide:
                wide[f"{name}.{part}"] /= scale
    readers = [name for name in _READERS if f"{name}.weight" in wide]
    if "decoder_hidden" not in readers:
        readers.append("decoder_output")
    for name in readers:
        shift = wide[f"{name}.weight"] @ mean_L
        wide[f"{name}.weight"] *= scale
        if f"{name}.bias" in wide:
            wide[f"{name}.bias"] += shift
        else:
            wide["item_worth.weight"] += shift
    return {name: tensor.astype(np.float32) for name, tensor in wide.items()}


def _to_decoders_distances(wide: dict[str, NDArray[np.float64]]) -> None:
    """Move the code and all that reads it to the coordinates (D'D)^(1/4) z."""
    decoder_FL = wide["decoder_output.weight"]
    square_L, axes_LL = np.linalg.eigh(decoder_FL.T @ decoder_FL)
    root_L = np.maximum(square_L, max(1e-6 * square_L[-1], 1e-30)) ** 0.25
    there_LL, back_LL = ((axes_LL * factor_L) @ axes_LL.T for factor_L in (root_L, 1 / root_L))
    wide["encoder_linear.bias"] = there_LL @ wide["encoder_linear.bias"]
    for name in _ENCODER:
        if f"{name}.weight" in wide:
            wide[f"{name}.weight"] = there_LL @ wide[f"{name}.weight"]
    for name in (*_READERS, "decoder_output"):
        if f"{name}.weight" in wide:
            wide[f"{name}.weight"] = wide[f"{name}.weight"] @ back_LL
