"""Standardization of the learned code: mean 0 in every dimension, and a variance of 1 on average over them.

Shapes: B rows, F inputs, L learned dimensions.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import gelu

from userrep.model.tensor_file import Tensors

_ENCODER, _READERS = ("encoder_linear", "encoder_latent"), ("decoder_hidden", "item_query", "next_days")


def standardized_code(weights: Tensors, x_BF: NDArray[np.float32]) -> Tensors:
    """Return weights whose code is shifted and scaled, and which predict the same of it.

    All dimensions share one scale, so their relative variances stay as trained. ``x_BF``: scaled training rows, some
    thousands. What rows ask for changes by a constant that goes into the items' worth.
    """
    wide = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
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
