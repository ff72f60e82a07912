"""Figures of merit, each over many weightings of the examples at once: a bootstrap is a weighting.

Shapes: B weightings, M examples, K labels of an example, U users.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_CHUNK = 2**24  # numbers of a weighting that are in memory at once


class Scores(NamedTuple):
    """What a head says of M test examples: score_MK and label_MK, and whose they are (places in the users)."""

    score_MK: Floats
    label_MK: Floats
    user_M: Ints


Metric = Callable[[Floats, Floats, Floats], Floats]  # score_MK, label_MK, weight_BM -> value_B


def auc(score_MK: Floats, label_MK: Floats, weight_BM: Floats) -> Floats:
    """Return the chance that a positive scores above a negative, ties counting half; the mean over K labels.

    NaN where all that has weight is of one kind. Labels are 0 and 1.
    """
    columns = [_auc(score_MK[:, k], label_MK[:, k], weight_BM) for k in range(score_MK.shape[1])]
    value_B: Floats = np.mean(columns, axis=0)
    return value_B


def accuracy(score_MK: Floats, label_MK: Floats, weight_BM: Floats) -> Floats:
    """Return the share of examples whose score has the right sign. Labels are 0 and 1."""
    return mean((score_MK > 0) == (label_MK > 0), label_MK, weight_BM)


def r2(score_MK: Floats, label_MK: Floats, weight_BM: Floats) -> Floats:
    """Return the share of the labels' variance that the scores explain; below zero where the mean would be nearer."""
    score_M, label_M = score_MK[:, 0], label_MK[:, 0]
    total_B = weight_BM.sum(axis=1)
    mean_B = weight_BM @ label_M / total_B
    spread_B = weight_BM @ np.square(label_M) / total_B - np.square(mean_B)
    with np.errstate(divide="ignore", invalid="ignore"):
        value_B: Floats = 1 - weight_BM @ np.square(label_M - score_M) / total_B / spread_B
    return value_B


def mean(score_MK: Floats, label_MK: Floats, weight_BM: Floats) -> Floats:
    """Return the mean score: of figures that each example has by itself."""
    del label_MK
    value_B: Floats = weight_BM @ score_MK[:, 0].astype(np.float64) / weight_BM.sum(axis=1)
    return value_B


METRICS: dict[str, Metric] = {"auc": auc, "accuracy": accuracy, "r2": r2, "ndcg": mean}


def value_of(metric: str, scores: Scores) -> float:
    """Return a metric of the examples as they are."""
    ones_BM = np.ones((1, len(scores.user_M)))
    return float(METRICS[metric](scores.score_MK, scores.label_MK, ones_BM)[0])


def bootstrapped(metric: str, scores: Scores, weight_BU: Floats) -> Floats:
    """Return a metric for each weighting of the users; an example weighs what its user does."""
    step = max(1, _CHUNK // max(1, len(scores.user_M)))
    chunks = [weight_BU[start : start + step][:, scores.user_M] for start in range(0, len(weight_BU), step)]
    return np.concatenate([METRICS[metric](scores.score_MK, scores.label_MK, chunk) for chunk in chunks])


def resampled_users(num_users: int, num_bootstraps: int, seed: int) -> Floats:
    """Draw users with replacement, as often as there are users: how often each came, B x U."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_users, np.full(num_users, 1 / num_users), size=num_bootstraps).astype(np.float64)


def ndcg(gain_QP: Floats, ideal_Q: Ints) -> Floats:
    """Return nDCG of rankings of P places, best first, for gains of 0 and 1.

    ``ideal_Q``: how many relevant ones there are in all, of which the best ranking has the first P places full.
    """
    num_places = gain_QP.shape[1]
    discount_P = 1 / np.log2(np.arange(2, num_places + 2))
    best_Q = np.concatenate([[0.0], np.cumsum(discount_P)])[np.minimum(ideal_Q, num_places)]
    value_Q: Floats = gain_QP @ discount_P / best_Q
    return value_Q


def _auc(score_M: Floats, label_M: Floats, weight_BM: Floats) -> Floats:
    order = np.argsort(score_M, kind="stable")
    ascending = score_M[order]
    starts = np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]]))  # of groups of equal scores
    weight_BM = weight_BM[:, order]
    positive_M = label_M[order] > 0
    positive_BG = np.add.reduceat(weight_BM * positive_M, starts, axis=1)
    negative_BG = np.add.reduceat(weight_BM * ~positive_M, starts, axis=1)
    below_BG = np.cumsum(negative_BG, axis=1) - negative_BG / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        value_B: Floats = (positive_BG * below_BG).sum(axis=1) / positive_BG.sum(axis=1) / negative_BG.sum(axis=1)
    return value_B
