"""The autoencoder: encodes a user's inputs to an embedding, reconstructs the inputs and predicts the user's next days.

With a hidden layer and without the next-days predictions, this is the autoencoder of the paper (section 3.2). The
encoder is linear by default, because a hidden layer did not improve a code that predicts the next days
(docs/decisions/quality.md).

Shapes: B rows, F inputs, H hidden units, D latent dimensions, of which L are learned, K tastes and P propensities,
E dimensions of an item vector, N numeric and flag targets of the next days. Propensities read S counts and their
G hinges.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, relu

from userrep import config
from userrep.features.layout import InputLayout
from userrep.features.targets import TargetLayout
from userrep.model.frozen_folder import Tensors
from userrep.model.weights import FITTED_OUTSIDE, weight_shapes


class Outputs(NamedTuple):
    """Outputs that the losses compare with the targets. A part that the model does not predict has width 0.

    ``query_BE`` is the row's query against item vectors. ``worth_E`` scores items independently of the row.
    """

    reconstruction_BF: Tensor
    query_BE: Tensor
    worth_E: Tensor
    next_days_BN: Tensor


class Autoencoder(nn.Module):
    """A linear encoder with an optional GELU branch, and decoders that are linear or have one hidden layer.

    Decoders read only the learned dimensions. Tastes and propensities are zero until they are fitted, outside training
    (see ``tastes`` and ``propensities``). Initial weights depend only on ``seed``; torch's global generator is unused.
    """

    encoder_linear: nn.Linear
    encoder_hidden: nn.Linear  # this layer and those below exist only if the model has them
    encoder_latent: nn.Linear
    decoder_hidden: nn.Linear
    decoder_output: nn.Linear
    item_query: nn.Linear
    item_worth: nn.Linear
    next_days: nn.Linear
    taste_KF: Tensor
    taste_K: Tensor
    propensity_PF: Tensor
    propensity_PG: Tensor
    propensity_P: Tensor
    propensity_knot_KS: Tensor

    def __init__(self, layout: InputLayout, model: config.Model, targets: TargetLayout, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shapes = weight_shapes(layout, model, targets)
        for name in (name.removesuffix(".weight") for name in shapes if name.endswith(".weight")):
            width_out, width_in = shapes[f"{name}.weight"]
            self.add_module(name, _linear(width_in, width_out, generator, bias=f"{name}.bias" in shapes))
        if "item_worth.weight" in shapes:
            nn.init.zeros_(self.item_worth.weight)
        self._counts = layout.counts
        for name in (name for name in shapes if name.startswith(FITTED_OUTSIDE)):
            self.register_buffer(name, torch.zeros(shapes[name]))
        self.has_tastes, self.has_propensities = hasattr(self, "taste_KF"), hasattr(self, "propensity_PF")

    def encode(self, x_BF: Tensor) -> Tensor:
        """Return z_BD: the learned code, the tastes, and the propensities."""
        parts = [self.code(x_BF)]
        if self.has_tastes:
            parts.append(linear(x_BF, self.taste_KF, self.taste_K))
        if self.has_propensities:
            hinge_BG = relu(x_BF[:, None, self._counts] - self.propensity_knot_KS).flatten(1)
            parts.append(linear(x_BF, self.propensity_PF, self.propensity_P) + linear(hinge_BG, self.propensity_PG))
        return torch.cat(parts, dim=1)

    def code(self, x_BF: Tensor, keep_BH: Tensor | None = None) -> Tensor:
        """Return code_BL, the learned dimensions."""
        code_BL: Tensor = self.encoder_linear(x_BF)
        if not hasattr(self, "encoder_hidden"):
            return code_BL
        h_BH = gelu(self.encoder_hidden(x_BF))
        hidden_BL: Tensor = self.encoder_latent(h_BH if keep_BH is None else h_BH * keep_BH)
        return code_BL + hidden_BL

    def forward(self, x_BF: Tensor, keep_BH: Tensor | None = None) -> Outputs:
        """Encode, reconstruct and predict.

        ``keep_BH`` is the dropout mask of the hidden layer, with values 0 or 1 / (1 - dropout). It is an argument
        because it is keyed by row (see ``corruption``); torch's dropout would depend on the number of ranks.
        """
        code_BL = self.code(x_BF, keep_BH)
        empty_B0 = code_BL[:, :0]
        hidden_BH = gelu(self.decoder_hidden(code_BL)) if hasattr(self, "decoder_hidden") else code_BL
        has_items = hasattr(self, "item_query")
        return Outputs(
            self.decoder_output(hidden_BH),
            self.item_query(code_BL) if has_items else empty_B0,
            self.item_worth.weight[0] if has_items else empty_B0[0],
            self.next_days(code_BL) if hasattr(self, "next_days") else empty_B0,
        )


def drawn_weights(layout: InputLayout, model: config.Model, targets: TargetLayout, *, seed: int) -> Tensors:
    """Return the initial weights that ``Autoencoder`` draws from a seed, by name."""
    state = Autoencoder(layout, model, targets, seed=seed).state_dict()
    return {name: tensor.numpy() for name, tensor in state.items()}


def _linear(width_in: int, width_out: int, generator: torch.Generator, *, bias: bool) -> nn.Linear:
    """Return a layer with torch's default initialization, drawn from ``generator``."""
    # The constructor draws weights that are overwritten below. The `meta` device would skip that, but imports sympy.
    with torch.random.fork_rng(devices=[]):
        layer = nn.Linear(width_in, width_out, bias=bias)
    bound = width_in**-0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer
