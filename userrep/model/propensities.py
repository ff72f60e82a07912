"""Propensities: what counts say of a user's return and volume, by linear models fitted on all training rows.

Counts tell how likely a user is to come back better than any code that has to hold tastes, too, and a consumer with a
few thousand labels finds that out only in part. So the models are fitted where the labels are plenty, and each is a
dimension of the embedding: for every future the log odds of an event in it (logistic regression) and the logarithm of
its weight (ridge regression).

Shapes: N rows, F inputs, C of them that are used, T targets, P propensities.
"""

import numpy as np
from numpy.typing import NDArray

from userrep.features.layout import InputLayout
from userrep.features.targets import TargetLayout

_RIDGE, _STEPS = 1.0, 25
Floats = NDArray[np.float64]


def used_inputs(layout: InputLayout) -> list[int]:
    """Return the places of the inputs that are used: counts and days, and the flags that say whether they are known."""
    scalars = [block for block in layout.blocks if block.kind == "scalar"]
    return [block.start for block in scalars] + [block.flag for block in scalars if block.flag is not None]


def used_targets(targets: TargetLayout) -> list[int]:
    """Return the places of the targets, for each future whether there is an event, and its weight."""
    place = {block.name: block.start for block in targets.blocks}
    return [place[f"{name}_next_{days}d"] for days in targets.futures for name in ("active", "weight")]


def fitted_propensities(x_NC: NDArray[np.float32], y_NP: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Fit one model per column of ``y_NP``, logistic and ridge in turn; return weight_PC and bias_P.

    Over the rows each has mean 0 and deviation 1; one that does not vary is zero. Cost: some 25 passes over the rows.
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
    """Maximize the penalized likelihood by Newton's method, halving steps that overshoot."""
    weight_C: Floats = np.zeros(x_NC.shape[1])
    penalty_CC = _penalty(x_NC)
    loss = _surprise(x_NC, y_N, weight_C, penalty_CC)
    for _ in range(_STEPS):
        chance_N = 1 / (1 + np.exp(-np.clip(x_NC @ weight_C, -30, 30)))
        gradient_C = x_NC.T @ (chance_N - y_N) + penalty_CC @ weight_C
        curvature_CC = (x_NC * (chance_N * (1 - chance_N))[:, None]).T @ x_NC + penalty_CC
        step_C = np.linalg.solve(curvature_CC, gradient_C)
        while (after := _surprise(x_NC, y_N, weight_C - step_C, penalty_CC)) > loss and np.abs(step_C).max() > 1e-9:
            step_C /= 2
        weight_C -= step_C
        gained, loss = loss - after, after
        if gained < 1e-9 * max(loss, 1.0):
            break
    return weight_C


def _surprise(x_NC: Floats, y_N: Floats, weight_C: Floats, penalty_CC: Floats) -> float:
    score_N = x_NC @ weight_C
    return float((np.logaddexp(0, score_N) - y_N * score_N).sum() + weight_C @ penalty_CC @ weight_C / 2)


def _penalty(x_NC: Floats) -> Floats:
    """Return the ridge: of all weights but the last, the bias, which gets just enough to be determined."""
    penalty_CC = _RIDGE * np.eye(x_NC.shape[1])
    penalty_CC[-1, -1] = 1e-6
    return penalty_CC
