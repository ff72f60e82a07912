"""A model in the manner of DLRM (Naumov et al. 2019), trained for each task from raw inputs.

Beside what meets there is a linear part (wide and deep, Cheng et al. 2016): without it some thousand examples don't get
as far as the plain linear head of the same inputs.

Shapes: N rows, F inputs, S fields, D numbers of a field, K outputs, P pairs, M items at dates, E numbers of an item.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from userrep.evaluation.heads import Heads, PairHead, Setting
from userrep.evaluation.representation import Context, Floats32
from userrep.features.layout import Block

_FIELD, _BOTTOM, _DROPOUT = 24, 64, 0.2
_GRID = tuple(Setting(hidden, weight_decay) for hidden in (32, 96) for weight_decay in (0.1, 1.0, 10.0))


@dataclass
class Dlrm:
    """The scaled inputs as they are, read by nets that make fields of them and let these meet. All cost is in heads.

    Neighbours, who have no heads, are left out: by these inputs they are those of ``raw``.
    """

    name: str = "dlrm_like"

    def fit(self, context: Context) -> None:
        """Need nothing."""

    def matrix(self, context: Context) -> Floats32:
        """Return the scaled inputs."""
        return context.scaled()

    def heads(self, context: Context) -> Heads:
        """Return the nets, which know which input belongs to which block."""
        return DlrmHeads(tuple(context.layout.blocks))


@dataclass(frozen=True)
class DlrmHeads:
    """Nets of one layout. ``hidden`` of a setting: units of the layer between what met and the output."""

    blocks: Sequence[Block]
    grid: Sequence[Setting] = _GRID

    def of_rows(self, num_inputs: int, num_outputs: int, setting: Setting) -> nn.Module:
        """Make a net of rows."""
        assert num_inputs == self.blocks[-1].stop
        return DlrmOfRows(self.blocks, num_outputs, setting.hidden)

    def of_pairs(self, num_inputs: int, num_item_inputs: int, setting: Setting) -> nn.Module:
        """Make a net of pairs."""
        assert num_inputs == self.blocks[-1].stop
        return DlrmOfPairs(self.blocks, num_item_inputs, setting.hidden)


class Fields(nn.Module):
    """S fields of D numbers: each pooled vector and each attribute by a matrix of its own, all numbers by a small net.

    The matrix of an attribute holds an embedding for each of its values.
    """

    numbers: Tensor

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        alone = [block for block in blocks if block.kind in ("pooled", "one_hot")]
        numbers = [k for block in blocks if block not in alone for k in range(block.start, block.stop)]
        self.alone = [slice(block.start, block.stop) for block in alone]
        self.register_buffer("numbers", torch.tensor(numbers))
        self.matrices = nn.ModuleList(nn.Linear(block.stop - block.start, _FIELD) for block in alone)
        self.bottom = _net(len(numbers), _BOTTOM, _FIELD)
        self.num_fields = len(alone) + 1

    def forward(self, x_NF: Tensor) -> Tensor:
        """Return N x S x D; the field of numbers comes last."""
        fields = [matrix(x_NF[:, part]) for matrix, part in zip(self.matrices, self.alone, strict=True)]
        return torch.stack([*fields, self.bottom(x_NF[:, self.numbers])], dim=1)


class DlrmOfRows(nn.Module):
    """K outputs from the inputs, the field of numbers, and the products of all fields two by two."""

    def __init__(self, blocks: Sequence[Block], num_outputs: int, hidden: int) -> None:
        super().__init__()
        self.fields = Fields(blocks)
        self.wide = nn.Linear(blocks[-1].stop, num_outputs)
        self.top = _net(_FIELD + _num_pairs(self.fields.num_fields), hidden, num_outputs)

    def forward(self, x_NF: Tensor) -> Tensor:
        fields_NSD = self.fields(x_NF)
        out_NK: Tensor = self.top(torch.cat([fields_NSD[:, -1], _products(fields_NSD)], dim=1)) + self.wide(x_NF)
        return out_NK


class DlrmOfPairs(nn.Module):
    """A logit of each pair: the item is one field more, by a small net of its own; beside it the linear head of pairs.

    What meets begins with nothing, as that does.
    """

    def __init__(self, blocks: Sequence[Block], num_item_inputs: int, hidden: int) -> None:
        super().__init__()
        self.fields = Fields(blocks)
        self.item = _net(num_item_inputs, _BOTTOM, _FIELD)
        num_fields = self.fields.num_fields
        self.wide = PairHead(blocks[-1].stop, num_item_inputs, hidden=0)
        self.top = _net(2 * _FIELD + _num_pairs(num_fields) + num_fields, hidden, 1)
        for weights in self.top[-1].parameters():
            nn.init.zeros_(weights)

    def forward(self, x_NF: Tensor, item_ME: Tensor, row_P: Tensor, item_P: Tensor) -> Tensor:
        fields_NSD, items_MD = self.fields(x_NF), self.item(item_ME)
        own_N = torch.cat([fields_NSD[:, -1], _products(fields_NSD)], dim=1)
        met_PS = torch.einsum("psd,pd->ps", fields_NSD[row_P], items_MD[item_P]) * _FIELD**-0.5
        met_P1 = self.top(torch.cat([own_N[row_P], items_MD[item_P], met_PS], dim=1))
        logit_P: Tensor = met_P1[:, 0] + self.wide(x_NF, item_ME, row_P, item_P)
        return logit_P


def _num_pairs(num_fields: int) -> int:
    return num_fields * (num_fields - 1) // 2


def _products(fields_NSD: Tensor) -> Tensor:
    """Return the dot product of each two fields, scaled."""
    first, second = torch.triu_indices(fields_NSD.shape[1], fields_NSD.shape[1], offset=1)
    product_NSS = fields_NSD @ fields_NSD.transpose(1, 2) * _FIELD**-0.5
    product_NR: Tensor = product_NSS[:, first, second]
    return product_NR


def _net(num_inputs: int, hidden: int, num_outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_inputs, hidden), nn.ReLU(), nn.Dropout(_DROPOUT), nn.Linear(hidden, num_outputs))
