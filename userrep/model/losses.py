"""What a model is trained on: to give back its inputs, and to predict which items users take next and how much they do.

A sum over rows is divided by all B rows, those without the block or the event included: the mean over ranks with equal
batches is then the loss of one rank with all of them.
Shapes: B rows, F inputs, T targets, K losses; E numbers of an item, C items of a date, N numbers and flags.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from userrep import config
from userrep.features.layout import InputLayout
from userrep.features.targets import TargetLayout
from userrep.model.autoencoder import Outputs

Candidates = Mapping[str, NDArray[np.float32]]  # as ``userrep.items.candidates`` draws them


class Loss(nn.Module):
    """All losses, ``names``, and how much each counts in the one that is trained on.

    Blocks of inputs weigh the same and together ``model.reconstruction_weight``; the items
    ``model.next_items_weight``; counts of the next days the same as flags, each together ``model.next_days_weight``.
    """

    weight_K: Tensor

    def __init__(
        self, layout: InputLayout, targets: TargetLayout, model: config.Model, candidates: Candidates, row_weight: float
    ) -> None:
        super().__init__()
        self._reconstruction = ReconstructionLoss(layout)
        self.names = [block.name for block in layout.blocks]
        weights = [model.reconstruction_weight / len(layout.blocks)] * len(layout.blocks)
        self._items = self._days = None
        if targets.blocks and model.next_items_weight:
            self._items = NextItemsLoss(targets, candidates, row_weight)
            self.names.append(targets.items.name)
            weights.append(model.next_items_weight)
        if targets.blocks and model.next_days_weight:
            self._days = NextDaysLoss(targets)
            self.names += [block.name for block in targets.numbers]
            kinds = [block.kind for block in targets.numbers]
            weights += [model.next_days_weight / kinds.count(kind) for kind in kinds]
        self._weights = dict(zip(self.names, weights, strict=True))
        self.register_buffer("weight_K", torch.tensor(weights))

    def forward(self, outputs: Outputs, target_BF: Tensor, future_BT: Tensor) -> Tensor:
        """Return each loss, loss_K."""
        parts = [self._reconstruction(outputs.reconstruction_BF.float(), target_BF)]
        if self._items is not None:
            parts.append(self._items(outputs.query_BE.float(), outputs.worth_E.float(), future_BT))
        if self._days is not None:
            parts.append(self._days(outputs.next_days_BN.float(), future_BT))
        return torch.cat(parts)

    def total(self, losses: Mapping[str, float]) -> float:
        """Return the loss that is trained on, given all by name."""
        return sum(weight * losses[name] for name, weight in self._weights.items())


class ReconstructionLoss(nn.Module):
    """Mean squared error per block over the rows that have the block.

    Inputs have one standard deviation per block, so an 80-d block counts as much as a single count. The ``flags`` block
    is a block like any other.
    """

    mean_FK: Tensor
    flag_K: Tensor
    always_K: Tensor

    def __init__(self, layout: InputLayout) -> None:
        super().__init__()
        mean_FK = torch.zeros(layout.width, len(layout.blocks))
        for k, block in enumerate(layout.blocks):
            mean_FK[block.start : block.stop, k] = 1 / (block.stop - block.start)
        flags = [block.flag for block in layout.blocks]
        self.register_buffer("mean_FK", mean_FK)
        self.register_buffer("flag_K", torch.tensor([0 if flag is None else flag for flag in flags]))
        self.register_buffer("always_K", torch.tensor([flag is None for flag in flags]))

    def forward(self, reconstruction_BF: Tensor, target_BF: Tensor) -> Tensor:
        """Return the error of each block. The target's flags say which blocks a row has."""
        error_BK = (reconstruction_BF - target_BF).square() @ self.mean_FK
        present_BK = (target_BF[:, self.flag_K] > 0.5) | self.always_K
        return (error_BK * present_BK).sum(dim=0) / len(target_BF)


class NextItemsLoss(nn.Module):
    """How surprising a row's next items are among all that were sold in these days: a softmax, popularity left out.

    An item's logit is what the row asks for times the item's vector, plus the item's worth, plus the logarithm of its
    share of what was sold; so the code has to say in what the user differs from all others. The mean over a row's
    items needs their mean vector only, for the logit is linear in it. The shares' part does not depend on the model
    and is left out, so that a model that knows nothing is at 0. A row counts by its weight, in units of
    ``row_weight``, the mean over all rows.
    """

    def __init__(self, targets: TargetLayout, candidates: Candidates, row_weight: float) -> None:
        super().__init__()
        self._width, items = targets.item_width, targets.items
        self._weight, self._place, self._unit = items.start, items.start + 1, max(row_weight, 1e-9)
        num_dates = sum(name.startswith("vector_") for name in candidates)
        vectors = [candidates[f"vector_{d}"] for d in range(num_dates)]
        squares = [np.square(vector_CE).sum(axis=1).mean() for vector_CE in vectors if len(vector_CE)]
        self._scale = max(float(np.mean(squares or [1.0])), 1e-9) ** -0.5  # vectors of length 1 in the mean
        for d in range(num_dates):
            for name in ("vector", "log_share"):
                tensor = torch.from_numpy(np.ascontiguousarray(candidates[f"{name}_{d}"]))
                self.register_buffer(f"{name}_{d}", tensor, persistent=False)

    def forward(self, query_BE: Tensor, worth_E: Tensor, future_BT: Tensor) -> Tensor:
        """Return the loss, one number."""
        active = torch.nonzero(future_BT[:, self._weight] > 0)[:, 0]
        query_AE, mean_AE = (query_BE[active] + worth_E) * self._scale, future_BT[active, : self._width]
        weight_A, place_A = future_BT[active, self._weight] / self._unit, future_BT[active, self._place].round().long()
        total = query_BE.new_zeros(())
        for d in torch.unique(place_A).tolist():
            mine, vector_CE = place_A == d, getattr(self, f"vector_{d}")
            if len(vector_CE):
                asked_AE = query_AE[mine]
                logits_AC = asked_AE @ vector_CE.T + getattr(self, f"log_share_{d}")
                surprise_A = torch.logsumexp(logits_AC, dim=1) - (asked_AE * mean_AE[mine]).sum(dim=1)
                total = total + weight_A[mine] @ surprise_A
        return (total / len(future_BT))[None]


class NextDaysLoss(nn.Module):
    """Squared error for the logarithms of counts, binary cross-entropy for flags, whose predictions are logits."""

    is_flag_N: Tensor
    target_N: Tensor

    def __init__(self, targets: TargetLayout) -> None:
        super().__init__()
        self.register_buffer("target_N", torch.tensor([block.start for block in targets.numbers]))
        self.register_buffer("is_flag_N", torch.tensor([block.kind == "flags" for block in targets.numbers]))

    def forward(self, predicted_BN: Tensor, future_BT: Tensor) -> Tensor:
        """Return the loss of each."""
        target_BN = future_BT[:, self.target_N]
        squares_BN = (predicted_BN - target_BN).square()
        surprise_BN = binary_cross_entropy_with_logits(predicted_BN, target_BN.clamp(0, 1), reduction="none")
        return torch.where(self.is_flag_N, surprise_BN, squares_BN).mean(dim=0)
