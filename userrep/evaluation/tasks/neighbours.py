"""Tasks without a probe: are a user's nearest neighbors similar in future behavior or in attributes?

Shapes: N rows, F numbers, Q rows of one date, P ranks.
"""

from dataclasses import dataclass

import numpy as np

from userrep.evaluation.metrics import Floats, Floats32, Ints, Mask, Scores, ndcg
from userrep.evaluation.probes import standardized
from userrep.evaluation.sampled_rows import TEST, TRAIN, VALID, Rows, indices_in, num_by_role
from userrep.evaluation.tasks.rows import events_by_cluster
from userrep.evaluation.tasks.task import MIN_EXAMPLES, LeftOut, Task, Truth, too_few_values

_NUM_NEIGHBORS = 50
_MAX_POOL = 2000  # rows of a date among which neighbors are searched

AS_IT_IS, STANDARDIZED = "as it is", "standardized"


@dataclass(frozen=True)
class NeighbourProblem:
    """Rows with a kind each; a neighbor of the same date is relevant if it has the same kind.

    ``kind_N``: -1 for rows that do not take part. ``pool_N``: rows that take part. There is no probe; the only setting,
    chosen by nDCG at the training dates, is whether to standardize a representation before taking cosines.
    """

    rows: Rows
    kind_N: Ints
    pool_N: Mask
    seed: int

    @property
    def num_examples(self) -> dict[str, int]:
        """Number of rows by role."""
        return num_by_role(self.rows.role_N[self.pool_N])

    def choose(self, x_NF: Floats32) -> str:
        """Choose whether to standardize before taking cosines."""
        settings = (AS_IT_IS, STANDARDIZED)
        return max(settings, key=lambda setting: float(self._rankings(x_NF, setting, is_test=False)[1].mean()))

    def scores(self, x_NF: Floats32, choice: str) -> dict[str, Scores]:
        """Return the nDCG of each test row that has a relevant neighbor."""
        row_T, ndcg_T = self._rankings(x_NF, choice, is_test=True)
        return {"ndcg": Scores(ndcg_T[:, None], np.zeros((len(row_T), 1)), self.rows.user_N[row_T])}

    def _rankings(self, x_NF: Floats32, setting: str, *, is_test: bool) -> tuple[Ints, Floats]:
        """Rank within each date; return rows with a relevant neighbor and their nDCG.

        Rows are shuffled by the seed, so that ties are broken at random.
        """
        training_N, rng = self.rows.role_N != TEST, np.random.default_rng(self.seed)
        if setting == STANDARDIZED:
            x_NF = standardized(x_NF, training_N)
        parts = []
        for d in range(len(self.rows.dates)):
            row_Q = rng.permutation(np.flatnonzero(self.pool_N & (self.rows.date_N == d) & (training_N != is_test)))
            if len(row_Q) > 1:
                value_Q = neighbours_ndcg(x_NF[row_Q], self.kind_N[row_Q], _NUM_NEIGHBORS)
                is_ranked_Q = ~np.isnan(value_Q)
                parts.append((row_Q[is_ranked_Q], value_Q[is_ranked_Q]))
        row_T, ndcg_T = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return row_T, ndcg_T


def neighbours_ndcg(x_QF: Floats32, kind_Q: Ints, num_neighbors: int) -> Floats:
    """Rank all other rows for each row by cosine; return nDCG, NaN if no other row has the same kind.

    Zero vectors have cosine 0 with every vector. Memory: Q x Q float32.
    """
    norm_Q = np.linalg.norm(x_QF, axis=1, keepdims=True)
    unit_QF = x_QF / np.where(norm_Q > 0, norm_Q, 1)
    cosine_QQ = unit_QF @ unit_QF.T
    np.fill_diagonal(cosine_QQ, -np.inf)
    num_neighbors = min(num_neighbors, len(x_QF) - 1)
    best_QP = np.argpartition(-cosine_QQ, num_neighbors - 1, axis=1)[:, :num_neighbors]
    by_rank = np.argsort(-np.take_along_axis(cosine_QQ, best_QP, axis=1), axis=1, kind="stable")
    best_QP = np.take_along_axis(best_QP, by_rank, axis=1)
    gain_QP = (kind_Q[best_QP] == kind_Q[:, None]).astype(np.float64)
    _, kind_index_Q, counts = np.unique(kind_Q, return_inverse=True, return_counts=True)
    others_Q = counts[kind_index_Q] - 1
    value_Q = np.full(len(x_QF), np.nan)
    has_relevant_Q = others_Q > 0
    value_Q[has_relevant_Q] = ndcg(gain_QP[has_relevant_Q], others_Q[has_relevant_Q])
    return value_Q


def neighbours(days: int) -> Task:
    """Return the task in which a user's kind is the cluster of items with most of its events.

    Events of the days ``[as_of, as_of + days)`` count. Rows without one do not take part.
    """

    def problem(truth: Truth, seed: int) -> NeighbourProblem | LeftOut:
        counts_NC = events_by_cluster(truth, days)
        if not counts_NC.shape[1]:
            return LeftOut("no item has a vector, so items cannot be clustered")
        favorite_N = np.where(counts_NC.max(axis=1) > 0, counts_NC.argmax(axis=1), -1)
        return _problem(truth, favorite_N, seed)

    return Task("neighbours", problem)


def neighbours_by(attribute: str) -> Task:
    """Return the task in which a user's kind is the value of an attribute. Users without a value do not take part.

    For an attribute that is an input, this measures whether the representation preserves it.
    """

    def problem(truth: Truth, seed: int) -> NeighbourProblem | LeftOut:
        values = truth.attributes_of_rows(attribute)
        known = values.unique().drop_null()
        return too_few_values(attribute, len(known)) or _problem(truth, indices_in(values, known), seed)

    return Task(f"neighbours_by_{attribute}", problem)


def _problem(truth: Truth, kind_N: Ints, seed: int) -> NeighbourProblem | LeftOut:
    rows, rng = truth.rows, np.random.default_rng(seed)
    pool_N = np.zeros(len(rows), bool)
    for d in range(len(rows.dates)):
        candidates = np.flatnonzero((rows.date_N == d) & (kind_N >= 0))
        pool_N[rng.permutation(candidates)[:_MAX_POOL]] = True
    for name, roles in (("train", (TRAIN, VALID)), ("test", (TEST,))):
        takes_part_N = pool_N & np.isin(rows.role_N, roles)
        kinds = kind_N[takes_part_N]
        if len(kinds) < 2 * MIN_EXAMPLES or len(np.unique(kinds)) < 2:
            return LeftOut(
                f"{len(kinds)} rows of {len(np.unique(kinds))} kinds in the {name} split; "
                f"at least {2 * MIN_EXAMPLES} rows of 2 kinds are required"
            )
        alike = np.unique(np.stack([rows.date_N[takes_part_N], kinds]), axis=1, return_counts=True)[1]
        num_ranked = int(alike[alike > 1].sum())
        if num_ranked < MIN_EXAMPLES:
            return LeftOut(
                f"{num_ranked} rows of the {name} split share their kind with another row of their date; at least "
                f"{MIN_EXAMPLES} are required"
            )
    return NeighbourProblem(rows, kind_N, pool_N, seed)
