"""Tasks with labels of rows: who comes back, how much they do, and in which clusters of items.

Shapes: N rows, K labels of a row, I items.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from userrep.evaluation.metrics import Scores
from userrep.evaluation.probes import (
    Floats,
    Trees,
    choose_rounds,
    fit_logistic,
    fit_ridge,
    fit_trees,
    linear,
    log_loss,
    penalty_path,
    standardized,
)
from userrep.evaluation.rows import ROLES, TEST, TRAIN, VALID, Ints, Rows
from userrep.evaluation.tasks.task import LEAST, Floats32, LeftOut, Truth


class Setting(NamedTuple):
    """What held-out users choose for a representation: the penalty of each label's regression, and trees' rounds.

    ``trees``: None where there are several labels. ``num_rounds`` are tried at 400 at most.
    """

    strength_K: Floats
    linear_loss: float
    trees: Trees | None

    @property
    def is_trees(self) -> bool:
        """Whether trees have the smaller held-out loss."""
        return self.trees is not None and self.trees.loss < self.linear_loss

    def __str__(self) -> str:
        if self.trees is not None and self.is_trees:
            return f"trees, {self.trees.num_rounds} rounds"
        return f"linear, penalty {np.median(self.strength_K):.1g}"


@dataclass(frozen=True)
class RowProblem:
    """All rows with labels y_NK: yes or no (1 and 0), or one number.

    Read by penalized regression and, where there is one label, by boosted trees; ``metric`` is of the one of them that
    has the smaller loss on validation rows, ``metric``_linear and ``metric``_trees are of each.
    """

    rows: Rows
    y_NK: Floats32
    kind: Literal["yes_or_no", "number"]
    metric: str

    @property
    def num_examples(self) -> dict[str, int]:
        """Count the rows by role."""
        return self.rows.num_by_role

    def chosen(self, x_NF: Floats32) -> Setting:
        """Choose penalties and rounds by the validation rows."""
        x_NF, train, valid = self._inputs(x_NF), self._of(TRAIN), self._of(VALID)
        y_NK = self._targets(train)
        (x_train, y_train), (x_valid, y_valid) = ((x_NF[rows], y_NK[rows]) for rows in (train, valid))
        if self.kind == "yes_or_no":
            strength_K, loss_K = penalty_path(
                lambda strength, before: fit_logistic(x_train, y_train, np.full(y_NK.shape[1], strength), before),
                lambda w_GK: log_loss(linear(x_valid, w_GK), y_valid),
            )
        else:
            strength_K, loss_K = penalty_path(
                lambda strength, _: fit_ridge(x_train, y_train[:, 0], strength)[:, None],
                lambda w_GK: np.square(linear(x_valid, w_GK) - y_valid).mean(axis=0),
            )
        alone = y_NK.shape[1] == 1
        trees = choose_rounds(x_NF, y_NK[:, 0], train, valid, self._objective) if alone else None
        return Setting(strength_K, float(loss_K.mean()), trees)

    def scores(self, x_NF: Floats32, choice: Setting) -> dict[str, Scores]:
        """Fit the training and validation rows together; return logits, or numbers, of the test rows by metric."""
        x_NF, fitted, test = self._inputs(x_NF), self._of(TRAIN, VALID), self._of(TEST)
        x_TF, y_NK = x_NF[test], self._targets(fitted)
        if self.kind == "yes_or_no":
            w_GK = fit_logistic(x_NF[fitted], y_NK[fitted], choice.strength_K)
        else:
            w_GK = fit_ridge(x_NF[fitted], y_NK[fitted, 0], float(choice.strength_K[0]))[:, None]
        found = {"linear": self._scores(linear(x_TF, w_GK), test, fitted)}
        if choice.trees is not None:
            grown = fit_trees(x_NF[fitted], y_NK[fitted, 0], choice.trees.num_rounds, self._objective)
            found["trees"] = self._scores(grown(x_TF)[:, None], test, fitted)
        best = found["trees" if choice.is_trees else "linear"]
        return {self.metric: best} | {f"{self.metric}_{probe}": scores for probe, scores in found.items()}

    @property
    def _objective(self) -> str:
        return "binary" if self.kind == "yes_or_no" else "regression"

    def _of(self, *roles: int) -> Ints:
        return np.flatnonzero(np.isin(self.rows.role_N, roles))

    def _inputs(self, x_NF: Floats32) -> Floats32:
        return standardized(x_NF, np.isin(self.rows.role_N, (TRAIN, VALID)))

    def _unit(self, fitted: Ints) -> tuple[float, float]:
        """Return what numbers are centered and scaled by: their mean and spread in some rows."""
        if self.kind == "yes_or_no":
            return 0.0, 1.0
        return float(self.y_NK[fitted].mean()), max(float(self.y_NK[fitted].std()), 1e-6)

    def _targets(self, fitted: Ints) -> Floats32:
        center, scale = self._unit(fitted)
        targets_NK: Floats32 = ((self.y_NK - center) / scale).astype(np.float32)
        return targets_NK

    def _scores(self, out_TK: Floats, test: Ints, fitted: Ints) -> Scores:
        center, scale = self._unit(fitted)
        return Scores(out_TK * scale + center, self.y_NK[test].astype(np.float64), self.rows.user_N[test])


@dataclass(frozen=True)
class _RowTask:
    """What is common to tasks that label all rows by the days ``[as_of, as_of + days)``."""

    days: int
    kind: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = ("auc", "auc_linear", "auc_trees")
    is_drawn: ClassVar[bool] = False
    is_akin_to_training: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.days}d"


@dataclass(frozen=True)
class Return(_RowTask):
    """Has the user any event in ``[as_of, as_of + days)``?"""

    kind = "return"

    def problem(self, truth: Truth, seed: int) -> RowProblem | LeftOut:
        """Label all rows."""
        del seed
        comes_back_N = truth.futures.num_events(self.days).sum(axis=1) > 0
        lacking = lacking_kinds(truth.rows, comes_back_N)
        return lacking or RowProblem(truth.rows, _column(comes_back_N), "yes_or_no", "auc")


@dataclass(frozen=True)
class Volume(_RowTask):
    """The logarithm of 1 + the weight of the user's events in ``[as_of, as_of + days)``."""

    kind = "volume"
    metrics = ("r2", "r2_linear", "r2_trees")

    def problem(self, truth: Truth, seed: int) -> RowProblem | LeftOut:
        """Label all rows, those without an event with 0."""
        del seed
        volume_N = np.log1p(truth.futures.weight(self.days).sum(axis=1))
        lacking = lacking_kinds(truth.rows, volume_N > 0)
        return lacking or RowProblem(truth.rows, _column(volume_N), "number", "r2")


@dataclass(frozen=True)
class NextCategories(_RowTask):
    """In which clusters of items has the user an event in ``[as_of, as_of + days)``? The mean over clusters."""

    kind = "next_categories"
    metrics = ("auc",)

    def problem(self, truth: Truth, seed: int) -> RowProblem | LeftOut:
        """Label all rows, for the clusters that have enough users of either kind in each role."""
        del seed
        touched_NC = clusters_touched(truth, self.days) > 0
        enough = [c for c in range(touched_NC.shape[1]) if lacking_kinds(truth.rows, touched_NC[:, c]) is None]
        if not enough:
            return LeftOut(f"no cluster of items is met by {LEAST} users, and not met by as many, in each part")
        return RowProblem(truth.rows, touched_NC[:, enough].astype(np.float32), "yes_or_no", "auc")


def clusters_touched(truth: Truth, days: int) -> NDArray[np.float64]:
    """Count each row's events of ``[as_of, as_of + days)`` by cluster of the item: N x C."""
    known = np.flatnonzero(truth.cluster_I >= 0)
    shape = (len(truth.cluster_I), int(truth.cluster_I.max(initial=-1)) + 1)
    of_cluster_IC = scipy.sparse.csr_array((np.ones(len(known)), (known, truth.cluster_I[known])), shape=shape)
    counts_NC: NDArray[np.float64] = (truth.futures.num_events(days) @ of_cluster_IC).toarray()
    return counts_NC


def lacking_kinds(rows: Rows, is_positive_N: NDArray[np.bool_]) -> LeftOut | None:
    """Say where there are too few rows of either kind, if there are."""
    for name, role in ROLES.items():
        mine = is_positive_N[rows.role_N == role]
        for kind, count in (("with", int(mine.sum())), ("without", int((~mine).sum()))):
            if count < LEAST:
                return LeftOut(f"{count} rows {kind} it in the {name} part; {LEAST} are wanted")
    return None


def _column(values_N: NDArray[np.float64] | NDArray[np.bool_]) -> Floats32:
    return values_N.astype(np.float32)[:, None]
