"""The autoencoder: a user's inputs to a short code and back (section 3.2 of the paper), and on to the user's next days.

Shapes: B rows, F inputs, H hidden units, D latent dimensions, T targets; K tastes of E numbers each, W = K * E; C
carried dimensions.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, normalize, pad

from userrep import config
from userrep.features.layout import InputLayout
from userrep.model.carried import carried_inputs, carried_tastes
from userrep.model.weights import weight_shapes


class Outputs(NamedTuple):
    """``future_BT`` has no column where the model predicts nothing."""

    reconstruction_BF: Tensor
    future_BT: Tensor


class Autoencoder(nn.Module):
    """Encoder F -> hidden -> latent, decoder latent -> decoder -> F, the same to T for the future, GELU between.

    The latent is the hidden layer's and, beside it, a projection of the inputs (``encoder_skip``): what counts and
    averages say as they are gets through however much of the hidden layer is dropped. Its first ``num_carried``
    dimensions are no more than inputs (see ``carried``), the directions of tastes among them whitened by
    ``whitening_EE``: they don't learn, and decoders don't read them. Weights follow from ``seed`` alone, whitening
    begins with changing nothing; torch's global generator is not touched.
    """

    encoder_hidden: nn.Linear
    encoder_latent: nn.Linear
    encoder_skip: nn.Linear
    decoder_hidden: nn.Linear
    decoder_output: nn.Linear
    future_hidden: nn.Linear
    future_output: nn.Linear
    carried_CF: Tensor
    whitening_EE: Tensor

    def __init__(self, layout: InputLayout, model: config.Model, *, num_targets: int = 0, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shapes = weight_shapes(layout, model, num_targets)
        for name in (name.removesuffix(".weight") for name in shapes if name.endswith(".weight")):
            width_out, width_in = shapes[f"{name}.weight"]
            self.add_module(name, _linear(width_in, width_out, generator, bias=f"{name}.bias" in shapes))
        self.register_buffer("carried_CF", torch.from_numpy(carried_inputs(layout, model)), persistent=False)
        self.num_carried = len(self.carried_CF)
        self.tastes = carried_tastes(layout, model)
        self.register_buffer("whitening_EE", torch.eye(self.tastes.dim))
        self.carry()

    def encode(self, x_BF: Tensor) -> Tensor:
        """Return z_BD: what the layers make, carried tastes whitened."""
        tastes, carried = self.tastes, slice(self.num_carried)
        taste_BW = x_BF[:, : tastes.width]
        whitened_BKE = normalize(taste_BW.reshape(len(x_BF), *tastes) @ self.whitening_EE, dim=2) * tastes.dim**0.5
        change_BW = whitened_BKE.flatten(1) - taste_BW  # what is absent, zeros, stays so
        change_BC = linear(change_BW, self.encoder_skip.weight[carried, : tastes.width])
        return self._latent(x_BF, None) + pad(change_BC, (0, self.encoder_skip.out_features - self.num_carried))

    def _latent(self, x_BF: Tensor, keep_BH: Tensor | None) -> Tensor:
        """Return what decoders read of z_BD, beside it carried inputs as they are."""
        h_BH = gelu(self.encoder_hidden(x_BF))
        if keep_BH is not None:
            h_BH = h_BH * keep_BH
        z_BD: Tensor = self.encoder_latent(h_BH) + self.encoder_skip(x_BF)
        return z_BD

    @torch.no_grad()
    def carry(self) -> None:
        """Make the first dimensions inputs, which decoders don't read: at first, and again after weight decay."""
        carried = slice(self.num_carried)
        self.encoder_skip.weight[carried] = self.carried_CF
        for layer in (self.encoder_latent.weight, self.encoder_latent.bias):
            layer[carried] = 0
        for name in ("decoder_hidden", "future_hidden"):
            if hasattr(self, name):
                getattr(self, name).weight[:, carried] = 0

    def forward(self, x_BF: Tensor, keep_BH: Tensor | None = None) -> Outputs:
        """Encode, reconstruct and predict. ``keep_BH``: dropout of the hidden layer, 0 or 1 / (1 - share dropped).

        The mask comes from outside because it is keyed by row (see ``corruption``): torch's own dropout would differ
        with the number of ranks.
        """
        code_BD = self._latent(x_BF, keep_BH)
        if torch.is_grad_enabled():  # what is carried has no gradient; otherwise its weights, all 0, hide it
            code_BD = pad(code_BD[:, self.num_carried :], (self.num_carried, 0))
        reconstruction_BF = self.decoder_output(gelu(self.decoder_hidden(code_BD)))
        if not hasattr(self, "future_output"):
            return Outputs(reconstruction_BF, code_BD[:, :0])
        return Outputs(reconstruction_BF, self.future_output(gelu(self.future_hidden(code_BD))))


def _linear(width_in: int, width_out: int, generator: torch.Generator, *, bias: bool) -> nn.Linear:
    """Return a layer with torch's usual initialisation, drawn from ``generator``."""
    with torch.random.fork_rng(devices=[]):  # torch draws weights, which are not used; its `meta` device imports sympy
        layer = nn.Linear(width_in, width_out, bias=bias)
    bound = width_in**-0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer
