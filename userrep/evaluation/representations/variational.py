"""Mult-VAE (Liang, Krishnan, Hoffman, Jebara 2018): a variational autoencoder of the bags of items that users met.

Shapes: N rows, U users, V items, B users of a batch, E entries of a batch, D latent numbers, H hidden units.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn

from userrep.evaluation.representation import Context, Floats32
from userrep.evaluation.representations.als import flagged
from userrep.evaluation.representations.bags import Bags, bags_of, held_out, trained
from userrep.evaluation.rows import Ints

_LATENT, _HIDDEN = 120, 240
_LEARNING_RATE, _ANNEALING_STEPS = 3e-3, 300


class VaeSetting(NamedTuple):
    """One point of the grid. ``dropout``: of the bag that goes in; ``cap``: what the divergence weighs in the end."""

    dropout: float
    cap: float


GRID = (VaeSetting(0.5, 0.2), VaeSetting(0.5, 0.05), VaeSetting(0.8, 0.2))


class BagNet(nn.Module):
    """A bag of items, a unit vector, to mean and log variance of a Gaussian, and from there to logits of items."""

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.of_items = nn.EmbeddingBag(num_items, _HIDDEN, mode="sum")
        nn.init.xavier_normal_(self.of_items.weight)
        self.bias = nn.Parameter(torch.zeros(_HIDDEN))
        self.to_latent = nn.Linear(_HIDDEN, 2 * _LATENT)
        self.decoder = nn.Linear(_LATENT, num_items)

    def encode(self, bags: Bags, dropout: float = 0) -> tuple[Tensor, Tensor]:
        """Return mean and log variance, B x D each. Items are dropped with that chance; the others weigh more."""
        weight_E = torch.rsqrt(bags.length_B.clamp(min=1).float())[bags.row_E]
        if dropout:
            weight_E = weight_E * (torch.rand(len(weight_E)) >= dropout) / (1 - dropout)
        hidden_BH = self.of_items(bags.item_E, bags.start_B, per_sample_weights=weight_E)
        mean_BD, log_variance_BD = self.to_latent(torch.tanh(hidden_BH + self.bias)).chunk(2, dim=1)
        return mean_BD, log_variance_BD

    def loss(self, bags: Bags, dropout: float, weight: float) -> Tensor:
        """Return the bound, a mean over users: the multinomial likelihood of whole bags and the weighed divergence."""
        mean_BD, log_variance_BD = self.encode(bags, dropout)
        drawn_BD = mean_BD + torch.randn_like(mean_BD) * torch.exp(log_variance_BD / 2)
        log_chance_BV = torch.log_softmax(self.decoder(drawn_BD), dim=1)
        likelihood = log_chance_BV[bags.row_E, bags.item_E].sum() / len(bags.length_B)
        divergence_B = (mean_BD.square() + log_variance_BD.exp() - log_variance_BD - 1).sum(dim=1) / 2
        return weight * divergence_B.mean() - likelihood

    @torch.inference_mode()
    def scores(self, shown_BV: csr_array, users_B: Ints) -> NDArray[np.float32]:
        """Score all items for one batch of bags."""
        del users_B
        bags = next(bags_of(shown_BV, np.arange(shown_BV.shape[0])))
        score_BV: NDArray[np.float32] = self.decoder(self.encode(bags)[0]).numpy()
        return score_BV


@dataclass
class MultVae:
    """The mean that the encoder gives to the items met before the row's date; then 1, or zeros where there are none.

    Trained on ``context.sample``, each user's whole bag before ``plan.until``; counts don't matter. Of the grid over
    input dropout and the divergence's cap, and of the steps, the best are taken by nDCG@100 of hidden items of held-out
    users, as in the paper. Cost: three trainings of 900 batches of 256 users at most, some 3 B x D x V
    multiplications each, on one core.
    """

    name: str = "mult_vae"
    grid: tuple[VaeSetting, ...] = GRID
    max_steps: int = 900
    setting: VaeSetting | None = field(default=None, init=False)
    _net: BagNet | None = field(default=None, init=False)

    def fit(self, context: Context) -> None:
        """Train with each setting; keep the best."""
        self.fit_counts(context.sample.num_events_UV, seed=context.seed)

    def fit_counts(self, counts_UV: csr_array, *, seed: int) -> None:
        """Train on these counts."""
        tried = [trained_net(counts_UV, one, max_steps=self.max_steps, seed=seed) for one in self.grid]
        best = max(range(len(tried)), key=lambda k: tried[k][1])
        self.setting, self._net = self.grid[best], tried[best][0]

    def matrix(self, context: Context) -> Floats32:
        """Encode each row's history."""
        return self.encoded(context.history_of_sample())

    @torch.inference_mode()
    def encoded(self, counts_NV: csr_array) -> Floats32:
        """Encode bags."""
        assert self._net is not None
        batches = bags_of(counts_NV, np.arange(counts_NV.shape[0]))
        x_ND = np.concatenate([self._net.encode(bags)[0].numpy() for bags in batches])
        return flagged(x_ND * (np.diff(counts_NV.indptr) > 0)[:, None].astype(np.float32))


def trained_net(counts_UV: csr_array, setting: VaeSetting, *, max_steps: int, seed: int) -> tuple[BagNet, float]:
    """Train with a setting; return the net with its nDCG."""
    training, apart = held_out(counts_UV, np.random.default_rng(seed))

    def loss(net: BagNet, bags: Bags, step: int) -> Tensor:
        return net.loss(bags, setting.dropout, setting.cap * min(1.0, step / _ANNEALING_STEPS))

    return trained(
        lambda: BagNet(counts_UV.shape[1]), loss, lambda net: apart.ndcg(net.scores), counts_UV, training,
        max_steps=max_steps, learning_rate=_LEARNING_RATE, seed=seed,
    )  # fmt: skip
