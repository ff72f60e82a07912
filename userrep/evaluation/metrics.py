"""Metrics, each computed for many weightings of the examples at once: a bootstrap resampling is a weighting.

Shapes: B weightings, M examples, K labels of an example, U users, Q rankings, P ranks. The metric is NaN for a
weighting under which it is undefined.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Counts = NDArray[np.float32]  # draws of each example or user: whole numbers, so that sums are exact below 2^24

_CHUNK = 2**24  # weights expanded at once, to bound memory


class Scores(NamedTuple):
    """Scores (score_MK) and labels (label_MK) of M test examples, and the index of each example's user."""

    score_MK: Floats
    label_MK: Floats
    user_M: Ints


Metric = Callable[[Floats, Floats, Counts], Floats]  # score_MK, label_MK, weight_MB -> value_B


def auc(score_MK: Floats, label_MK: Floats, weight_MB: Counts) -> Floats:
    """Return the probability that a positive scores above a negative, ties counting half; mean over K labels.

    Labels are 0 and 1, and NaN for examples that do not count. NaN if all weighted examples are of one class.
    """
    return _mean_over_labels(_auc, score_MK, label_MK, weight_MB)


def accuracy(score_MK: Floats, label_MK: Floats, weight_MB: Counts) -> Floats:
    """Return the share of examples whose score has the right sign. Labels are 0 and 1."""
    return mean((score_MK > 0) == (label_MK > 0), label_MK, weight_MB)


def r2(score_MK: Floats, label_MK: Floats, weight_MB: Counts) -> Floats:
    """Return the share of the labels' variance that the scores explain; negative if worse than the mean."""
    error_M, label_M = np.square(label_MK[:, 0] - score_MK[:, 0]), label_MK[:, 0]
    total_B = weight_MB.sum(axis=0, dtype=np.float64)
    mean_B = label_M @ weight_MB / total_B
    spread_B = np.square(label_M) @ weight_MB / total_B - np.square(mean_B)
    return np.asarray(1 - error_M @ weight_MB / total_B / spread_B)


def mean(score_MK: Floats | Mask, label_MK: Floats, weight_MB: Counts) -> Floats:
    """Return the mean score, for metrics that are computed per example."""
    del label_MK
    return np.asarray(score_MK[:, 0].astype(np.float64) @ weight_MB / weight_MB.sum(axis=0, dtype=np.float64))


def recall(score_MK: Floats, label_MK: Floats, weight_MB: Counts) -> Floats:
    """Return the share of the positives among as many examples with the highest scores; mean over K labels.

    Labels are 0 and 1, and NaN for examples that do not count. Equal scores are in the order of the examples.
    """
    return _mean_over_labels(lambda *label: _top(*label)[0], score_MK, label_MK, weight_MB)


def lift(score_MK: Floats, label_MK: Floats, weight_MB: Counts) -> Floats:
    """Return the recall of each label divided by the share of positives, which is that of random scores; mean."""
    return _mean_over_labels(lambda *label: np.divide(*_top(*label)), score_MK, label_MK, weight_MB)


METRICS: dict[str, Metric] = {"auc": auc, "accuracy": accuracy, "r2": r2, "ndcg": mean, "recall": recall, "lift": lift}


def value_of(metric: str, scores: Scores) -> float:
    """Return a metric with all examples weighted equally."""
    ones_MB = np.ones((len(scores.user_M), 1), np.float32)
    return float(_values(metric, scores, ones_MB)[0])


def bootstrapped(metric: str, scores: Scores, weight_UB: Counts) -> Floats:
    """Return a metric for each weighting of users; an example has the weight of its user."""
    step = max(1, _CHUNK // max(1, len(scores.user_M)))
    chunks = [weight_UB[:, start : start + step][scores.user_M] for start in range(0, weight_UB.shape[1], step)]
    return np.concatenate([_values(metric, scores, chunk) for chunk in chunks])


def resampled_users(num_users: int, num_bootstraps: int, seed: int) -> Counts:
    """Draw as many users as there are, with replacement; return the count of each: U x B."""
    rng = np.random.default_rng(seed)
    weight_BU = rng.multinomial(num_users, np.full(num_users, 1 / num_users), size=num_bootstraps)
    return np.ascontiguousarray(weight_BU.T, np.float32)


def ndcg(gain_QP: Floats, ideal_Q: Ints) -> Floats:
    """Return nDCG of rankings with P ranks, best first, for gains of 0 and 1.

    ``ideal_Q``: number of relevant items in total; the ideal ranking fills its first ranks with them.
    """
    num_ranks = gain_QP.shape[1]
    discount_P = 1 / np.log2(np.arange(2, num_ranks + 2))
    best_Q = np.concatenate([[0.0], np.cumsum(discount_P)])[np.minimum(ideal_Q, num_ranks)]
    return np.asarray(gain_QP @ discount_P / best_Q)


def _mean_over_labels(metric: Metric, score_MK: Floats, label_MK: Floats, weight_MB: Counts) -> Floats:
    """Return the mean over labels of a metric of one label, which takes score_M and label_M.

    A label for which it is undefined, such as one whose few users a resampling lacks, does not count there.
    """
    value_KB = np.array([metric(score_MK[:, k], label_MK[:, k], weight_MB) for k in range(score_MK.shape[1])])
    num_B = np.isfinite(value_KB).sum(axis=0)
    return np.asarray(np.where(num_B > 0, np.nansum(value_KB, axis=0) / np.maximum(num_B, 1), np.nan))


def _auc(score_M: Floats, label_M: Floats, weight_MB: Counts) -> Floats:
    positive, negative = np.flatnonzero(label_M > 0), np.flatnonzero(label_M <= 0)
    negative = negative[np.argsort(score_M[negative], kind="stable")]
    below_NB = np.zeros((len(negative) + 1, weight_MB.shape[1]), np.float32)
    np.cumsum(weight_MB[negative], axis=0, out=below_NB[1:])
    lower, upper = (np.searchsorted(score_M[negative], score_M[positive], side=side) for side in ("left", "right"))
    weight_PB = weight_MB[positive]
    won_B = (weight_PB * (below_NB[lower] + below_NB[upper])).sum(axis=0, dtype=np.float64) / 2
    return np.asarray(won_B / weight_PB.sum(axis=0, dtype=np.float64) / below_NB[-1])


def _top(score_M: Floats, label_M: Floats, weight_MB: Counts) -> tuple[Floats, Floats]:
    """Return the share of the positives among as many examples with the highest scores, and their share in all."""
    counted = np.flatnonzero(np.isfinite(label_M))
    best_first = counted[np.argsort(-score_M[counted], kind="stable")]
    weight_MB, is_positive_M = weight_MB[best_first], label_M[best_first] > 0
    before_MB = np.cumsum(weight_MB, axis=0, dtype=np.float64) - weight_MB
    num_B = weight_MB[is_positive_M].sum(axis=0, dtype=np.float64)
    taken_PB = np.clip(num_B - before_MB[is_positive_M], 0, weight_MB[is_positive_M])
    return taken_PB.sum(axis=0) / num_B, num_B / weight_MB.sum(axis=0, dtype=np.float64)


def _values(metric: str, scores: Scores, weight_MB: Counts) -> Floats:
    """Return a metric for each weighting. The metric of a single probe, such as ``auc_trees``, is the same metric."""
    with np.errstate(divide="ignore", invalid="ignore"):  # undefined is NaN, without a warning
        return METRICS[metric.partition("_")[0]](scores.score_MK, scores.label_MK, weight_MB)
