"""Figures of merit against plain Python, on random input too."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from userrep.evaluation.metrics import Scores, bootstrapped, ndcg, resampled_users, value_of

pytestmark = pytest.mark.fast

examples = st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 4)), min_size=2, max_size=40)


def scores_of(rows: list[tuple[int, bool, int]]) -> Scores:
    score, label, user = zip(*rows, strict=True)
    return Scores(np.array(score, float)[:, None], np.array(label, float)[:, None], np.array(user))


@given(examples)
def test_auc_is_the_share_of_pairs_in_the_right_order_ties_counting_half(rows: list[tuple[int, bool, int]]) -> None:
    pairs = [(p, n) for (p, is_p, _), (n, is_n, _) in product(rows, rows) if is_p and not is_n]
    found = value_of("auc", scores_of(rows))
    if pairs:
        assert found == pytest.approx(sum((p > n) + (p == n) / 2 for p, n in pairs) / len(pairs))
    else:
        assert math.isnan(found)


@pytest.mark.parametrize("metric", ["auc", "accuracy", "r2", "ndcg", "recall", "lift"])
@given(rows=examples, times=st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_a_weighted_metric_is_that_of_examples_written_out_as_often(
    metric: str, rows: list[tuple[int, bool, int]], times: list[int]
) -> None:
    written_out = [row for row in rows for _ in range(times[row[2]])]
    found = bootstrapped(metric, scores_of(rows), np.array(times, np.float32)[:, None])[0]
    assert_allclose(found, value_of(metric, scores_of(written_out)) if written_out else math.nan, atol=1e-9)


def test_auc_of_several_labels_is_the_mean_over_them() -> None:
    scores = Scores(np.array([[0.0, 2], [1, 1], [2, 0]]), np.array([[0.0, 0], [1, 1], [1, 1]]), np.arange(3))
    assert value_of("auc", scores) == (1 + 0) / 2
    one_class_less = np.array([[0.0], [1], [0]], np.float32)  # the resampling has the second user only
    assert math.isnan(bootstrapped("auc", scores, one_class_less)[0])
    labels = np.array([[0.0, 0], [1, 1], [1, 0]])  # without the second user, the second label has no positive
    assert bootstrapped("auc", scores._replace(label_MK=labels), np.array([[1.0], [0], [1]], np.float32))[0] == 1


def test_recall_counts_the_positives_among_as_many_best_scores_and_lift_compares_it_with_chance() -> None:
    label_MK = np.array([[1.0, 0], [math.nan, 1], [0, 0], [1, math.nan], [0, 0], [0, 0]])
    score_MK = np.column_stack([[9.0, 8, 7, 6, 5, 4], [3.0, 1, 2, 9, 0, 0]])
    # The first list has two positives, first and third of five that count; the second has one, third of five.
    scores = Scores(score_MK, label_MK, np.arange(6))
    assert value_of("recall", scores) == (1 / 2 + 0) / 2
    assert value_of("lift", scores) == pytest.approx((1 / 2 / (2 / 5) + 0) / 2)


def test_r2_of_the_mean_is_zero_and_of_the_labels_is_one() -> None:
    label_MK = np.random.default_rng(0).normal(size=(50, 1))
    user_M = np.arange(50)
    assert value_of("r2", Scores(np.full((50, 1), label_MK.mean()), label_MK, user_M)) == pytest.approx(0)
    assert value_of("r2", Scores(label_MK, label_MK, user_M)) == pytest.approx(1)


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 20))
def test_ndcg_is_the_discounted_gain_over_that_of_the_best_ranking(gains: list[bool], more: int) -> None:
    num_relevant = sum(gains) + more
    if not num_relevant:
        return
    dcg = sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))
    best = sum(1 / math.log2(place + 2) for place in range(min(num_relevant, len(gains))))
    assert ndcg(np.array([gains], float), np.array([num_relevant]))[0] == pytest.approx(dcg / best)


def test_bootstraps_resample_users_and_are_the_same_for_a_seed() -> None:
    weight_UB = resampled_users(7, 200, seed=3)
    assert (weight_UB.sum(axis=0) == 7).all()
    assert (weight_UB == resampled_users(7, 200, seed=3)).all()
    scores = Scores(np.arange(4.0)[:, None], np.zeros((4, 1)), np.array([0, 0, 1, 1]))
    by_hand = [(w[0] * 1 + w[1] * 5) / (2 * w[0] + 2 * w[1]) for w in weight_UB.T if w[:2].any()]
    found = bootstrapped("ndcg", scores, weight_UB[:, weight_UB[:2].any(axis=0)])
    assert_allclose(found, by_hand)
