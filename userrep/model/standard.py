"""Final coordinates of the learned code: meaningful distances, mean 0 and a mean variance of 1.

The losses do not change if the code is transformed linearly and the decoders invert the transformation. The coordinates
are therefore arbitrary after training, and are chosen here.

Shapes: B rows, F inputs, H hidden units, L learned dimensions.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import gelu

from userrep.model.frozen_folder import Tensors

_CODE = ("encoder_linear.weight", "encoder_linear.bias", "encoder_latent.weight")  # their outputs add up to the code
_READERS = ("decoder_hidden", "item_query", "next_days")  # layers that read the code; a linear decoder_output does too


def standardized_code(weights: Tensors, x_BF: NDArray[np.float32]) -> Tensors:
    """Return the weights with the code in its final coordinates; reconstructions and predictions stay the same.

    With a linear decoder D, the new coordinates are (D'D)^(1/4) z. Distances between users are then halfway between
    those of the trained code and those of the reconstructed inputs. Next, each dimension is shifted to mean 0 and all
    are divided by one common scale. ``x_BF`` is a sample of scaled training rows, a few thousand. Shifting the code
    changes item queries by a constant, which is added to ``item_worth``.
    """
    wide = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    code, readers = [name for name in _CODE if name in wide], [name for name in _READERS if f"{name}.weight" in wide]
    if "decoder_hidden" not in readers:
        readers.append("decoder_output")
        _move_to_decoder_metric(wide, code, readers)
    x_BF = x_BF.astype(np.float64)
    code_BL = x_BF @ wide["encoder_linear.weight"].T + wide["encoder_linear.bias"]
    if "encoder_hidden.weight" in wide:
        h_BH = torch.from_numpy(x_BF @ wide["encoder_hidden.weight"].T + wide["encoder_hidden.bias"])
        code_BL += gelu(h_BH).numpy() @ wide["encoder_latent.weight"].T
    mean_L, scale = code_BL.mean(axis=0), max(float(np.sqrt(code_BL.var(axis=0).mean())), 1e-9)
    wide["encoder_linear.bias"] -= mean_L
    for name in code:
        wide[name] /= scale
    for name in readers:
        shift = wide[f"{name}.weight"] @ mean_L
        wide[f"{name}.weight"] *= scale
        wide[f"{name}.bias" if f"{name}.bias" in wide else "item_worth.weight"] += shift
    return {name: tensor.astype(np.float32) for name, tensor in wide.items()}


def _move_to_decoder_metric(wide: dict[str, NDArray[np.float64]], code: list[str], readers: list[str]) -> None:
    """Transform the code and every layer that reads it to the coordinates (D'D)^(1/4) z."""
    decoder_FL = wide["decoder_output.weight"]
    square_L, axes_LL = np.linalg.eigh(decoder_FL.T @ decoder_FL)
    root_L = np.maximum(square_L, max(1e-6 * square_L[-1], 1e-30)) ** 0.25
    transform_LL, inverse_LL = ((axes_LL * factor_L) @ axes_LL.T for factor_L in (root_L, 1 / root_L))
    for name in code:
        wide[name] = transform_LL @ wide[name]
    for name in readers:
        wide[f"{name}.weight"] = wide[f"{name}.weight"] @ inverse_LL
