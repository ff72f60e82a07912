"""The nets that every vector is read through: their formulas, how they are trained, and how a setting is chosen."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.fft import idct
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from userrep.evaluation.heads import (
    PairData,
    PairHead,
    RowData,
    RowHead,
    Setting,
    alone,
    best_setting,
    logistic,
    squared,
    standardised,
)

pytestmark = pytest.mark.fast

LINEAR = Setting(0, 0.1)


def row_data(num_rows: int = 900, seed: int = 0, **changes: object) -> RowData:
    """Make rows whose label follows from two of five inputs: two thirds to train on, and then validation rows."""
    rng = np.random.default_rng(seed)
    x_NF = rng.normal(size=(num_rows, 5)).astype(np.float32)
    chance_N = 1 / (1 + np.exp(-(0.8 * x_NF[:, 0] - 0.4 * x_NF[:, 1] + 0.3)))
    y_N = (rng.random(num_rows) < chance_N).astype(np.float32)
    cut = 2 * num_rows // 3
    data = RowData(
        torch.from_numpy(x_NF), torch.from_numpy(y_N[:, None]), np.arange(cut), np.arange(cut, num_rows), logistic
    )
    return replace(data, **changes)


def pair_data(seed: int = 0) -> PairData:
    """Make pairs whose label is whether row and item point the same way."""
    rng = np.random.default_rng(seed)
    x_NF, item_ME = (rng.normal(size=shape).astype(np.float32) for shape in ((60, 3), (20, 3)))
    row_P, item_P = rng.integers(0, 60, 3000), rng.integers(0, 20, 3000)
    y_P = ((x_NF[row_P] * item_ME[item_P]).sum(axis=1) > 0).astype(np.float32)
    x, items, rows, places, y = (torch.from_numpy(a) for a in (x_NF, item_ME, row_P, item_P, y_P))
    return PairData(x, items, rows, places, y, np.arange(2000), np.arange(2000, 3000))


def test_inputs_are_standardised_by_training_rows_alone() -> None:
    x_NF = np.array([[1.0, 5], [3, 5], [1000, 7]], np.float32)
    found = standardised(x_NF, np.array([True, True, False]))
    assert found.tolist() == [[-1, 0], [1, 0], [8, 0]]  # clipped; what does not vary in training is nothing


@settings(deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0, 4]))
def test_a_row_asks_for_an_item_through_its_cosine_transform_and_each_item_has_a_worth(seed: int, hidden: int) -> None:
    torch.manual_seed(seed)
    head = PairHead(3, 5, hidden).eval()
    for weights in head.parameters():
        nn.init.normal_(weights)
    x_NF, item_ME, row_P, item_P = (
        torch.randn(4, 3),
        torch.randn(6, 5),
        torch.tensor([0, 3, 3]),
        torch.tensor([5, 0, 1]),
    )
    found_P = head(x_NF, item_ME, row_P, item_P).detach().numpy()
    asked_NE = head.asks_for(x_NF).detach().numpy()
    wanted_NE = idct(asked_NE, norm="ortho", axis=1)
    worth_M = item_ME.numpy() @ head.worth.weight.detach().numpy()[0] + head.worth.bias.item()
    for p, (n, m) in enumerate(zip(row_P, item_P, strict=True)):
        dot = float(wanted_NE[n] @ item_ME.numpy()[m]) / np.sqrt(5 * (hidden or 3))
        assert found_P[p] == pytest.approx(dot + worth_M[m], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("hidden", [0, 8])
def test_a_pair_head_begins_with_the_items_worth_only(hidden: int) -> None:
    head, items = PairHead(3, 4, hidden).eval(), torch.randn(2, 4)
    pairs = torch.tensor([0, 1]), torch.tensor([1, 0])
    one, other = (head(torch.randn(2, 3), items, *pairs) for _ in range(2))
    assert one.tolist() == other.tolist() == head.worth(items)[[1, 0], 0].tolist()


def test_a_head_without_hidden_units_is_linear() -> None:
    x_NF = torch.randn(7, 3)
    linear, deep = RowHead(3, 2, 0).eval(), RowHead(3, 2, 4).eval()
    for head, is_linear in ((linear, True), (deep, False)):
        difference = head(2 * x_NF) + head(torch.zeros(1, 3)) - 2 * head(x_NF)
        assert (difference.abs().max().item() < 1e-5) is is_linear


def test_a_linear_head_comes_as_close_to_its_validation_rows_as_scikit_learns_regression() -> None:
    data = row_data(9000)
    head, loss = data.fitted(Setting(0, 0.0), 1)
    x_NF, y_N = data.x_NF.numpy(), data.y_NK.numpy()[:, 0]
    with threadpool_limits(1):
        reference = LogisticRegression().fit(x_NF[data.train], y_N[data.train])
        wanted = log_loss(y_N[data.valid], reference.predict_proba(x_NF[data.valid]))
    assert loss == pytest.approx(wanted, abs=0.002)
    np.testing.assert_allclose(next(iter(head.parameters())).detach().numpy()[0], reference.coef_[0], atol=0.1)


def test_the_loss_of_a_head_is_that_of_the_weights_that_are_returned() -> None:
    rows, pairs = row_data(), pair_data()
    of_rows, loss_of_rows = rows.fitted(Setting(64, 0.1), 1)
    of_pairs, loss_of_pairs = pairs.fitted(LINEAR, 1)
    with torch.inference_mode():
        assert float(logistic(of_rows(rows.x_NF[rows.valid]), rows.y_NK[rows.valid])) == loss_of_rows
        logit_P = pairs.logits(of_pairs, torch.from_numpy(pairs.valid))
        assert float(logistic(logit_P, pairs.y_P[pairs.valid])) == loss_of_pairs
    assert loss_of_pairs < 0.67  # a coin has 0.69


def test_training_stops_before_the_validation_rows_get_worse() -> None:
    noise = torch.from_numpy((np.random.default_rng(1).random((900, 1)) < 0.5).astype(np.float32))
    data = row_data(y_NK=noise)
    _, loss = data.fitted(Setting(64, 0.0), 1)
    base_rate = log_loss(noise[data.valid].numpy()[:, 0], np.full(300, noise[data.train].mean().item()))
    assert loss < base_rate + 0.02


def test_training_looks_at_no_label_outside_its_training_and_validation_rows() -> None:
    data = replace(row_data(), train=np.arange(300), valid=np.arange(300, 600))
    flipped_NK = data.y_NK.clone()
    flipped_NK[600:] = 1 - flipped_NK[600:]
    (one, loss), (other, same_loss) = (of.fitted(LINEAR, 1) for of in (data, replace(data, y_NK=flipped_NK)))
    assert loss == same_loss
    assert all((a == b).all() for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_weights_are_decayed_and_biases_are_not() -> None:
    data = row_data()
    data = replace(data, x_NF=torch.zeros_like(data.x_NF))  # inputs without a gradient
    (weights_KF, bias_K), (decayed_KF, same_K) = (
        data.fitted(Setting(0, weight_decay), 1)[0].parameters() for weight_decay in (0.0, 100.0)
    )
    assert decayed_KF.abs().max() < 1e-6 < 0.1 < weights_KF.abs().max()
    assert same_K.item() == bias_K.item()


def test_numbers_are_fitted_by_their_squared_error() -> None:
    rng = np.random.default_rng(0)
    x_NF = rng.normal(size=(3000, 2)).astype(np.float32)
    y_NK = (x_NF @ [0.5, -0.25] + rng.normal(scale=0.1, size=3000)).astype(np.float32)[:, None]
    data = RowData(torch.from_numpy(x_NF), torch.from_numpy(y_NK), np.arange(2000), np.arange(2000, 3000), squared)
    head, loss = data.fitted(Setting(0, 0.0), 1)
    np.testing.assert_allclose(next(iter(head.parameters())).detach().numpy()[0], [0.5, -0.25], atol=0.02)
    assert loss == pytest.approx(0.01, rel=0.15)


def test_pairs_that_share_rows_and_items_are_scored_as_each_by_itself() -> None:
    data = pair_data()
    head, _ = data.fitted(Setting(64, 0.1), 1)
    pairs = torch.tensor([7, 3, 7, 900])
    with torch.inference_mode():
        found = data.logits(head, pairs)
        one_by_one = torch.cat([data.logits(head, pairs[k : k + 1]) for k in range(4)])
        whole = head(data.x_NF, data.item_ME, data.row_P[pairs], data.item_P[pairs])
    torch.testing.assert_close(found, one_by_one)
    torch.testing.assert_close(found, whole)


class Constant(nn.Module):
    """A net that gives the same logit for all rows, and cannot be trained."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit, self.unused = logit, nn.Parameter(torch.zeros(1))

    def forward(self, x_NF: Tensor) -> Tensor:
        return torch.full((len(x_NF), 1), self.logit) + 0 * self.unused


@dataclass(frozen=True)
class Constants:
    """Nets that give ``hidden`` as their logit."""

    grid: Sequence[Setting] = field(default_factory=list)

    def of_rows(self, num_inputs: int, num_outputs: int, setting: Setting) -> nn.Module:
        return Constant(setting.hidden)

    def of_pairs(self, num_inputs: int, num_item_inputs: int, setting: Setting) -> nn.Module:
        raise NotImplementedError


def labels(num_positive: int, num_negative: int) -> NDArray[np.float32]:
    return np.array([[1.0]] * num_positive + [[0.0]] * num_negative, np.float32)


def test_the_setting_with_the_least_loss_on_validation_rows_is_chosen_and_of_equals_the_first() -> None:
    grid = [Setting(-1, 0.1), Setting(3, 0.1), Setting(1, 0.5), Setting(1, 0.1)]
    y_NK = torch.from_numpy(np.vstack([labels(0, 100), labels(73, 27)]))  # the best logit is -∞ to train, 1 to validate
    data = RowData(torch.zeros(200, 1), y_NK, np.arange(100), np.arange(100, 200), logistic, Constants(grid))
    assert best_setting(data, 1) == Setting(1, 0.5)
    assert str(best_setting(data, 1)) == "hidden 1, weight decay 0.5"
    assert str(LINEAR) == "hidden none, weight decay 0.1"


def test_a_seed_decides_all_draws_and_leaves_those_of_the_caller_alone() -> None:
    data, setting = row_data(), Setting(64, 0.1)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, again, other = (data.fitted(setting, seed)[1] for seed in (1, 1, 2))
    assert torch.rand(1) == expected
    assert one == again != other


def test_one_thread_is_used_while_a_net_is_alone_even_if_it_fails() -> None:
    def failing() -> None:
        with alone(1):
            assert torch.get_num_threads() == 1
            raise KeyError

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError):
            failing()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
