"""The small models that every representation is read through: one size fits all, tuned alike by validation rows.

Shapes: N rows, F inputs, K outputs, P pairs, M items at dates, E numbers of an item.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

_MAX_EPOCHS, _PATIENCE = 40, 4
_LEARNING_RATE = 3e-3
_DROPOUT = 0.2
_CLIP = 8.0  # standard deviations

Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]


class Setting(NamedTuple):
    """One point of the grid. ``hidden``: units of the hidden layer, 0 for a linear head."""

    hidden: int
    weight_decay: float

    def __str__(self) -> str:
        return f"hidden {self.hidden or 'none'}, weight decay {self.weight_decay:g}"


GRID = tuple(Setting(hidden, weight_decay) for hidden in (0, 64) for weight_decay in (0.1, 1.0, 10.0))


class Heads(Protocol):
    """What reads vectors: nets for each setting of a grid. They take inputs standardised."""

    @property
    def grid(self) -> Sequence[Setting]:
        """List the settings that are tried."""

    def of_rows(self, num_inputs: int, num_outputs: int, setting: Setting) -> nn.Module:
        """Make a net of x_NF that gives K outputs."""

    def of_pairs(self, num_inputs: int, num_item_inputs: int, setting: Setting) -> nn.Module:
        """Make a net of x_NF, item_ME, row_P, item_P that gives a logit for each pair."""


def standardised(x_NF: Floats32, training_N: NDArray[np.bool_]) -> Floats32:
    """Centre and scale each input by the training rows; one that does not vary there becomes zero. Clipped."""
    mean_F = x_NF[training_N].mean(axis=0, dtype=np.float64)
    spread_F = x_NF[training_N].std(axis=0, dtype=np.float64)
    factor_F = np.where(spread_F > 1e-6, 1 / np.maximum(spread_F, 1e-6), 0)
    clipped_NF: Floats32 = np.clip((x_NF - mean_F) * factor_F, -_CLIP, _CLIP).astype(np.float32)
    return clipped_NF


class RowHead(nn.Module):
    """K outputs from a row's inputs."""

    def __init__(self, num_inputs: int, num_outputs: int, hidden: int) -> None:
        super().__init__()
        self.net = _tower(num_inputs, num_outputs, hidden)

    def forward(self, x_NF: Tensor) -> Tensor:
        out_NK: Tensor = self.net(x_NF)
        return out_NK


class PairHead(nn.Module):
    """A logit for each pair: how far the item that the row asks for points the item's way, and how good the item is.

    It begins with asking for nothing. Its first step, then, is towards the covariance of rows and items, and the linear
    head is a convex problem: with two towers from random weights some thousand pairs don't get as far as the plain
    cosine of a user's average with an item. What a row asks for is turned by the cosine transform: where rows and items
    share their axes, as averages of item vectors do, the weights to be learned are a diagonal, Adam steps as far
    everywhere else, and such rows would be judged by their axes.
    """

    axes_EE: Tensor

    def __init__(self, num_inputs: int, num_item_inputs: int, hidden: int) -> None:
        super().__init__()
        self.asks_for = _tower(num_inputs, num_item_inputs, hidden)
        self.worth = nn.Linear(num_item_inputs, 1)
        axes_EE = dct(np.eye(num_item_inputs, dtype=np.float32), norm="ortho", axis=0)
        self.register_buffer("axes_EE", torch.from_numpy(axes_EE), persistent=False)
        self.scale = (num_item_inputs * (hidden or num_inputs)) ** -0.5  # a step moves all weights alike
        last = self.asks_for[-1] if isinstance(self.asks_for, nn.Sequential) else self.asks_for
        for weights in last.parameters():
            nn.init.zeros_(weights)

    def forward(self, x_NF: Tensor, item_ME: Tensor, row_P: Tensor, item_P: Tensor) -> Tensor:
        asked_NE = self.asks_for(x_NF) @ self.axes_EE
        dot_P = (asked_NE[row_P] * item_ME[item_P]).sum(dim=1)
        logit_P: Tensor = dot_P * self.scale + self.worth(item_ME)[item_P, 0]
        return logit_P


@dataclass(frozen=True)
class SmallHeads:
    """The same for every frozen vector: linear, or with one hidden layer."""

    grid: Sequence[Setting] = GRID

    def of_rows(self, num_inputs: int, num_outputs: int, setting: Setting) -> nn.Module:
        """Make a head of rows."""
        return RowHead(num_inputs, num_outputs, setting.hidden)

    def of_pairs(self, num_inputs: int, num_item_inputs: int, setting: Setting) -> nn.Module:
        """Make a head of pairs."""
        return PairHead(num_inputs, num_item_inputs, setting.hidden)


SMALL = SmallHeads()


@dataclass(frozen=True)
class RowData:
    """Labelled rows of a task, inputs standardised. ``loss``: of outputs and labels, the mean over rows."""

    x_NF: Tensor
    y_NK: Tensor
    train: Ints
    valid: Ints
    loss: Callable[[Tensor, Tensor], Tensor]
    heads: Heads = SMALL

    def fitted(self, setting: Setting, seed: int) -> tuple[nn.Module, float]:
        """Train a head on the training rows, stopped by the validation rows; return it with its loss on those."""
        with alone(seed):
            head = self.heads.of_rows(self.x_NF.shape[1], self.y_NK.shape[1], setting)
            train = torch.from_numpy(self.train)

            def loss(batch: Tensor) -> Tensor:
                at = train[batch]
                return self.loss(head(self.x_NF[at]), self.y_NK[at])

            def valid_loss() -> Tensor:
                return self.loss(head(self.x_NF[self.valid]), self.y_NK[self.valid])

            return head, _train(
                head, loss, valid_loss, num_examples=len(self.train), batch_size=512, weight_decay=setting.weight_decay
            )


@dataclass(frozen=True)
class PairData:
    """Labelled pairs of a task, inputs of rows and items standardised. ``train``, ``valid``: places among the pairs."""

    x_NF: Tensor
    item_ME: Tensor
    row_P: Tensor
    item_P: Tensor
    y_P: Tensor
    train: Ints
    valid: Ints
    heads: Heads = SMALL

    def fitted(self, setting: Setting, seed: int) -> tuple[nn.Module, float]:
        """Train a head on the training pairs, stopped by the validation pairs; return it with its loss on those."""
        with alone(seed):
            head = self.heads.of_pairs(self.x_NF.shape[1], self.item_ME.shape[1], setting)
            train, valid = torch.from_numpy(self.train), torch.from_numpy(self.valid)
            rows, place_P = torch.unique(self.row_P[train], return_inverse=True)

            def loss(batch: Tensor) -> Tensor:  # all pairs of some rows, so that a row is projected once an epoch
                is_in = torch.zeros(len(rows), dtype=torch.bool)
                is_in[batch] = True
                return self._loss(head, train[is_in[place_P]])

            def valid_loss() -> Tensor:
                return self._loss(head, valid)

            return head, _train(
                head, loss, valid_loss, num_examples=len(rows), batch_size=192, weight_decay=setting.weight_decay
            )

    def logits(self, head: nn.Module, pairs: Tensor) -> Tensor:
        """Score some pairs. Rows and items that several of them share are projected once."""
        rows, row_P = torch.unique(self.row_P[pairs], return_inverse=True)
        items, item_P = torch.unique(self.item_P[pairs], return_inverse=True)
        logit_P: Tensor = head(self.x_NF[rows], self.item_ME[items], row_P, item_P)
        return logit_P

    def _loss(self, head: nn.Module, pairs: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(self.logits(head, pairs), self.y_P[pairs])


def logistic(out_NK: Tensor, y_NK: Tensor) -> Tensor:
    """Return the loss of yes or no, for each of K labels alike."""
    return binary_cross_entropy_with_logits(out_NK, y_NK)


def squared(out_NK: Tensor, y_NK: Tensor) -> Tensor:
    """Return the loss of numbers."""
    return mse_loss(out_NK, y_NK)


def best_setting(data: RowData | PairData, seed: int) -> Setting:
    """Choose from the grid by the loss on validation rows; of equals the first."""
    return min(data.heads.grid, key=lambda setting: data.fitted(setting, seed)[1])


@contextmanager
def alone(seed: int) -> Iterator[None]:
    """Seed torch and keep to one thread meanwhile: sums come out alike on any number of cores, and heads are small."""
    num_threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(num_threads)


def _train(
    head: nn.Module,
    loss: Callable[[Tensor], Tensor],
    valid_loss: Callable[[], Tensor],
    *,
    num_examples: int,
    batch_size: int,
    weight_decay: float,
) -> float:
    """Train until validation has not got better for some epochs; leave the best weights. Returns their loss."""
    biases, weights = ([p for p in head.parameters() if (p.dim() < 2) == is_bias] for is_bias in (True, False))
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=_LEARNING_RATE)
    best, best_state, since = _loss_of(head, valid_loss), copied(head), 0
    for _ in range(_MAX_EPOCHS):
        head.train()
        for batch in torch.split(torch.randperm(num_examples), batch_size):
            optimizer.zero_grad()
            loss(batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        now = _loss_of(head, valid_loss)
        best, best_state, since = (now, copied(head), 0) if now < best else (best, best_state, since + 1)
        if since == _PATIENCE:
            break
    head.load_state_dict(best_state)
    head.eval()
    return best


@torch.inference_mode()
def _loss_of(head: nn.Module, valid_loss: Callable[[], Tensor]) -> float:
    head.eval()
    return float(valid_loss())


def copied(head: nn.Module) -> dict[str, Tensor]:
    return {name: weights.detach().clone() for name, weights in head.state_dict().items()}


def _tower(num_inputs: int, num_outputs: int, hidden: int) -> nn.Module:
    if not hidden:
        return nn.Linear(num_inputs, num_outputs)
    return nn.Sequential(nn.Linear(num_inputs, hidden), nn.GELU(), nn.Dropout(_DROPOUT), nn.Linear(hidden, num_outputs))
