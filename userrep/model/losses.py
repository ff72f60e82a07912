"""What a model is trained on: every block of inputs weighs the same, whatever its width, and so do those of a kind of
targets.

A block's sum over rows is divided by all B rows, those without the block included: the mean over ranks with equal
batches is then the loss of one rank with all of them.
Shapes: B rows, F inputs, T targets, K blocks.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity, log_softmax, normalize, pad

from userrep import config
from userrep.features.layout import Block, InputLayout
from userrep.features.targets import TargetLayout
from userrep.model.autoencoder import Outputs

TEMPERATURE = 0.1
_TARGET_WEIGHTS = {"pooled": 1.0, "scalar": 0.5, "flags": 0.5}  # of all blocks of a kind together


class Loss(nn.Module):
    """The losses of all blocks, ``names``, and how much each counts in the one that is trained on."""

    weight_K: Tensor

    def __init__(self, layout: InputLayout, targets: TargetLayout, model: config.Model, portion: int) -> None:
        super().__init__()
        pooled = [block for block in targets.blocks if block.kind == "pooled" and model.contrast_weight]
        self._reconstruction, self._future = ReconstructionLoss(layout), FutureLoss(targets)
        self._contrast = ContrastLoss(pooled, portion)
        told_apart = [block.name.replace("_next_", "_apart_") for block in pooled]
        self.names = [*(block.name for block in [*layout.blocks, *targets.blocks]), *told_apart]
        kinds = [block.kind for block in targets.blocks]
        weights = [1 / len(layout.blocks)] * len(layout.blocks)
        weights += [model.future_weight * _TARGET_WEIGHTS[kind] / kinds.count(kind) for kind in kinds]
        weights += [model.contrast_weight / len(pooled) for _ in pooled]
        self._weights = dict(zip(self.names, weights, strict=True))
        self.register_buffer("weight_K", torch.tensor(weights))

    def forward(self, outputs: Outputs, target_BF: Tensor, future_BT: Tensor) -> Tensor:
        """Return per_block_K."""
        parts = [self._reconstruction(outputs.reconstruction_BF.float(), target_BF)]
        if future_BT.shape[1]:
            parts += [loss(outputs.future_BT.float(), future_BT) for loss in (self._future, self._contrast)]
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


class ContrastLoss(nn.Module):
    """How hard it is to find a row's own vector among those of its portion, by cosine to what is predicted.

    A portion is what a batch has of one shard: ``portion`` rows in a row, always of one rank, so that the loss does not
    depend on the number of ranks. Of rows without the vector nothing is asked, and nobody is told apart from them.
    """

    def __init__(self, blocks: Sequence[Block], portion: int) -> None:
        super().__init__()
        self._blocks, self._portion = blocks, portion

    def forward(self, predicted_BT: Tensor, target_BT: Tensor) -> Tensor:
        """Return per_block_K; of no block, none."""
        losses = [self._loss(block, predicted_BT, target_BT) for block in self._blocks]
        return torch.stack(losses) if losses else predicted_BT.new_zeros(0)

    def _loss(self, block: Block, predicted_BT: Tensor, target_BT: Tensor) -> Tensor:
        mine, flag = slice(block.start, block.stop), block.flag
        assert flag is not None
        predicted, target, there = map(
            self._portions, (predicted_BT[:, mine], target_BT[:, mine], target_BT[:, [flag]])
        )
        cosine = normalize(predicted, dim=2, eps=1e-6) @ normalize(target, dim=2).transpose(1, 2)
        logits = (cosine / TEMPERATURE).masked_fill(there.transpose(1, 2) < 0.5, -1e4)
        own = log_softmax(logits, dim=2).diagonal(dim1=1, dim2=2)
        return -(own * there[:, :, 0]).sum() / len(target_BT)

    def _portions(self, rows: Tensor) -> Tensor:
        """Cut rows into portions; the last is filled up with rows that have no vector."""
        return pad(rows, (0, 0, 0, -len(rows) % self._portion)).reshape(-1, self._portion, rows.shape[1])


def _block_loss(block: Block, predicted_BT: Tensor, target_BT: Tensor) -> Tensor:
    mine = slice(block.start, block.stop)
    if block.flag is not None:
        misses_B = (1 - cosine_similarity(predicted_BT[:, mine], target_BT[:, mine])) * target_BT[:, block.flag]
        return misses_B.sum() / len(target_BT)
    if block.kind == "flags":
        return binary_cross_entropy_with_logits(predicted_BT[:, mine], target_BT[:, mine])
    return (predicted_BT[:, mine] - target_BT[:, mine]).square().mean()
