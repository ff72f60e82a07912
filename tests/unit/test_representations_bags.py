"""Bags of items: batches of users, users that are held out, and training that is stopped by those."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from tests.support.evaluation_world import NUM_GROUPED, counts_of, events_of_groups
from userrep.errors import UsageError
from userrep.evaluation.representations.bags import Bags, HeldOut, bags_of, held_out, trained

pytestmark = pytest.mark.fast


def test_held_out_users_are_not_trained_on_and_their_items_are_shown_or_hidden() -> None:
    counts_UV = counts_of(events_of_groups())
    training, apart = held_out(counts_UV, np.random.default_rng(0))
    assert set(training) & set(apart.user_Q) == set()
    assert len(apart.user_Q) == NUM_GROUPED // 10
    both_QV = (apart.shown_QV + apart.hidden_QV).toarray()
    assert (both_QV == counts_UV.toarray()[apart.user_Q]).all()
    assert not (apart.shown_QV.toarray() * apart.hidden_QV.toarray()).any()
    hidden_QV = apart.hidden_QV.toarray().astype(np.float32)
    assert apart.ndcg(lambda shown, users: hidden_QV) == pytest.approx(1)
    assert apart.ndcg(lambda shown, users: -hidden_QV + shown.toarray()) < 0.7


def test_one_item_in_five_is_hidden_and_users_with_one_item_take_no_part() -> None:
    sizes = np.repeat([1, 2, 4, 5, 9, 10], 60)
    counts_UV = csr_array((np.arange(12) < sizes[:, None]).astype(np.float64))
    training, apart = held_out(counts_UV, np.random.default_rng(0))
    assert len(training) + len(apart.user_Q) == 300
    assert set(sizes[training]) == {2, 4, 5, 9, 10}
    num_hidden = np.diff(apart.hidden_QV.indptr)
    wanted = {2: 1, 4: 1, 5: 1, 9: 1, 10: 2}
    assert num_hidden.tolist() == [wanted[size] for size in sizes[apart.user_Q].tolist()]


def test_rankings_of_held_out_users_are_judged_by_the_items_that_were_not_shown() -> None:
    shown, hidden = csr_array([[1.0, 0, 0, 0, 0]]), csr_array([[0, 0, 0, 2.0, 1.0]])
    apart = HeldOut(np.array([7]), shown, hidden)
    seen_users: list[int] = []

    def scores_of(shown_BV: csr_array, users_B: np.ndarray) -> np.ndarray:
        seen_users.extend(users_B.tolist())
        return np.array([[9, 4, 3, 5, 1]], np.float32)  # the shown item, a hidden one, two others, the other hidden one

    gain, best = 1 + 1 / math.log2(5), 1 + 1 / math.log2(3)
    assert apart.ndcg(scores_of) == pytest.approx(gain / best)
    assert seen_users == [7]


def test_too_few_users_to_train_on_are_named() -> None:
    with pytest.raises(UsageError, match="19 users have met more than one item"):
        held_out(csr_array(np.ones((19, 3))), np.random.default_rng(0))
    training, apart = held_out(csr_array(np.ones((20, 3))), np.random.default_rng(0))
    assert (len(training), len(apart.user_Q)) == (18, 2)


def test_bags_hold_the_items_of_each_user() -> None:
    counts = np.random.default_rng(0).poisson(0.3, size=(600, 9))
    for bags in bags_of(csr_array(counts), np.arange(600)):
        for b, row in enumerate(bags.rows_B):
            mine = slice(int(bags.start_B[b]), int(bags.start_B[b] + bags.length_B[b]))
            assert bags.item_E[mine].tolist() == np.flatnonzero(counts[row]).tolist()
            assert (bags.row_E[mine] == b).all()


def test_bags_come_in_batches_in_the_order_asked_for() -> None:
    rows = np.random.default_rng(0).permutation(600)[:300]
    batches = list(bags_of(csr_array(np.ones((600, 2))), rows))
    assert [len(bags.rows_B) for bags in batches] == [256, 44]
    assert np.concatenate([bags.rows_B for bags in batches]).tolist() == rows.tolist()


class Counter(nn.Module):
    """A number that each step makes larger by the learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))


def counted(checks: list[float], *, max_steps: int) -> tuple[float, float, int]:
    """Train a counter whose checks come out as given; return its value, its best check, and the number of steps."""
    answers, steps = iter(checks), []

    def loss(net: Counter, bags: Bags, step: int) -> Tensor:
        steps.append(step)
        return -net.value

    net, best = trained(
        Counter, loss, lambda _: next(answers), csr_array(np.ones((10, 2))), np.arange(10), max_steps=max_steps,
        learning_rate=0.5, seed=1,
    )  # fmt: skip
    assert steps == list(range(1, len(steps) + 1))
    return net.value.item(), best, len(steps)


def test_training_stops_after_six_checks_that_are_no_better_and_returns_the_best_weights() -> None:
    value, best, num_steps = counted([0.1, 0.3, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2, 0.9], max_steps=1000)
    assert (best, num_steps) == (0.3, 320)  # a check is made every forty steps, and the second one was best
    assert value == pytest.approx(0.5 * 80, rel=1e-3)


def test_training_ends_with_its_last_step() -> None:
    value, best, num_steps = counted([0.1, 0.2, 0.3], max_steps=120)
    assert (best, num_steps) == (0.3, 120)
    assert value == pytest.approx(0.5 * 120, rel=1e-3)


def test_training_draws_only_the_given_users() -> None:
    users, drawn = np.array([1, 4, 7]), set()

    def loss(net: Counter, bags: Bags, step: int) -> Tensor:
        drawn.update(bags.rows_B.tolist())
        return -net.value

    trained(Counter, loss, lambda _: 1.0, csr_array(np.ones((10, 2))), users, max_steps=40, learning_rate=0.1, seed=1)
    assert drawn == {1, 4, 7}
