"""Training losses: reconstruction of the inputs, prediction of the next items and of the next days' activity.

Every loss divides by all B rows, including rows without the block or event. With equal batches, the mean over ranks
therefore equals the loss of a single rank over all rows.
Shapes: B rows, A rows with next items, F inputs, T targets, K losses, E dimensions of an item vector, C candidate items
of a date, N numeric and flag targets.
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

Candidates = Mapping[str, NDArray[np.float32]]  # drawn by ``userrep.items.candidates``


class Loss(nn.Module):
    """All losses in the order of ``names``, and their weights in the total that is minimized.

    The input blocks together have ``model.reconstruction_weight``, the next items ``model.next_items_weight``. The
    counts of the next days together have ``model.next_days_weight``, and so have the flags. Within each of these
    groups, all losses have equal weights.
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
        """Return loss_K, every loss in the order of ``names``."""
        parts = [self._reconstruction(outputs.reconstruction_BF.float(), target_BF)]
        if self._items is not None:
            parts.append(self._items(outputs.query_BE.float(), outputs.worth_E.float(), future_BT))
        if self._days is not None:
            parts.append(self._days(outputs.next_days_BN.float(), future_BT))
        return torch.cat(parts)

    def total(self, losses: Mapping[str, float]) -> float:
        """Return the weighted total of losses given by name."""
        return sum(weight * losses[name] for name, weight in self._weights.items())


class ReconstructionLoss(nn.Module):
    """Mean squared error per block, over the rows that have the block.

    Each block is scaled by one standard deviation, so an 80-dimensional block weighs as much as a single count. The
    ``flags`` block is treated like any other.
    """

    mean_FK: Tensor
    flag_K: Tensor
    always_K: Tensor

    def __init__(self, layout: InputLayout) -> None:
        super().__init__()
        mean_FK = torch.zeros(layout.width, len(layout.blocks))
        for k, block in enumerate(layout.blocks):
            mean_FK[block.inputs, k] = 1 / block.width
        flags = [block.flag for block in layout.blocks]
        self.register_buffer("mean_FK", mean_FK)
        self.register_buffer("flag_K", torch.tensor([0 if flag is None else flag for flag in flags]))
        self.register_buffer("always_K", torch.tensor([flag is None for flag in flags]))

    def forward(self, reconstruction_BF: Tensor, target_BF: Tensor) -> Tensor:
        """Return the error of each block. A row has the blocks whose flag is set in the target."""
        error_BK = (reconstruction_BF - target_BF).square() @ self.mean_FK
        present_BK = (target_BF[:, self.flag_K] > 0.5) | self.always_K
        return (error_BK * present_BK).sum(dim=0) / len(target_BF)


class NextItemsLoss(nn.Module):
    """Softmax cross-entropy of a row's next items among all items of the same days, corrected for popularity.

    An item's logit is (query + worth) times the item vector, plus the logarithm of the item's share of all events. The
    share explains popularity, so the code must encode how the user differs from the others. Because the logit is
    linear in the item vector, a row needs only the mean vector of its items. The share term of the row's own items
    does not depend on the model and is omitted, so an uninformed model has loss 0. Rows are weighted by the weight in
    ``TargetLayout.items``, relative to ``row_weight``, its mean over all rows.
    """

    def __init__(self, targets: TargetLayout, candidates: Candidates, row_weight: float) -> None:
        super().__init__()
        self._width, items = targets.item_width, targets.items
        self._weight, self._date, self._unit = items.start, items.start + 1, max(row_weight, 1e-9)
        num_dates = sum(name.startswith("vector_") for name in candidates)
        vectors = [candidates[f"vector_{d}"] for d in range(num_dates)]
        squares = [np.square(vector_CE).sum(axis=1).mean() for vector_CE in vectors if len(vector_CE)]
        self._scale = max(float(np.mean(squares or [1.0])), 1e-9) ** -0.5  # scales item vectors to a mean length of 1
        for d in range(num_dates):
            for name in ("vector", "log_share"):
                tensor = torch.from_numpy(np.ascontiguousarray(candidates[f"{name}_{d}"]))
                self.register_buffer(f"{name}_{d}", tensor, persistent=False)

    def forward(self, query_BE: Tensor, worth_E: Tensor, future_BT: Tensor) -> Tensor:
        """Return the loss as a tensor of one element."""
        active = torch.nonzero(future_BT[:, self._weight] > 0)[:, 0]
        query_AE, mean_AE = (query_BE[active] + worth_E) * self._scale, future_BT[active, : self._width]
        weight_A, date_A = future_BT[active, self._weight] / self._unit, future_BT[active, self._date].round().long()
        total = query_BE.new_zeros(())
        for d in torch.unique(date_A).tolist():
            on_date_A, vector_CE = date_A == d, getattr(self, f"vector_{d}")
            if len(vector_CE):
                dated_query_AE = query_AE[on_date_A]
                logits_AC = dated_query_AE @ vector_CE.T + getattr(self, f"log_share_{d}")
                loss_A = torch.logsumexp(logits_AC, dim=1) - (dated_query_AE * mean_AE[on_date_A]).sum(dim=1)
                total = total + weight_A[on_date_A] @ loss_A
        return (total / len(future_BT))[None]


class NextDaysLoss(nn.Module):
    """Squared error of log counts, and binary cross-entropy of flags, which are predicted as logits."""

    is_flag_N: Tensor
    target_N: Tensor

    def __init__(self, targets: TargetLayout) -> None:
        super().__init__()
        self.register_buffer("target_N", torch.tensor([block.start for block in targets.numbers]))
        self.register_buffer("is_flag_N", torch.tensor([block.kind == "flags" for block in targets.numbers]))

    def forward(self, predicted_BN: Tensor, future_BT: Tensor) -> Tensor:
        """Return the loss of each target."""
        target_BN = future_BT[:, self.target_N]
        squared_error_BN = (predicted_BN - target_BN).square()
        cross_entropy_BN = binary_cross_entropy_with_logits(predicted_BN, target_BN.clamp(0, 1), reduction="none")
        return torch.where(self.is_flag_N, cross_entropy_BN, squared_error_BN).mean(dim=0)
