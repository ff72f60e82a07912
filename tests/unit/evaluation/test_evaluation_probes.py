"""The probes against scikit-learn's regressions, and what held-out users choose for them."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from userrep.evaluation.probes import (
    MAX_ROUNDS,
    STRENGTHS,
    Floats32,
    PairInputs,
    choose_rounds,
    fit_logistic,
    fit_pairs,
    fit_ridge,
    fit_trees,
    linear,
    log_loss,
    pair_logits,
    penalty_path,
    standardized,
)

pytestmark = pytest.mark.fast


class Labelled(NamedTuple):
    """Rows with two labels: the first follows from two of the inputs, the second is noise with a share of .2."""

    x_NF: Floats32
    y_NK: Floats32


def labelled(num_rows: int, num_inputs: int = 5, seed: int = 0) -> Labelled:
    rng = np.random.default_rng(seed)
    x_NF = rng.normal(size=(num_rows, num_inputs)).astype(np.float32)
    chance_N = expit(0.8 * x_NF[:, 0] - 0.4 * x_NF[:, 1] + 0.3)
    draw_NK = rng.random((num_rows, 2))
    return Labelled(x_NF, (draw_NK < np.stack([chance_N, np.full(num_rows, 0.2)], axis=1)).astype(np.float32))


def test_inputs_are_standardized_by_the_rows_to_be_fitted_alone() -> None:
    x_NF = np.array([[1.0, 5], [3, 5], [1000, 7]], np.float32)
    found = standardized(x_NF, np.array([True, True, False]))
    assert found.tolist() == [[-1, 0], [1, 0], [8, 0]]  # clipped; what does not vary in the rows to be fitted is zero


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31), st.sampled_from([0.01, 0.1, 1.0]))
def test_a_logistic_regression_has_the_weights_of_scikit_learn_for_each_label(seed: int, strength: float) -> None:
    x_NF, y_NK = labelled(900, seed=seed)
    strengths = np.array([strength, 10 * strength])
    found_GK = fit_logistic(x_NF, y_NK, strengths)
    with threadpool_limits(1):
        for k, of_label in enumerate(strengths):
            reference = LogisticRegression(C=1 / (900 * of_label), tol=1e-6).fit(x_NF.astype(np.float64), y_NK[:, k])
            np.testing.assert_allclose(found_GK[:-1, k], reference.coef_[0], atol=2e-3)
            assert found_GK[-1, k] == pytest.approx(reference.intercept_[0], abs=2e-3)


def test_a_fit_that_starts_from_another_ends_at_the_same_weights() -> None:
    x_NF, y_NK = labelled(900)
    weak, strong = np.full(2, 1e-3), np.full(2, 1.0)
    from_strong = fit_logistic(x_NF, y_NK, weak, fit_logistic(x_NF, y_NK, strong))
    np.testing.assert_allclose(from_strong, fit_logistic(x_NF, y_NK, weak), atol=3e-3)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31), st.sampled_from([0.01, 1.0]))
def test_a_ridge_regression_has_the_weights_of_scikit_learn(seed: int, strength: float) -> None:
    x_NF, _ = labelled(500, seed=seed)
    y_N = (3 + x_NF[:, 2] + 0.1 * x_NF[:, 0]).astype(np.float32)
    reference = Ridge(alpha=500 * strength).fit(x_NF.astype(np.float64), y_N)
    wanted = np.append(reference.coef_, reference.intercept_)
    np.testing.assert_allclose(fit_ridge(x_NF, y_N, strength), wanted, atol=1e-4)


def test_weights_give_rows_their_outputs_with_the_bias_last() -> None:
    assert linear(np.array([[1.0, 2]], np.float32), np.array([[3.0, 0], [5, 1], [7, 9]])).tolist() == [[20, 11]]


def pairs_of_taste(seed: int = 0) -> tuple[PairInputs, NDArray[np.bool_]]:
    """Make pairs whose label is whether row and item point the same way."""
    rng = np.random.default_rng(seed)
    x_NF, item_ME = (rng.normal(size=shape).astype(np.float32) for shape in ((60, 3), (20, 2)))
    row_P, item_P = np.sort(rng.integers(0, 60, 3000)), rng.integers(0, 20, 3000)
    return PairInputs(x_NF, item_ME * np.float32(2**-0.5), row_P, item_P), (x_NF[row_P, :2] * item_ME[item_P]).sum(
        axis=1
    ) > 0


def test_a_regression_of_pairs_is_one_of_all_products_and_of_the_items_numbers() -> None:
    inputs, is_positive_P = pairs_of_taste()
    y_P, strength = is_positive_P.astype(np.float32), 0.01
    found = fit_pairs(inputs, y_P, strength)
    x_PF, item_PE = inputs.x_NF[inputs.row_P], inputs.item_ME[inputs.item_P]
    product_PX = (x_PF[:, :, None] * item_PE[:, None, :]).reshape(len(y_P), 6)
    with threadpool_limits(1):
        reference = LogisticRegression(C=1 / (len(y_P) * strength), tol=1e-6, fit_intercept=False)
        reference.fit(np.hstack([product_PX, item_PE]).astype(np.float64), is_positive_P)
    wanted_X = reference.coef_[0]
    np.testing.assert_allclose(found[:-1].ravel(), wanted_X[:6], atol=2e-3)
    np.testing.assert_allclose(found[-1], wanted_X[6:], atol=2e-3)
    logit_P = reference.decision_function(np.hstack([product_PX, item_PE]))
    np.testing.assert_allclose(pair_logits(inputs, found), logit_P, atol=1e-2)


def test_pairs_are_scored_alike_in_one_chunk_and_in_many(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, is_positive_P = pairs_of_taste()
    weights = fit_pairs(inputs, is_positive_P.astype(np.float32), 0.1)
    whole_P = pair_logits(inputs, weights)
    monkeypatch.setattr("userrep.evaluation.probes._CHUNK", 14)  # seven pairs
    assert (pair_logits(inputs, weights) == whole_P).all()


def strengths_of(held_out: list[list[float]]) -> tuple[list[float], int]:
    """Return the strengths chosen by losses of two labels along a path, and how far the path went."""
    tried: list[float] = []

    def fit(strength: float, before: int | None) -> int:
        tried.append(strength)
        return 0 if before is None else before + 1

    strength_K = penalty_path(fit, lambda at: np.array(held_out[at]))
    assert tuple(tried) == STRENGTHS[: len(tried)]
    return strength_K.tolist(), len(tried)


def test_each_label_gets_its_own_penalty_and_the_path_ends_when_the_mean_of_the_losses_rises() -> None:
    found = strengths_of([[0.7, 0.5], [0.5, 0.6], [0.4, 0.65], [0.3, 0.8], [0.1, 0.1]])
    assert found == ([STRENGTHS[3], STRENGTHS[0]], 4)


def test_a_path_goes_to_the_weakest_penalty_where_losses_keep_falling() -> None:
    falling = [[-float(k), 0.0] for k in range(len(STRENGTHS))]
    assert strengths_of(falling) == ([STRENGTHS[-1], STRENGTHS[0]], len(STRENGTHS))


def test_noise_is_given_a_strong_penalty_and_a_clear_label_a_weak_one() -> None:
    x_NF, y_NK = labelled(1200, num_inputs=60)
    y_NK[:, 0] = x_NF[:, 0] > 0

    def held_out(w_GK: NDArray[np.float64]) -> NDArray[np.float64]:
        return log_loss(linear(x_NF[800:], w_GK), y_NK[800:])

    strength_K = penalty_path(
        lambda strength, before: fit_logistic(x_NF[:800], y_NK[:800], np.full(2, strength), before), held_out
    )
    assert strength_K[0] < 0.01 < 0.3 < strength_K[1]
    loss_K = held_out(fit_logistic(x_NF[:800], y_NK[:800], strength_K))
    assert loss_K[0] < 0.2 < 0.45 < loss_K[1] < 0.55  # a constant has 0.50


def test_trees_find_what_no_linear_model_does_and_stop_by_held_out_rows() -> None:
    x_NF, _ = labelled(2000)
    is_noise_N = np.random.default_rng(1).random(2000) < 0.1
    y_N = ((x_NF[:, 0] * x_NF[:, 1] > 0) ^ is_noise_N).astype(np.float32)
    train, valid = np.arange(1000), np.arange(1000, 1500)
    num_rounds = choose_rounds(x_NF, y_N, train, valid, "binary")
    assert 10 < num_rounds < MAX_ROUNDS
    logit_N = fit_trees(x_NF[:1500], y_N[:1500], num_rounds, "binary")(x_NF[1500:])
    assert roc_auc_score(y_N[1500:], logit_N) > 0.85
    again_N = fit_trees(x_NF[:1500], y_N[:1500], num_rounds, "binary")(x_NF[1500:])
    assert (logit_N == again_N).all()


def test_trees_of_numbers_give_numbers() -> None:
    x_NF, _ = labelled(1500)
    y_N = np.abs(x_NF[:, 0])
    num_rounds = choose_rounds(x_NF, y_N, np.arange(800), np.arange(800, 1000), "regression")
    found_N = fit_trees(x_NF[:1000], y_N[:1000], num_rounds, "regression")(x_NF[1000:])
    assert np.square(found_N - y_N[1000:]).mean() < 0.1 * y_N[1000:].var()


def test_fits_repeat_to_the_bit() -> None:
    x_NF, y_NK = labelled(700)
    inputs, is_positive_P = pairs_of_taste()

    def fitted() -> list[NDArray[np.float64]]:
        with threadpool_limits(1):
            pairs = fit_pairs(inputs, is_positive_P.astype(np.float32), 0.1)
            return [fit_logistic(x_NF, y_NK, np.full(2, 0.1)), fit_ridge(x_NF, y_NK[:, 0], 0.1), pairs[:-1]]

    for one, other in zip(fitted(), fitted(), strict=True):
        assert (one == other).all()
