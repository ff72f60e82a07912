"""Tasks with one label per row: return, volume, and categories of the next items.

Shapes: N rows, T test rows, K labels of a row, I items, C clusters.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from userrep.evaluation.metrics import Floats, Floats32, Ints, Mask, Scores
from userrep.evaluation.probes import (
    choose_rounds,
    fit_logistic,
    fit_ridge,
    fit_trees,
    linear,
    log_loss,
    penalty_path,
    standardized,
)
from userrep.evaluation.sampled_rows import ROLES, TEST, TRAIN, VALID, num_by_role
from userrep.evaluation.tasks.task import MIN_EXAMPLES, LeftOut, Task, Truth

RowMetric = Literal["auc", "r2"]


class Setting(NamedTuple):
    """Probe settings chosen on validation examples: the penalty of each label's regression, and boosting rounds.

    ``num_rounds``: None without trees; at most 400 rounds are tried.
    """

    strength_K: Floats
    num_rounds: int | None

    def __str__(self) -> str:
        regression = f"linear, penalty {np.median(self.strength_K):.1g}"
        return regression if self.num_rounds is None else f"{regression}; trees, {self.num_rounds} rounds"


@dataclass(frozen=True)
class RowProblem:
    """Labels y_NK of all rows: yes or no (1 and 0), judged by AUC, or one number, judged by R2.

    Probed by penalized regression and, for a single label, by boosted trees. ``metric`` is that of the mean of both
    outputs; ``metric``_linear and ``metric``_trees are those of each probe. Without trees (``has_trees``), results do
    not depend on the coordinates of a representation. Numbers are fitted in their own unit, which affects neither the
    penalty nor the trees. ``role_N``, ``user_N``: role and user of each row.
    """

    role_N: NDArray[np.int8]
    user_N: Ints
    y_NK: Floats32
    metric: RowMetric
    has_trees: bool = True

    @property
    def num_examples(self) -> dict[str, int]:
        """Number of rows by role."""
        return num_by_role(self.role_N)

    def choose(self, x_NF: Floats32) -> Setting:
        """Choose penalties and rounds on the validation rows."""
        x_NF, train, valid = self._inputs(x_NF), self._rows_in(TRAIN), self._rows_in(VALID)
        (x_train, y_train), (x_valid, y_valid) = ((x_NF[rows], self.y_NK[rows]) for rows in (train, valid))
        num_labels = self.y_NK.shape[1]
        strength_K = penalty_path(
            lambda strength, rough: self._fit(x_train, y_train, np.full(num_labels, strength), rough, is_rough=True),
            lambda w_GK: self._loss(linear(x_valid, w_GK), y_valid),
        )
        if num_labels > 1 or not self.has_trees:
            return Setting(strength_K, None)
        return Setting(strength_K, choose_rounds(x_NF, self.y_NK[:, 0], train, valid, self._objective))

    def scores(self, x_NF: Floats32, choice: Setting) -> dict[str, Scores]:
        """Fit on training and validation rows; return logits or numbers of the test rows by metric."""
        x_NF, fitted, test = self._inputs(x_NF), self._rows_in(TRAIN, VALID), self._rows_in(TEST)
        outputs = {"linear": linear(x_NF[test], self._fit(x_NF[fitted], self.y_NK[fitted], choice.strength_K))}
        if choice.num_rounds is not None:
            predict = fit_trees(x_NF[fitted], self.y_NK[fitted, 0], choice.num_rounds, self._objective)
            outputs["trees"] = predict(x_NF[test])[:, None]
        by_metric: dict[str, Floats] = {self.metric: np.mean(list(outputs.values()), axis=0)}
        if len(outputs) > 1:
            by_metric |= {f"{self.metric}_{probe}": out_TK for probe, out_TK in outputs.items()}
        label_TK, user_T = self.y_NK[test].astype(np.float64), self.user_N[test]
        return {metric: Scores(out_TK, label_TK, user_T) for metric, out_TK in by_metric.items()}

    def _fit(
        self,
        x_NF: Floats32,
        y_NK: Floats32,
        strength_K: Floats,
        start_GK: Floats | None = None,
        *,
        is_rough: bool = False,
    ) -> Floats:
        if self.metric == "auc":
            return fit_logistic(x_NF, y_NK, strength_K, start_GK, is_rough=is_rough)
        return fit_ridge(x_NF, y_NK[:, 0], float(strength_K[0]))[:, None]

    def _loss(self, out_NK: Floats, y_NK: Floats32) -> Floats:
        if self.metric == "auc":
            return log_loss(out_NK, y_NK)
        return np.asarray(np.square(out_NK - y_NK).mean(axis=0))

    @property
    def _objective(self) -> str:
        return "binary" if self.metric == "auc" else "regression"

    def _rows_in(self, *roles: int) -> Ints:
        return np.flatnonzero(np.isin(self.role_N, roles))

    def _inputs(self, x_NF: Floats32) -> Floats32:
        return standardized(x_NF, np.isin(self.role_N, (TRAIN, VALID)))


def will_return(days: int) -> Task:
    """Return the task: whether the user has an event in ``[as_of, as_of + days)``."""

    def problem(truth: Truth, _: int) -> RowProblem | LeftOut:
        comes_back_N = truth.futures.num_events(days).sum(axis=1) > 0
        reason = too_few_rows(truth.rows.role_N, comes_back_N)
        return reason or RowProblem(truth.rows.role_N, truth.rows.user_N, _column(comes_back_N), "auc")

    return Task(f"return_{days}d", problem, is_drawn=False)


def volume(days: int) -> Task:
    """Return the task: the logarithm of 1 + the weight of the user's events in ``[as_of, as_of + days)``."""

    def problem(truth: Truth, _: int) -> RowProblem | LeftOut:
        volume_N = np.log1p(truth.futures.weight(days).sum(axis=1))
        is_large_N = volume_N > np.median(volume_N)
        reason = too_few_rows(truth.rows.role_N, is_large_N)  # enough rows, and not all of one value
        return reason or RowProblem(truth.rows.role_N, truth.rows.user_N, _column(volume_N), "r2")

    return Task(f"volume_{days}d", problem, is_drawn=False)


def next_categories(days: int) -> Task:
    """Return the task: the clusters of items in which the user has an event in ``[as_of, as_of + days)``.

    The metric is the mean over clusters with enough positive and negative rows in each split.
    """

    def problem(truth: Truth, _: int) -> RowProblem | LeftOut:
        has_event_NK = frequent_labels(truth.rows.role_N, events_by_cluster(truth, days) > 0)
        if not has_event_NK.size:
            return LeftOut(
                f"no cluster of items has {MIN_EXAMPLES} positive and {MIN_EXAMPLES} negative rows in each split"
            )
        return RowProblem(truth.rows.role_N, truth.rows.user_N, has_event_NK, "auc")

    return Task(f"next_categories_{days}d", problem, is_drawn=False)


def events_by_cluster(truth: Truth, days: int) -> Floats:
    """Count each row's events in ``[as_of, as_of + days)`` by the item's cluster: N x C."""
    known = np.flatnonzero(truth.cluster_I >= 0)
    shape = (len(truth.cluster_I), int(truth.cluster_I.max(initial=-1)) + 1)
    is_in_cluster_IC = scipy.sparse.csr_array((np.ones(len(known)), (known, truth.cluster_I[known])), shape=shape)
    return np.asarray((truth.futures.num_events(days) @ is_in_cluster_IC).toarray())


def frequent_labels(role_N: NDArray[np.int8], label_NK: Mask) -> Floats32:
    """Return the labels that have enough positive and negative rows in each split."""
    enough = [k for k in range(label_NK.shape[1]) if too_few_rows(role_N, label_NK[:, k]) is None]
    return label_NK[:, enough].astype(np.float32)


def too_few_rows(role_N: NDArray[np.int8], is_positive_N: Mask) -> LeftOut | None:
    """Return a reason to leave a label out if a split has too few positive or negative rows; otherwise None."""
    for name, role in ROLES.items():
        is_positive_R = is_positive_N[role_N == role]
        for kind, count in (("positive", int(is_positive_R.sum())), ("negative", int((~is_positive_R).sum()))):
            if count < MIN_EXAMPLES:
                return LeftOut(f"{count} {kind} rows in the {name} split; at least {MIN_EXAMPLES} are required")
    return None


def _column(values_N: Floats | Mask) -> Floats32:
    return values_N.astype(np.float32)[:, None]
