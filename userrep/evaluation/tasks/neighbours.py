"""Tasks without a probe: are the nearest users of a user alike in what it will do, or in who it is?

Shapes: N rows, F numbers, Q rows of one date, P places of a ranking.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from userrep.evaluation.metrics import Scores, ndcg
from userrep.evaluation.probes import standardized
from userrep.evaluation.rows import TEST, TRAIN, VALID, Ints, Rows, num_by_role, places
from userrep.evaluation.tasks.rows import clusters_touched
from userrep.evaluation.tasks.task import LEAST, Floats32, LeftOut, Truth, too_few_values

_PLACES = 50
_MAX_POOL = 2000  # rows of a date among which neighbours are looked for

AS_IT_IS, STANDARDIZED = "as it is", "standardized"


class _Found(NamedTuple):
    rows: Ints
    ndcg: NDArray[np.float64]


@dataclass(frozen=True)
class NeighbourProblem:
    """Rows with a kind each (-1: not in it); a neighbour, of the same date, is relevant if it is of the same kind.

    ``pool_N``: the rows that take part. There is no probe. All that is chosen, by nDCG at the training dates, is
    whether a representation is standardized before cosines are taken.
    """

    rows: Rows
    kind_N: Ints
    pool_N: NDArray[np.bool_]
    seed: int
    num_places: int = _PLACES

    @property
    def num_examples(self) -> dict[str, int]:
        """Count the rows by role."""
        return num_by_role(self.rows.role_N[self.pool_N])

    def chosen(self, x_NF: Floats32) -> str:
        """Choose how cosines are taken."""
        tried = (AS_IT_IS, STANDARDIZED)
        return max(tried, key=lambda how: float(self._found(x_NF, how, is_test=False).ndcg.mean()))

    def scores(self, x_NF: Floats32, choice: str) -> dict[str, Scores]:
        """Return the nDCG of each test row that has a relevant other."""
        found = self._found(x_NF, choice, is_test=True)
        figures_T1 = found.ndcg[:, None]
        return {"ndcg": Scores(figures_T1, np.zeros_like(figures_T1), self.rows.user_N[found.rows])}

    def _found(self, x_NF: Floats32, how: str, *, is_test: bool) -> _Found:
        """Rank within each date; the seed shuffles its rows, so that no order of theirs decides between equals."""
        training_N, rng = self.rows.role_N != TEST, np.random.default_rng(self.seed)
        if how == STANDARDIZED:
            x_NF = standardized(x_NF, training_N)
        parts = []
        for d in range(len(self.rows.dates)):
            mine = rng.permutation(np.flatnonzero(self.pool_N & (self.rows.date_N == d) & (training_N != is_test)))
            if len(mine) > 1:
                value_Q = neighbours_ndcg(x_NF[mine], self.kind_N[mine], self.num_places)
                has_one = ~np.isnan(value_Q)
                parts.append(_Found(mine[has_one], value_Q[has_one]))
        return _Found(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def neighbours_ndcg(x_QF: Floats32, kind_Q: Ints, num_places: int) -> NDArray[np.float64]:
    """Rank for each row all others by cosine; return nDCG, NaN where no other is of its kind.

    Vectors of zeros are at right angles to all others. Memory: Q x Q float32.
    """
    norm_Q = np.linalg.norm(x_QF, axis=1, keepdims=True)
    unit_QF = x_QF / np.where(norm_Q > 0, norm_Q, 1)
    cosine_QQ = unit_QF @ unit_QF.T
    np.fill_diagonal(cosine_QQ, -np.inf)
    num_places = min(num_places, len(x_QF) - 1)
    best_QP = np.argpartition(-cosine_QQ, num_places - 1, axis=1)[:, :num_places]
    in_order = np.argsort(-np.take_along_axis(cosine_QQ, best_QP, axis=1), axis=1, kind="stable")
    best_QP = np.take_along_axis(best_QP, in_order, axis=1)
    gain_QP = (kind_Q[best_QP] == kind_Q[:, None]).astype(np.float64)
    _, place_Q, counts = np.unique(kind_Q, return_inverse=True, return_counts=True)
    others_Q = counts[place_Q] - 1
    value_Q = np.full(len(x_QF), np.nan)
    has_one = others_Q > 0
    value_Q[has_one] = ndcg(gain_QP[has_one], others_Q[has_one])
    return value_Q


@dataclass(frozen=True)
class NeighboursByFavourite:
    """A user's kind is the cluster of items that it has most events with in ``[as_of, as_of + days)``."""

    days: int
    metrics: tuple[str, ...] = ("ndcg",)
    is_drawn: bool = True
    is_akin_to_training: bool = True
    name: str = "neighbours"

    def problem(self, truth: Truth, seed: int) -> NeighbourProblem | LeftOut:
        """Take the rows with an event in those days."""
        counts_NC = clusters_touched(truth, self.days)
        if not counts_NC.shape[1]:
            return LeftOut("no item has a vector to be clustered by")
        favourite_N = np.where(counts_NC.max(axis=1) > 0, counts_NC.argmax(axis=1), -1)
        return _problem(truth, favourite_N, seed)


@dataclass(frozen=True)
class NeighboursByAttribute:
    """A user's kind is the value of an attribute. Of one that is an input, this asks whether it is still there."""

    attribute: str
    metrics: tuple[str, ...] = ("ndcg",)
    is_drawn: bool = True
    is_akin_to_training: bool = False

    @property
    def name(self) -> str:
        return f"neighbours_by_{self.attribute}"

    def problem(self, truth: Truth, seed: int) -> NeighbourProblem | LeftOut:
        """Take the rows of users whose attribute is known."""
        values = truth.attributes_of_rows(self.attribute)
        known = values.unique().drop_null()
        value_N = np.where(values.is_valid().to_numpy(zero_copy_only=False), places(values, known), -1)
        return too_few_values(self.attribute, len(known)) or _problem(truth, value_N, seed)


def _problem(truth: Truth, kind_N: Ints, seed: int) -> NeighbourProblem | LeftOut:
    rows, rng = truth.rows, np.random.default_rng(seed)
    pool_N = np.zeros(len(rows), bool)
    for d in range(len(rows.dates)):
        mine = np.flatnonzero((rows.date_N == d) & (kind_N >= 0))
        pool_N[rng.permutation(mine)[:_MAX_POOL]] = True
    for name, roles in (("train", (TRAIN, VALID)), ("test", (TEST,))):
        kinds = kind_N[pool_N & np.isin(rows.role_N, roles)]
        if len(kinds) < 2 * LEAST or len(np.unique(kinds)) < 2:
            return LeftOut(f"{len(kinds)} rows of {len(np.unique(kinds))} kinds in the {name} part")
    return NeighbourProblem(rows, kind_N, pool_N, seed)
