"""Propensities: additive models that predict a user's return and volume from counts, fitted on all training rows.

Counts predict whether a user returns better than a code that must also encode tastes, and a consumer with a few
thousand labels can learn that relation only in part. The models are therefore fitted here, where labels are plentiful,
and each one becomes a dimension of the embedding. For every future there are two: the log odds of an event in it
(logistic regression) and the logarithm of its weight (ridge regression). Both are piecewise linear in each count: next
to the count they read its hinges, max(count - knot, 0), as in Friedman's adaptive regression splines (1991),
with the quartiles as knots.

Shapes: N rows, F inputs, C inputs used by the models, the first S of them counts and days; K knots per count; T
targets, P propensities.
"""

import warnings

import numpy as np
from numpy.typing import NDArray

from userrep.features.layout import InputLayout
from userrep.features.targets import TargetLayout
from userrep.model.weights import NUM_KNOTS

_PENALTY = 1.0  # L2, of the summed losses
Floats = NDArray[np.float64]


def used_inputs(layout: InputLayout) -> list[int]:
    """Return the indices of the inputs used by the models: counts, days, and their presence flags."""
    flags = [block.flag for block in layout.blocks if block.kind == "scalar" and block.flag is not None]
    return [*range(layout.width)[layout.counts], *flags]


def used_targets(targets: TargetLayout) -> list[int]:
    """Return the indices of the models' targets: for each future the flag of any event, then the weight."""
    index = {block.name: block.start for block in targets.blocks}
    return [index[f"{name}_next_{days}d"] for days in targets.futures for name in ("active", "weight")]


def knots_of(x_NS: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return knot_KS, evenly spaced quantiles of each count over the rows: with three knots, the quartiles."""
    levels = np.linspace(0, 1, NUM_KNOTS + 2)[1:-1]
    return np.quantile(x_NS, levels, axis=0).astype(np.float32)


def with_hinges(x_NC: NDArray[np.float32], knot_KS: NDArray[np.float32]) -> NDArray[np.float32]:
    """Append the hinges of the counts, those of the first knot of all counts first."""
    x_NS = x_NC[:, : knot_KS.shape[1]]
    return np.concatenate([x_NC, *(np.maximum(x_NS - knot_S, 0) for knot_S in knot_KS)], axis=1)


def fitted_propensities(x_NC: NDArray[np.float32], y_NP: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Fit one model per column of ``y_NP``, alternating logistic and ridge. Return weight_PC and bias_P.

    Predictions are standardized to mean 0 and standard deviation 1 over the rows. A constant prediction becomes zero.
    Cost: at most 25 passes over the rows.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge  # takes seconds: import it only to train a space

    wide_NC, weights = x_NC.astype(np.float64), []
    for p, y_N in enumerate(y_NP.T.astype(np.float64)):
        if p % 2:
            weights.append(Ridge(_PENALTY).fit(wide_NC, y_N).coef_)
        elif len(np.unique(y_N)) > 1:
            logistic = LogisticRegression(C=1 / _PENALTY, solver="newton-cholesky", tol=1e-8, max_iter=25)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # one pass more would change nothing
                weights.append(logistic.fit(wide_NC, y_N).coef_[0])
        else:
            weights.append(np.zeros(wide_NC.shape[1]))
    score_NP: Floats = wide_NC @ np.stack(weights, axis=1)
    spread_P = score_NP.std(axis=0)
    factor_P = np.where(spread_P > 1e-6, 1 / np.maximum(spread_P, 1e-6), 0)
    return np.stack(weights) * factor_P[:, None], -score_NP.mean(axis=0) * factor_P
