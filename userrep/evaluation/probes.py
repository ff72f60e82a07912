"""Probes: small models that measure how much a representation knows. Penalized regressions and boosted trees.

Held-out users choose each model's L2 penalty or number of boosting rounds. The regressions are convex problems that
start from zero, the trees use a fixed seed, and everything runs on one thread, so the same inputs give the same bits on
any machine. Rough fits, to a lower precision, are enough to compare penalties.

Shapes: N rows, F inputs, G = F + 1 weights (the last for the bias or the item alone), K labels of a row, P pairs, M
items at dates, E numbers of an item.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import lightgbm
import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit

from userrep.evaluation.metrics import Floats, Floats32, Ints, Mask

STRENGTHS = tuple(float(strength) for strength in 10.0 ** np.arange(1, -4.1, -0.5))  # L2 penalties, strongest first
MAX_ROUNDS, _PATIENCE = 400, 20  # boosting rounds; rounds without improvement before stopping
_TREES = {
    "learning_rate": 0.1, "num_leaves": 15, "min_data_in_leaf": 50, "feature_fraction": 0.5, "bagging_fraction": 0.8,
    "bagging_freq": 1, "lambda_l2": 1.0, "max_bin": 63, "seed": 17, "num_threads": 1, "deterministic": True,
    "force_row_wise": True, "verbosity": -1,
}  # fmt: skip
_CLIP = 8.0  # standard deviations
_MAX_STEPS = 100
_PRECISION, _ROUGH_PRECISION = 1e-9, 1e-6  # a fit ends when a step lowers the loss by less, relative to the loss
_CHUNK = 2**24  # item numbers gathered at once, to bound memory

Fit = TypeVar("Fit")


def standardized(x_NF: Floats32, fitted_N: Mask) -> Floats32:
    """Center and scale each input by its mean and standard deviation over the rows ``fitted_N``.

    Inputs that do not vary over those rows become zero. Values are clipped to 8 standard deviations.
    """
    mean_F = x_NF[fitted_N].mean(axis=0, dtype=np.float64)
    spread_F = x_NF[fitted_N].std(axis=0, dtype=np.float64)
    factor_F = np.where(spread_F > 1e-6, 1 / np.maximum(spread_F, 1e-6), 0)
    return np.asarray(np.clip((x_NF - mean_F) * factor_F, -_CLIP, _CLIP).astype(np.float32))


def penalty_path(fit: Callable[[float, Fit | None], Fit], loss_K: Callable[[Fit], Floats]) -> Floats:
    """Weaken the penalty until the mean held-out loss rises; return each label's best penalty.

    ``fit`` takes a penalty and the previous fit as its starting point. It may be rough, because only
    the penalty is kept.
    """
    losses: list[Floats] = []  # of each label, by penalty
    fitted: Fit | None = None
    for strength in STRENGTHS:
        fitted = fit(strength, fitted)
        losses.append(loss_K(fitted))
        if len(losses) > 1 and losses[-1].mean() >= losses[-2].mean():
            break
    return np.asarray(np.take(STRENGTHS, np.argmin(losses, axis=0)))


def fit_logistic(
    x_NF: Floats32, y_NK: Floats32, strength_K: Floats, start_GK: Floats | None = None, *, is_rough: bool = False
) -> Floats:
    """Minimize mean log loss + strength / 2 x squared weights per label; return w_GK, biases last.

    L-BFGS over all labels together. Cost: a few dozen passes over x_NF, each 4 x N x F x K operations.
    """
    num_rows, num_inputs = x_NF.shape
    shape = (num_inputs + 1, y_NK.shape[1])
    matched_FK, num_K = (x_NF.T @ y_NK).astype(np.float64), y_NK.sum(axis=0, dtype=np.float64)
    if start_GK is None:
        start_GK = np.zeros(shape)
        share_K = np.clip(num_K / num_rows, 1e-6, 1 - 1e-6)
        start_GK[-1] = np.log(share_K / (1 - share_K))

    def loss(flat: Floats) -> tuple[float, Floats]:
        w_FK, bias_K = flat.reshape(shape)[:-1], flat.reshape(shape)[-1]
        z_NK = x_NF @ w_FK.astype(np.float32) + bias_K.astype(np.float32)
        p_NK = expit(z_NK)
        value = _softplus(z_NK).sum(dtype=np.float64) - (w_FK * matched_FK).sum() - bias_K @ num_K
        gradient_GK = np.empty(shape)
        gradient_GK[:-1] = (x_NF.T @ p_NK - matched_FK) / num_rows + strength_K * w_FK
        gradient_GK[-1] = (p_NK.sum(axis=0, dtype=np.float64) - num_K) / num_rows
        return value / num_rows + float((strength_K * np.square(w_FK)).sum()) / 2, gradient_GK.ravel()

    return _minimized(loss, start_GK.ravel(), is_rough=is_rough).reshape(shape)


def fit_ridge(x_NF: Floats32, y_N: Floats32, strength: float) -> Floats:
    """Minimize half the mean squared error + strength / 2 x squared weights; return w_G, the bias last."""
    mean_F, mean = x_NF.mean(axis=0, dtype=np.float64), float(y_N.mean(dtype=np.float64))
    gram_FF = (x_NF.T @ x_NF).astype(np.float64) / len(x_NF) - np.outer(mean_F, mean_F)
    matched_F = (x_NF.T @ (y_N - np.float32(mean))).astype(np.float64) / len(x_NF)
    w_F = np.linalg.solve(gram_FF + strength * np.eye(len(mean_F)), matched_F)
    return np.append(w_F, mean - mean_F @ w_F)


def linear(x_NF: Floats32, w_GK: Floats) -> Floats:
    """Return the linear outputs of rows for weights with biases last."""
    return np.asarray((x_NF @ w_GK[:-1].astype(np.float32)).astype(np.float64) + w_GK[-1])


def log_loss(z: Floats, y: Floats32) -> Floats:
    """Return the mean log loss of logits per label."""
    return np.asarray(np.mean(_softplus(z) - y * z, axis=0))


class PairInputs(NamedTuple):
    """Rows x_NF, items item_ME, and pairs (row_P, item_P) in ascending order of row.

    Items are scaled by 1 / sqrt(E), so that a penalty means the same for any E.
    """

    x_NF: Floats32
    item_ME: Floats32
    row_P: Ints
    item_P: Ints


def fit_pairs(
    inputs: PairInputs, y_P: Floats32, strength: float, start_GE: Floats | None = None, *, is_rough: bool = False
) -> Floats:
    """Minimize mean log loss + strength / 2 x squared weights; return w_GE.

    L-BFGS; a pass costs 4 x (N x F + P) x E.
    """
    x_NF, item_ME, row_P, item_P = inputs
    shape = x_NF.shape[1] + 1, item_ME.shape[1]
    starts_N = np.searchsorted(row_P, np.arange(len(x_NF) + 1))

    def loss(flat: Floats) -> tuple[float, Floats]:
        z_P = pair_logits(inputs, flat.reshape(shape))
        error_P = ((expit(z_P) - y_P) / len(y_P)).astype(np.float32)
        error_NM = csr_array((error_P, item_P, starts_N), shape=(len(x_NF), len(item_ME)))
        error_M = np.bincount(item_P, error_P, len(item_ME)).astype(np.float32)
        gradient = np.concatenate([(x_NF.T @ (error_NM @ item_ME)).ravel(), item_ME.T @ error_M])
        return float(log_loss(z_P, y_P)) + strength / 2 * float(flat @ flat), gradient + strength * flat

    start_GE = np.zeros(shape) if start_GE is None else start_GE
    return _minimized(loss, start_GE.ravel(), is_rough=is_rough).reshape(shape)


def pair_logits(inputs: PairInputs, w_GE: Floats) -> Floats:
    """Return the logits of all pairs: x W item + own . item.

    The first F weights score the match of a row and an item, the last the item regardless of the row.
    """
    x_NF, item_ME, row_P, item_P = inputs
    query_NE = x_NF @ w_GE[:-1].astype(np.float32)
    step = max(1, _CHUNK // item_ME.shape[1])
    chunks = [slice(first, first + step) for first in range(0, len(row_P), step)]
    match_P = np.concatenate([np.einsum("pe,pe->p", query_NE[row_P[s]], item_ME[item_P[s]]) for s in chunks])
    own_M = item_ME @ w_GE[-1].astype(np.float32)
    return np.asarray(match_P.astype(np.float64) + own_M[item_P])


def choose_rounds(x_NF: Floats32, y_N: Floats32, train: Ints, valid: Ints, objective: str) -> int:
    """Boost trees until the held-out loss has not fallen for 20 rounds; return the number of rounds before that.

    ``objective``: LightGBM's ``binary`` or ``regression``.
    """
    training = lightgbm.Dataset(x_NF[train], y_N[train], params=_TREES)
    held_out = lightgbm.Dataset(x_NF[valid], y_N[valid], reference=training, params=_TREES)
    stopping = lightgbm.early_stopping(_PATIENCE, verbose=False)
    booster = lightgbm.train(
        _TREES | {"objective": objective}, training, MAX_ROUNDS, valid_sets=[held_out], callbacks=[stopping]
    )
    return booster.best_iteration


def fit_trees(x_NF: Floats32, y_N: Floats32, num_rounds: int, objective: str) -> Callable[[Floats32], Floats]:
    """Boost trees for ``num_rounds`` rounds; return a function that predicts logits or numbers of other rows."""
    booster = lightgbm.train(
        _TREES | {"objective": objective}, lightgbm.Dataset(x_NF, y_N, params=_TREES), max(1, num_rounds)
    )
    return lambda rows_NF: np.asarray(booster.predict(rows_NF, raw_score=True), np.float64)


def _softplus(z: Floats) -> Floats:
    """Return log(1 + exp(z)), several times as fast as ``np.logaddexp``, which would take half of a fit."""
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def _minimized(loss: Callable[[Floats], tuple[float, Floats]], start: Floats, *, is_rough: bool) -> Floats:
    options = {"maxiter": _MAX_STEPS, "gtol": 1e-5, "ftol": _ROUGH_PRECISION if is_rough else _PRECISION}
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x)
