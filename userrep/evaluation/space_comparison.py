"""Comparison of two spaces on a consumer's labels: the paired difference of a metric, with an interval over users.

Regressions are fitted per space on the earlier labels and judged on the later ones, on the same labels and resampled
users. Trees would depend on the coordinates, in which spaces differ.
Shapes: N labels, M judged labels, D dimensions of the old space, U users, B resamplings.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from userrep.config import Evaluation
from userrep.errors import UsageError
from userrep.evaluation.consumer_labels import LabelRows
from userrep.evaluation.metrics import (
    Counts,
    Floats,
    Floats32,
    Ints,
    Mask,
    Scores,
    bootstrapped,
    resampled_users,
    value_of,
)
from userrep.evaluation.results import interval_of
from userrep.evaluation.sampled_rows import TEST, TRAIN, VALID, indices_in, num_by_role
from userrep.evaluation.tasks.rows import RowMetric, RowProblem, too_few_rows
from userrep.evaluation.tasks.task import MIN_EXAMPLES
from userrep.spaces.consumer_model import ConsumerModel
from userrep.spaces.mapping import LinearMap
from userrep.spaces.verdicts import FAIL, PASS, UNDECIDED
from userrep.store.xxhash import hash64

TOLERATED_LOSS = 0.005  # of AUC or R2
RETRAINED, MAPPED, MODEL = "retrained", "mapped", "model"  # what the consumer does with the new space
ALL = "all"  # name of the slice of all judged labels
AUTO = "auto"
AUC: RowMetric = "auc"
R2: RowMetric = "r2"
METRICS = AUTO, AUC, R2
_VALID_EVERY = 5  # one user in five chooses the probes' settings


@dataclass(frozen=True)
class Difference:
    """A metric on both spaces for the same labels. ``interval``: 90 %, of the difference new minus old, over users."""

    num_labels: int
    old_value: float
    new_value: float
    difference: float
    interval: tuple[float, float]
    verdict: str


@dataclass(frozen=True)
class Split:
    """Labels with roles: probes are fitted on the earlier half of the labels, and judged on those from ``cut_us`` on.

    ``test``: indices of the judged labels.
    """

    problem: RowProblem
    cut_us: int

    @property
    def metric(self) -> str:
        return self.problem.metric

    @property
    def test(self) -> Ints:
        return np.flatnonzero(self.problem.role_N == TEST)

    @classmethod
    def of(cls, labels: LabelRows, metric: str, *, seed: int) -> "Split":
        """Split labels at the median of their times.

        Raises
        ------
        UsageError
            If the labels do not fit the metric, have one value, or are too few.
        """
        judged_by = _metric(labels.y_N, metric)
        cut_us = _cut(labels.at_N)
        is_valid_N = hash64(labels.users, seed=seed) % _VALID_EVERY == 0
        role_N = np.where(labels.at_N >= cut_us, TEST, np.where(is_valid_N, VALID, TRAIN)).astype(np.int8)
        if reason := _too_few(role_N, labels.y_N, judged_by):
            raise UsageError(f"labels: too few: {reason}. Add labels, or labels of more dates.")
        user_N = indices_in(labels.users, labels.users.unique())
        return cls(RowProblem(role_N, user_N, labels.y_N[:, None], judged_by, has_trees=False), cut_us)


def _metric(y_N: Floats32, metric: str) -> RowMetric:
    """Return the metric for labels. Raises UsageError if they have one value, or do not fit the requested metric."""
    values = np.unique(y_N)
    is_binary = np.isin(values, (0, 1)).all()
    if len(values) < 2:
        raise UsageError(
            f"labels: all {len(y_N):,} labels with vectors are {values[0]:g}. Add labels of another value."
        )
    if metric == AUC and not is_binary:
        other = values[~np.isin(values, (0, 1))][0]
        raise UsageError(f"--metric auc: labels must be 0 or 1, got {other:g}. Use --metric r2.")
    return AUC if metric == AUC or (metric == AUTO and is_binary) else R2


def _cut(at_N: Ints) -> int:
    """Return the median of the times, or the second time if half of the labels have the first one."""
    median = int(np.sort(at_N)[len(at_N) // 2])
    later = at_N[at_N > median]
    return int(later.min()) if median == at_N.min() and len(later) else median


def _too_few(role_N: NDArray[np.int8], y_N: Floats32, metric: str) -> str | None:
    """Return why probes cannot be fitted or judged on a split, or None."""
    if metric == AUC:
        return too_few_rows(role_N, y_N > 0)
    if few := next((split for split in num_by_role(role_N).items() if split[1] < MIN_EXAMPLES), None):
        return f"{few[1]} rows in the {few[0]} split; at least {MIN_EXAMPLES} are required"
    return None if len(np.unique(y_N[role_N == TEST])) > 1 else "all rows in the test split have one value"


def compare(
    labels: LabelRows, split: Split, linear_map: LinearMap, settings: Evaluation, *, slices: Mapping[str, Mask],
    model: ConsumerModel | None = None,
) -> dict[str, dict[str, Difference]]:  # fmt: skip
    """Compare two spaces on all judged labels and on slices, for each way in which a consumer may use the new space.

    ``retrained``: a regression of each space on its own vectors. ``mapped``: the old space's regression on its vectors,
    and on the new vectors mapped into the old space's coordinates. ``model``: the same with the consumer's own model.

    Parameters
    ----------
    slices : masks of the M judged labels; a slice with fewer than 10 labels (of each class) is left out.

    Cost: probes of both spaces, on one thread, so that results do not depend on the machine.
    """
    test, with_mapped_ND = split.test, labels.old_NE.copy()
    with_mapped_ND[test] = mapped_MD = linear_map(labels.new_NF[test])
    with threadpool_limits(1):
        choice = split.problem.choose(labels.old_NE)
        old, mapped = (split.problem.scores(x_ND, choice)[split.metric] for x_ND in (labels.old_NE, with_mapped_ND))
        new = split.problem.scores(labels.new_NF, split.problem.choose(labels.new_NF))[split.metric]
        scores = {RETRAINED: (old, new), MAPPED: (old, mapped)}
    if model is not None:
        own, own_mapped = (model.scores(z_MD)[:, None] for z_MD in (labels.old_NE[test], mapped_MD))
        scores[MODEL] = old._replace(score_MK=own), old._replace(score_MK=own_mapped)
    users, user_M = np.unique(old.user_M, return_inverse=True)
    weight_UB = resampled_users(len(users), settings.num_bootstraps, settings.seed)
    kept = {ALL: np.ones(len(test), bool)}
    kept |= {name: mask_M for name, mask_M in slices.items() if _is_judged(old.label_MK[mask_M], split.metric)}

    def difference(way: str, mask_M: Mask) -> Difference:
        before, after = (Scores(s.score_MK[mask_M], s.label_MK[mask_M], user_M[mask_M]) for s in scores[way])
        return paired_difference(split.metric, before, after, weight_UB)

    return {way: {name: difference(way, mask_M) for name, mask_M in kept.items()} for way in scores}


def _is_judged(label_MK: Floats, metric: str) -> bool:
    """Return whether a slice has enough labels, and labels of several values."""
    num_ones = int((label_MK > 0).sum())
    fewest = min(num_ones, len(label_MK) - num_ones) if metric == AUC else len(label_MK)
    return fewest >= MIN_EXAMPLES and len(np.unique(label_MK)) > 1


def paired_difference(metric: str, old: Scores, new: Scores, weight_UB: Counts) -> Difference:
    """Compare two scores of the same examples by the same resamplings of their users (paired bootstrap)."""
    values = value_of(metric, old), value_of(metric, new)
    with np.errstate(invalid="ignore"):  # both are infinite if all drawn labels are equal
        difference_B = bootstrapped(metric, new, weight_UB) - bootstrapped(metric, old, weight_UB)
    difference, low, high = interval_of(values[1] - values[0], difference_B)
    return Difference(len(old.user_M), *values, difference, (low, high), verdict_of(low, high))


def verdict_of(low: float, high: float) -> str:
    """Return the verdict on an interval of the difference new minus old.

    pass: the new space loses at most ``TOLERATED_LOSS``. fail: it loses, and perhaps more than that. undecided: the
    labels are too few to tell.
    """
    if low >= -TOLERATED_LOSS:
        return PASS
    return FAIL if high < 0 else UNDECIDED
