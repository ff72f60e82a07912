"""Tasks with labels of rows: who comes back, how much they do, and in which clusters of items.

Shapes: N rows, K labels of a row, I items.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray

from userrep.evaluation.heads import SMALL, Heads, RowData, Setting, best_setting, logistic, squared, standardised
from userrep.evaluation.metrics import Scores
from userrep.evaluation.rows import ROLES, TEST, TRAIN, VALID, Rows
from userrep.evaluation.tasks.task import LEAST, Floats32, LeftOut, Truth


@dataclass(frozen=True)
class RowProblem:
    """All rows with labels y_NK: yes or no (1 and 0), or numbers."""

    rows: Rows
    y_NK: Floats32
    kind: Literal["yes_or_no", "number"]

    @property
    def num_examples(self) -> dict[str, int]:
        """Count the rows by role."""
        return self.rows.num_by_role

    def chosen(self, x_NF: Floats32, seed: int, heads: Heads = SMALL) -> Setting:
        """Choose the head's setting by the validation rows."""
        return best_setting(self._data(x_NF, heads), seed)

    def scores(self, x_NF: Floats32, choice: Setting, seed: int, heads: Heads = SMALL) -> Scores:
        """Train a head; return its logits, or numbers in the labels' unit, at the test rows."""
        data, test = self._data(x_NF, heads), np.flatnonzero(self.rows.role_N == TEST)
        head, _ = data.fitted(choice, seed)
        with torch.inference_mode():
            out_NK = head(data.x_NF[test]).numpy().astype(np.float64)
        center, scale = self._unit
        return Scores(out_NK * scale + center, self.y_NK[test].astype(np.float64), self.rows.user_N[test])

    @property
    def _unit(self) -> tuple[float, float]:
        """What numbers are centred and scaled by: their mean and spread in training rows."""
        if self.kind == "yes_or_no":
            return 0.0, 1.0
        y_NK = self.y_NK[self.rows.role_N == TRAIN]
        return float(y_NK.mean()), max(float(y_NK.std()), 1e-6)

    def _data(self, x_NF: Floats32, heads: Heads) -> RowData:
        is_training = self.rows.role_N == TRAIN
        center, scale = self._unit
        return RowData(
            torch.from_numpy(standardised(x_NF, is_training)),
            torch.from_numpy(((self.y_NK - center) / scale).astype(np.float32)),
            np.flatnonzero(is_training),
            np.flatnonzero(self.rows.role_N == VALID),
            logistic if self.kind == "yes_or_no" else squared,
            heads,
        )


@dataclass(frozen=True)
class _RowTask:
    """What is common to tasks that label all rows by the days ``[as_of, as_of + days)``."""

    days: int
    kind: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = ("auc",)
    has_heads: ClassVar[bool] = True
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
        return lacking or RowProblem(truth.rows, _column(comes_back_N), "yes_or_no")


@dataclass(frozen=True)
class Volume(_RowTask):
    """The logarithm of 1 + the weight of the user's events in ``[as_of, as_of + days)``."""

    kind = "volume"
    metrics = ("r2",)

    def problem(self, truth: Truth, seed: int) -> RowProblem | LeftOut:
        """Label all rows, those without an event with 0."""
        del seed
        volume_N = np.log1p(truth.futures.weight(self.days).sum(axis=1))
        lacking = lacking_kinds(truth.rows, volume_N > 0)
        return lacking or RowProblem(truth.rows, _column(volume_N), "number")


@dataclass(frozen=True)
class NextCategories(_RowTask):
    """In which clusters of items has the user an event in ``[as_of, as_of + days)``? The mean over clusters."""

    kind = "next_categories"

    def problem(self, truth: Truth, seed: int) -> RowProblem | LeftOut:
        """Label all rows, for the clusters that have enough users of either kind in each role."""
        del seed
        touched_NC = clusters_touched(truth, self.days) > 0
        enough = [c for c in range(touched_NC.shape[1]) if lacking_kinds(truth.rows, touched_NC[:, c]) is None]
        if not enough:
            return LeftOut(f"no cluster of items is met by {LEAST} users, and not met by as many, in each part")
        return RowProblem(truth.rows, touched_NC[:, enough].astype(np.float32), "yes_or_no")


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
