"""The model: a user's inputs to a short code, and from the code back to the inputs and on to the user's next days.

With a hidden layer and without next days it is the autoencoder of the paper (section 3.2). By default the encoder is
linear: a hidden layer added nothing to a code that predicts the next days (docs/decisions/quality.md).

Shapes: B rows, F inputs, H hidden units, D latent dimensions, of which L are learned and P are propensities; E numbers
of an item, N numbers and flags of the next days.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from userrep import config
from userrep.features.layout import InputLayout
from userrep.features.targets import TargetLayout
from userrep.model.weights import propensities_of, weight_shapes


class Outputs(NamedTuple):
    """What training compares with rows. ``query_BE``: the items that a row asks for; ``worth_E``: shared by all rows.

    Parts that the model does not predict have width 0.
    """

    reconstruction_BF: Tensor
    query_BE: Tensor
    worth_E: Tensor
    next_days_BN: Tensor


class Autoencoder(nn.Module):
    """A linear encoder, plus a hidden layer (GELU) if there is one; decoders are linear or have a hidden layer.

    Propensities are fitted after the training (``propensities``); until then they are zeros. Decoders read the learned
    dimensions only. Weights follow from ``seed`` alone; torch's global generator is not touched.
    """

    encoder_linear: nn.Linear
    encoder_hidden: nn.Linear  # this and all below: only where the model has it
    encoder_latent: nn.Linear
    decoder_hidden: nn.Linear
    decoder_output: nn.Linear
    item_query: nn.Linear
    item_worth: nn.Linear
    next_days: nn.Linear
    propensity_PF: Tensor
    propensity_P: Tensor

    def __init__(self, layout: InputLayout, model: config.Model, targets: TargetLayout, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shapes = weight_shapes(layout, model, targets)
        for name in (name.removesuffix(".weight") for name in shapes if name.endswith(".weight")):
            width_out, width_in = shapes[f"{name}.weight"]
            self.add_module(name, _linear(width_in, width_out, generator, bias=f"{name}.bias" in shapes))
        if "item_worth.weight" in shapes:
            nn.init.zeros_(self.item_worth.weight)
        self.has_propensities = bool(propensities_of(targets, model))
        if self.has_propensities:
            for name in ("propensity_PF", "propensity_P"):
                self.register_buffer(name, torch.zeros(shapes[name]))

    def encode(self, x_BF: Tensor) -> Tensor:
        """Return z_BD: the learned code, then the propensities."""
        code_BL = self.code(x_BF)
        if not self.has_propensities:
            return code_BL
        return torch.cat([code_BL, linear(x_BF, self.propensity_PF, self.propensity_P)], dim=1)

    def code(self, x_BF: Tensor, keep_BH: Tensor | None = None) -> Tensor:
        """Return the learned code, code_BL."""
        code_BL: Tensor = self.encoder_linear(x_BF)
        if not hasattr(self, "encoder_hidden"):
            return code_BL
        h_BH = gelu(self.encoder_hidden(x_BF))
        hidden_BL: Tensor = self.encoder_latent(h_BH if keep_BH is None else h_BH * keep_BH)
        return code_BL + hidden_BL

    def forward(self, x_BF: Tensor, keep_BH: Tensor | None = None) -> Outputs:
        """Encode, reconstruct and predict. ``keep_BH``: dropout of the hidden layer, 0 or 1 / (1 - share dropped).

        The mask comes from outside because it is keyed by row (see ``corruption``): torch's own dropout would differ
        with the number of ranks.
        """
        code_BL = self.code(x_BF, keep_BH)
        none_B0 = code_BL[:, :0]
        hidden_BH = gelu(self.decoder_hidden(code_BL)) if hasattr(self, "decoder_hidden") else code_BL
        has_items = hasattr(self, "item_query")
        return Outputs(
            self.decoder_output(hidden_BH),
            self.item_query(code_BL) if has_items else none_B0,
            self.item_worth.weight[0] if has_items else none_B0[0],
            self.next_days(code_BL) if hasattr(self, "next_days") else none_B0,
        )


def _linear(width_in: int, width_out: int, generator: torch.Generator, *, bias: bool) -> nn.Linear:
    """Return a layer with torch's usual initialisation, drawn from ``generator``."""
    with torch.random.fork_rng(devices=[]):  # torch draws weights, which are not used; its `meta` device imports sympy
        layer = nn.Linear(width_in, width_out, bias=bias)
    bound = width_in**-0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer
