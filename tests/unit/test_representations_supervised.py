"""The DLRM-like model: fields that meet, by row and by pair, and what it learns that no linear head can."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.evaluation_world import world
from userrep.evaluation.heads import PairHead, RowData, Setting, logistic
from userrep.evaluation.metrics import value_of
from userrep.evaluation.representation import WithHeads
from userrep.evaluation.representations.matrices import Nmf
from userrep.evaluation.representations.supervised import Dlrm, DlrmHeads, DlrmOfPairs, DlrmOfRows, Fields
from userrep.evaluation.tasks.pairs import NextItem, PairProblem
from userrep.features.layout import Block

pytestmark = pytest.mark.fast

BLOCKS = (
    Block(name="one", kind="pooled", start=0, stop=4, flag=9),
    Block(name="two", kind="pooled", start=4, stop=8),
    Block(name="count", kind="scalar", start=8, stop=9),
    Block(name="flags", kind="flags", start=9, stop=10),
)
ATTRIBUTE = Block(name="country", kind="one_hot", start=10, stop=13)


def test_fields_that_meet_tell_what_no_linear_head_can() -> None:
    rng = np.random.default_rng(0)
    x_NF = rng.normal(size=(3000, 10)).astype(np.float32)
    y_N = ((x_NF[:, :4] * x_NF[:, 4:8]).sum(axis=1) > 0).astype(np.float32)
    x, y = torch.from_numpy(x_NF), torch.from_numpy(y_N[:, None])
    right = {}
    for name, heads in (("dlrm", {"heads": DlrmHeads(BLOCKS)}), ("small", {})):
        data = RowData(x, y, np.arange(2000), np.arange(2000, 2500), logistic, **cast(Any, heads))
        net, _ = data.fitted(Setting(32 if heads else 0, 0.01), 1)
        right[name] = float(((net(x[2500:])[:, 0] > 0) == (y[2500:, 0] > 0)).float().mean())
    assert right["dlrm"] > 0.8 > 0.6 > right["small"]


def test_the_dlrm_like_model_learns_pairs_and_says_what_reads_it() -> None:
    planted = world(num_users=200)
    problem = NextItem(7).problem(planted.truth, 1)
    assert isinstance(problem, PairProblem)
    x_NF = np.zeros((len(planted.rows), 10), np.float32)
    x_NF[:, :4] = planted.taste_of_rows()
    scores = problem.scores(x_NF, Setting(32, 0.01), 1, DlrmHeads(BLOCKS))
    assert value_of("auc", scores) > 0.65
    assert isinstance(Dlrm(), WithHeads)
    assert not isinstance(Nmf(), WithHeads)


def test_pooled_vectors_and_attributes_are_fields_and_all_numbers_together_are_one_more() -> None:
    fields = Fields((*BLOCKS, ATTRIBUTE)).eval()
    assert fields.num_fields == 4
    x_NF = torch.randn(1, 13)
    with torch.inference_mode():
        whole = fields(x_NF)
        touched = {}
        for k in range(13):
            moved = x_NF.clone()
            moved[0, k] += 1
            touched[k] = (fields(moved) != whole).any(dim=2)[0].tolist()
    one, two, country, numbers = np.eye(4, dtype=bool).tolist()
    assert touched == {
        **dict.fromkeys(range(4), one), **dict.fromkeys(range(4, 8), two), **dict.fromkeys((8, 9), numbers),
        **dict.fromkeys(range(10, 13), country),
    }  # fmt: skip


def by_hand(net: DlrmOfRows, fields_SD: Tensor) -> Tensor:
    """Return what goes into the top of a row: the field of numbers, then the products of fields two by two."""
    products = [
        fields_SD[a] @ fields_SD[b] / 24**0.5 for a in range(len(fields_SD)) for b in range(a + 1, len(fields_SD))
    ]
    return torch.cat([fields_SD[-1], torch.stack(products)])


def test_a_row_is_read_by_its_numbers_the_products_of_its_fields_and_a_linear_part() -> None:
    net, x_NF = DlrmOfRows(BLOCKS, 2, 8).eval(), torch.randn(5, 10)
    with torch.inference_mode():
        found_NK, fields_NSD = net(x_NF), net.fields(x_NF)
        for n in range(5):
            wanted_K = net.top(by_hand(net, fields_NSD[n])) + net.wide(x_NF[n])
            torch.testing.assert_close(found_NK[n], wanted_K)


def test_a_pair_begins_as_the_linear_head_of_pairs_and_then_meets_each_field_of_its_row() -> None:
    net = DlrmOfPairs(BLOCKS, 3, 8).eval()
    x_NF, item_ME, row_P, item_P = torch.randn(4, 10), torch.randn(6, 3), torch.tensor([0, 3]), torch.tensor([5, 1])
    assert isinstance(net.wide, PairHead)
    with torch.inference_mode():
        assert (net(x_NF, item_ME, row_P, item_P) == net.wide(x_NF, item_ME, row_P, item_P)).all()
        for weights in net.top[-1].parameters():
            nn.init.normal_(weights)
        found_P, fields_NSD, items_MD = net(x_NF, item_ME, row_P, item_P), net.fields(x_NF), net.item(item_ME)
        for p, (n, m) in enumerate(zip(row_P, item_P, strict=True)):
            fields_SD, item_D = fields_NSD[n], items_MD[m]
            products = [fields_SD[a] @ fields_SD[b] for a in range(3) for b in range(a + 1, 3)]
            meets = torch.stack([field @ item_D for field in fields_SD]) / 24**0.5
            top = net.top(torch.cat([fields_SD[-1], torch.stack(products) / 24**0.5, item_D, meets]))
            torch.testing.assert_close(found_P[p], top[0] + net.wide(x_NF, item_ME, row_P, item_P)[p])


def test_the_nets_take_inputs_of_their_layout_only() -> None:
    heads = DlrmHeads(BLOCKS)
    with pytest.raises(AssertionError):
        heads.of_rows(9, 1, heads.grid[0])
    with pytest.raises(AssertionError):
        heads.of_pairs(11, 3, heads.grid[0])
    assert {setting.hidden for setting in heads.grid} == {32, 96}


def test_the_model_reads_the_scaled_inputs_by_the_blocks_of_the_space() -> None:
    x_NF = np.ones((2, 10), np.float32)
    context = cast(Any, SimpleNamespace(scaled=lambda: x_NF, layout=SimpleNamespace(blocks=list(BLOCKS))))
    assert Dlrm().matrix(context) is x_NF
    assert cast(DlrmHeads, Dlrm().heads(context)).blocks == BLOCKS
