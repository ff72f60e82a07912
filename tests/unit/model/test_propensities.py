"""Propensities: the minima of the penalized losses, standardized; counts without anything to tell are zero."""

import numpy as np
import pytest
from scipy.optimize import minimize

from tests.unit.inference.test_model import layout_of
from userrep.features.targets import TargetLayout
from userrep.model.propensities import fitted_propensities, knots_of, used_inputs, used_targets, with_hinges

pytestmark = pytest.mark.fast


def rows(num: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Draw inputs, and whether a user returns and how much it does."""
    random = np.random.default_rng(seed)
    x_NC = random.normal(size=(num, 4)).astype(np.float32)
    score_N = x_NC @ [1.5, -1.0, 0.0, 0.3] - 2
    returns_N = random.random(num) < 1 / (1 + np.exp(-score_N))
    return x_NC, np.stack([returns_N, score_N + random.normal(size=num)], axis=1).astype(np.float32)


def test_models_minimize_the_penalized_losses_at_mean_0_and_deviation_1() -> None:
    x_NC, y_NP = rows(3000)
    weight_PC, bias_P = fitted_propensities(x_NC, y_NP)
    score_NP = x_NC @ weight_PC.T + bias_P
    np.testing.assert_allclose(score_NP.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(score_NP.std(axis=0), 1, rtol=1e-6)
    x_NC = x_NC.astype(np.float64)

    def log_loss(weight: np.ndarray) -> float:
        score_N = x_NC @ weight[:-1] + weight[-1]
        return float((np.logaddexp(0, score_N) - y_NP[:, 0] * score_N).sum() + weight[:-1] @ weight[:-1] / 2)

    centered_NC = x_NC - x_NC.mean(axis=0)
    ridge_C = np.linalg.solve(centered_NC.T @ centered_NC + np.eye(4), centered_NC.T @ y_NP[:, 1])
    for p, expected_N in enumerate((x_NC @ minimize(log_loss, np.zeros(5)).x[:-1], x_NC @ ridge_C)):
        np.testing.assert_allclose(score_NP[:, p], (expected_N - expected_N.mean()) / expected_N.std(), atol=1e-3)


def test_the_knots_of_a_count_are_its_quartiles() -> None:
    x_NS = np.stack([np.arange(9), np.zeros(9)], axis=1).astype(np.float32)
    assert knots_of(x_NS).tolist() == [[2, 0], [4, 0], [6, 0]]


def test_hinges_are_zero_up_to_their_knot_and_follow_the_inputs() -> None:
    x_NC = np.array([[1, 5, 7], [3, 2, 7]], np.float32)  # two counts and a flag
    knot_KS = np.array([[1, 2], [2, 4]], np.float32)
    assert with_hinges(x_NC, knot_KS).tolist() == [[1, 5, 7, 0, 3, 0, 1], [3, 2, 7, 2, 0, 1, 0]]


def test_hinges_fit_what_no_line_can() -> None:
    """Users return who did a middling number of things."""
    x_NC, _ = rows(2000)
    y_NP = np.tile((np.abs(x_NC[:, :1]) < 0.7).astype(np.float32), 2)
    found = []
    for inputs_NC in (x_NC, with_hinges(x_NC, knots_of(x_NC))):
        weight_PC, bias_P = fitted_propensities(inputs_NC, y_NP)
        found.append([np.corrcoef(score_N, y_NP[:, 0])[0, 1] for score_N in (inputs_NC @ weight_PC.T + bias_P).T])
    assert max(found[0]) < 0.1
    assert min(found[1]) > 0.7


@pytest.mark.parametrize("returns", [0.0, 1.0])
def test_equal_outcomes_of_all_users_give_a_propensity_of_zero(returns: float) -> None:
    x_NC, _ = rows(50)
    weight_PC, bias_P = fitted_propensities(x_NC, np.full((50, 2), returns, np.float32))
    assert np.isfinite(weight_PC).all()
    np.testing.assert_allclose(np.abs(x_NC @ weight_PC.T + bias_P)[:, 1], 0, atol=1e-6)


def test_a_count_that_separates_all_users_has_a_finite_weight() -> None:
    x_NC, _ = rows(200)
    weight_PC, _ = fitted_propensities(x_NC, np.tile(x_NC[:, :1] > 0, 2).astype(np.float32))
    assert np.isfinite(weight_PC).all()
    assert np.abs(weight_PC[0, 0]) > 3 * np.abs(weight_PC[0, 1:]).max()


def test_counts_days_and_their_flags_are_used_and_of_each_future_activity_and_weight() -> None:
    layout = layout_of()
    names = {block.start: block.name for block in layout.blocks if block.kind == "scalar"}
    flags = {block.flag: f"{block.name}?" for block in layout.blocks if block.flag is not None}
    assert [(names | flags)[place] for place in used_inputs(layout)] == [
        *("num_events_7d", "weight_7d", "num_active_days_7d", "days_since_last_event", "days_since_first_event"),
        *("days_since_last_event?", "days_since_first_event?"),
    ]
    targets = TargetLayout.of(layout.spec, [7])
    names = {block.start: block.name for block in targets.blocks}
    assert [names[place] for place in used_targets(targets)] == ["active_next_7d", "weight_next_7d"]
