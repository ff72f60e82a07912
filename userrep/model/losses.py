"""The reconstruction loss: every block weighs the same, whatever its width.

Shapes: B rows, F inputs, K blocks.
"""

import torch
from torch import Tensor, nn

from userrep.features.layout import InputLayout


class ReconstructionLoss(nn.Module):
    """Mean squared error per block over the rows that have the block.

    Inputs have one standard deviation per block, so an 80-d block counts as much as a single count. A block's sum over
    its rows is divided by all B rows: the mean over ranks with equal batches is then the loss of one rank with all
    of them. The ``flags`` block is a block like any other.
    """

    mean_FK: Tensor
    flag_K: Tensor
    always_K: Tensor

    def __init__(self, layout: InputLayout) -> None:
        super().__init__()
        self.names = [block.name for block in layout.blocks]
        mean_FK = torch.zeros(layout.width, len(layout.blocks))
        for k, block in enumerate(layout.blocks):
            mean_FK[block.start : block.stop, k] = 1 / (block.stop - block.start)
        flags = [block.flag for block in layout.blocks]
        self.register_buffer("mean_FK", mean_FK)
        self.register_buffer("flag_K", torch.tensor([0 if flag is None else flag for flag in flags]))
        self.register_buffer("always_K", torch.tensor([flag is None for flag in flags]))

    def forward(self, reconstruction_BF: Tensor, target_BF: Tensor) -> Tensor:
        """Return per_block_K; the loss to train on is its mean. The target's flags say which blocks a row has."""
        error_BK = (reconstruction_BF - target_BF).square() @ self.mean_FK
        present_BK = (target_BF[:, self.flag_K] > 0.5) | self.always_K
        return (error_BK * present_BK).sum(dim=0) / len(target_BF)
