"""Propensities: linear models that predict a user's return and volume from counts, fitted on all training rows.

Counts predict whether a user returns better than a code that must also encode tastes, and a consumer with a few
thousand labels can learn that relation only in part. The models are therefore fitted here, where labels are plentiful,
and each one becomes a dimension of the embedding. For every future there are two: the log odds of an event in it
(logistic regression) and the logarithm of its weight (ridge regression).

Shapes: N rows, F inputs, C inputs used by the models, T targets, P propensities.
"""

import numpy as np
from numpy.typing import NDArray

from userrep.features.layout import InputLayout
from userrep.features.targets import TargetLayout

_RIDGE, _STEPS = 1.0, 25
Floats = NDArray[np.float64]


def used_inputs(layout: InputLayout) -> list[int]:
    """Return the indices of the inputs used by the models: counts, days, and their presence flags."""
    scalars = [block for block in layout.blocks if block.kind == "scalar"]
    return [block.start for block in scalars] + [block.flag for block in scalars if block.flag is not None]


def used_targets(targets: TargetLayout) -> list[int]:
    """Return the indices of the models' targets: for each future the flag of any event, then the weight."""
    index = {block.name: block.start for block in targets.blocks}
    return [index[f"{name}_next_{days}d"] for days in targets.futures for name in ("active", "weight")]


def fitted_propensities(x_NC: NDArray[np.float32], y_NP: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Fit one model per column of ``y_NP``, alternating logistic and ridge. Return weight_PC and bias_P.

    Predictions are standardized to mean 0 and standard deviation 1 over the rows. A constant prediction becomes zero.
    Cost: about 25 passes over the rows.
    """
    ones_N1 = np.ones((len(x_NC), 1))
    wide_NC = np.hstack([x_NC.astype(np.float64), ones_N1])
    weight_PC = np.stack(
        [(_logistic if p % 2 == 0 else _ridge)(wide_NC, y_NP[:, p].astype(np.float64)) for p in range(y_NP.shape[1])]
    )
    score_NP: Floats = wide_NC @ weight_PC.T
    spread_P = score_NP.std(axis=0)
    factor_P = np.where(spread_P > 1e-6, 1 / np.maximum(spread_P, 1e-6), 0)
    weight_PC[:, -1] -= score_NP.mean(axis=0)
    weight_PC *= factor_P[:, None]
    return weight_PC[:, :-1], weight_PC[:, -1]


def _ridge(x_NC: Floats, y_N: Floats) -> Floats:
    return np.linalg.solve(x_NC.T @ x_NC + _penalty(x_NC), x_NC.T @ y_N).astype(np.float64)


def _logistic(x_NC: Floats, y_N: Floats) -> Floats:
    """Minimize the penalized negative log-likelihood by Newton's method, halving steps that overshoot."""
    weight_C: Floats = np.zeros(x_NC.shape[1])
    penalty_CC = _penalty(x_NC)
    loss = _loss(x_NC, y_N, weight_C, penalty_CC)
    for _ in range(_STEPS):
        p_N = 1 / (1 + np.exp(-np.clip(x_NC @ weight_C, -30, 30)))
        gradient_C = x_NC.T @ (p_N - y_N) + penalty_CC @ weight_C
        hessian_CC = (x_NC * (p_N * (1 - p_N))[:, None]).T @ x_NC + penalty_CC
        step_C = np.linalg.solve(hessian_CC, gradient_C)
        while (after := _loss(x_NC, y_N, weight_C - step_C, penalty_CC)) > loss and np.abs(step_C).max() > 1e-9:
            step_C /= 2
        weight_C -= step_C
        decrease, loss = loss - after, after
        if decrease < 1e-9 * max(loss, 1.0):
            break
    return weight_C


def _loss(x_NC: Floats, y_N: Floats, weight_C: Floats, penalty_CC: Floats) -> float:
    score_N = x_NC @ weight_C
    return float((np.logaddexp(0, score_N) - y_N * score_N).sum() + weight_C @ penalty_CC @ weight_C / 2)


def _penalty(x_NC: Floats) -> Floats:
    """Return the ridge penalty. The last weight, the bias, gets just enough of it to be determined."""
    penalty_CC = _RIDGE * np.eye(x_NC.shape[1])
    penalty_CC[-1, -1] = 1e-6
    return penalty_CC
