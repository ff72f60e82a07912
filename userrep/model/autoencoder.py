"""The autoencoder: a user's inputs to a short code and back (section 3.2 of the paper).

Shapes: B rows, F inputs, H hidden units, D latent dimensions.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from userrep import config


class Autoencoder(nn.Module):
    """Encoder F -> hidden -> latent, decoder latent -> decoder -> F, GELU between.

    Weights follow from ``seed`` alone; torch's global generator is not touched.
    """

    def __init__(self, width: int, *, hidden: int, latent: int, decoder: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.encoder_hidden = _linear(width, hidden, generator)
        self.encoder_latent = _linear(hidden, latent, generator)
        self.decoder_hidden = _linear(latent, decoder, generator)
        self.decoder_output = _linear(decoder, width, generator)

    @classmethod
    def of(cls, width: int, model: config.Model, seed: int = 0) -> "Autoencoder":
        """Build it from the configuration's widths."""
        return cls(width, hidden=model.hidden_dim, latent=model.latent_dim, decoder=model.decoder_dim, seed=seed)

    @staticmethod
    def shapes(width: int, model: config.Model) -> dict[str, tuple[int, ...]]:
        """Return the shapes of its weights by name, without allocating any."""
        layers = {
            "encoder_hidden": (model.hidden_dim, width),
            "encoder_latent": (model.latent_dim, model.hidden_dim),
            "decoder_hidden": (model.decoder_dim, model.latent_dim),
            "decoder_output": (width, model.decoder_dim),
        }
        return {f"{name}.weight": shape for name, shape in layers.items()} | {
            f"{name}.bias": shape[:1] for name, shape in layers.items()
        }

    def encode(self, x_BF: Tensor, keep_BH: Tensor | None = None) -> Tensor:
        """Return z_BD. ``keep_BH`` is the dropout of the hidden layer: 0, or 1 / (1 - share dropped).

        The mask comes from outside because it is keyed by row (see ``corruption``): torch's own dropout would differ
        with the number of ranks.
        """
        h_BH = gelu(self.encoder_hidden(x_BF))
        if keep_BH is not None:
            h_BH = h_BH * keep_BH
        z_BD: Tensor = self.encoder_latent(h_BH)
        return z_BD

    def forward(self, x_BF: Tensor, keep_BH: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (z_BD, reconstruction_BF)."""
        z_BD = self.encode(x_BF, keep_BH)
        return z_BD, self.decoder_output(gelu(self.decoder_hidden(z_BD)))


def _linear(width_in: int, width_out: int, generator: torch.Generator) -> nn.Linear:
    """Return a layer with torch's usual initialisation, drawn from ``generator``."""
    with torch.random.fork_rng(devices=[]):  # torch draws weights, which are not used; its `meta` device imports sympy
        layer = nn.Linear(width_in, width_out)
    bound = width_in**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer
