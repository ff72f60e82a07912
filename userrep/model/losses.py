"""What a model is trained on: every block of inputs weighs the same, whatever its width, and so do those of a kind of
targets.

A block's sum over rows is divided by all B rows, those without the block included: the mean over ranks with equal
batches is then the loss of one rank with all of them.
Shapes: B rows, F inputs, T targets, K blocks.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from userrep.features.layout import Block, InputLayout
from userrep.features.targets import TargetLayout
from userrep.model.autoencoder import Outputs

_TARGET_WEIGHTS = {"pooled": 1.0, "scalar": 0.5, "flags": 0.5}  # of all blocks of a kind together


class Loss(nn.Module):
    """The losses of all blocks, ``names``, and how much each counts in the one that is trained on."""

    weight_K: Tensor

    def __init__(self, layout: InputLayout, targets: TargetLayout, future_weight: float) -> None:
        super().__init__()
        self._reconstruction, self._future = ReconstructionLoss(layout), FutureLoss(targets)
        self.names = [block.name for block in [*layout.blocks, *targets.blocks]]
        kinds = [block.kind for block in targets.blocks]
        weights = [1 / len(layout.blocks)] * len(layout.blocks)
        weights += [future_weight * _TARGET_WEIGHTS[kind] / kinds.count(kind) for kind in kinds]
        self._weights = dict(zip(self.names, weights, strict=True))
        self.register_buffer("weight_K", torch.tensor(weights))

    def forward(self, outputs: Outputs, target_BF: Tensor, future_BT: Tensor) -> Tensor:
        """Return per_block_K."""
        parts = [self._reconstruction(outputs.reconstruction_BF.float(), target_BF)]
        if future_BT.shape[1]:
            parts.append(self._future(outputs.future_BT.float(), future_BT))
        return torch.cat(parts)

    def total(self, losses: Mapping[str, float]) -> float:
        """Return the loss that is trained on, given that of each block."""
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
        """Return per_block_K. The target's flags say which blocks a row has."""
        error_BK = (reconstruction_BF - target_BF).square() @ self.mean_FK
        present_BK = (target_BF[:, self.flag_K] > 0.5) | self.always_K
        return (error_BK * present_BK).sum(dim=0) / len(target_BF)


class FutureLoss(nn.Module):
    """Of a vector 1 - cosine over the rows that have it, of counts squared error, of flags binary cross-entropy.

    Vectors are centred as inputs are, so that a prediction gains nothing from what everyone has in common.
    """

    def __init__(self, targets: TargetLayout) -> None:
        super().__init__()
        self._blocks = targets.blocks

    def forward(self, predicted_BT: Tensor, target_BT: Tensor) -> Tensor:
        """Return per_block_K. Of flags, what is predicted are logits."""
        return torch.stack([_block_loss(block, predicted_BT, target_BT) for block in self._blocks])


def _block_loss(block: Block, predicted_BT: Tensor, target_BT: Tensor) -> Tensor:
    mine = slice(block.start, block.stop)
    if block.flag is not None:
        misses_B = (1 - cosine_similarity(predicted_BT[:, mine], target_BT[:, mine])) * target_BT[:, block.flag]
        return misses_B.sum() / len(target_BT)
    if block.kind == "flags":
        return binary_cross_entropy_with_logits(predicted_BT[:, mine], target_BT[:, mine])
    return (predicted_BT[:, mine] - target_BT[:, mine]).square().mean()
