"""Tasks with labels of pairs: will this user have an event with this item in the next days?

Negatives are drawn by exchange. Take two users at one date, each with an item that only that user has in the window:
each item is a positive of one user and a negative of the other. So at each date, every item and every user is a
positive as often as a negative. Popularity, season or a zero vector carry no signal; only the match of user and item
does.

Shapes: N rows, I items, P pairs, M items at dates, E numbers of an item.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from userrep.evaluation.metrics import Floats32, Ints, Mask, Scores
from userrep.evaluation.probes import PairInputs, fit_pairs, log_loss, pair_logits, penalty_path, standardized
from userrep.evaluation.sampled_rows import ROLES, TEST, TRAIN, VALID, num_by_role
from userrep.evaluation.tasks.rows import Setting
from userrep.evaluation.tasks.task import MIN_EXAMPLES, LeftOut, Task, Truth

_MAX_PER_ROW = 10  # positives; a random sample of a user's items if there are more
_ATTEMPTS = 30


@dataclass(frozen=True)
class PairProblem:
    """P labeled pairs (row, item), with the inputs of items at the pair's date: M combinations of item and date."""

    truth: Truth
    row_P: Ints
    item_P: Ints
    is_positive_P: Mask

    @property
    def num_examples(self) -> dict[str, int]:
        """Number of pairs by role."""
        return num_by_role(self._role_P)

    def choose(self, x_NF: Floats32) -> Setting:
        """Choose the penalty on the validation pairs."""
        inputs = self._standardized(x_NF)
        (train, y_train), (valid, y_valid) = (self._examples(inputs, role) for role in (TRAIN, VALID))
        strength_K = penalty_path(
            lambda strength, rough: fit_pairs(train, y_train, strength, rough, is_rough=True),
            lambda weights: np.atleast_1d(log_loss(pair_logits(valid, weights), y_valid)),
        )
        return Setting(strength_K, None)

    def scores(self, x_NF: Floats32, choice: Setting) -> dict[str, Scores]:
        """Fit on the training and validation pairs; return logits of the test pairs."""
        inputs = self._standardized(x_NF)
        weights = fit_pairs(*self._examples(inputs, TRAIN, VALID), float(choice.strength_K[0]))
        test, y_T = self._examples(inputs, TEST)
        row_T = np.sort(self.row_P[self._role_P == TEST])
        scores = Scores(
            pair_logits(test, weights)[:, None], y_T.astype(np.float64)[:, None], self.truth.rows.user_N[row_T]
        )
        return {"auc": scores, "accuracy": scores}

    @property
    def _role_P(self) -> NDArray[np.int8]:
        return self.truth.rows.role_N[self.row_P]

    def _standardized(self, x_NF: Floats32) -> PairInputs:
        """Standardize rows and items by those of training and validation; items are scaled as in ``PairInputs``."""
        item_ME, index_P = self.item_inputs()
        used_M = np.zeros(len(item_ME), bool)
        used_M[index_P[np.isin(self._role_P, (TRAIN, VALID))]] = True
        is_fitted_N = np.isin(self.truth.rows.role_N, (TRAIN, VALID))
        item_ME = standardized(item_ME, used_M) * np.float32(item_ME.shape[1] ** -0.5)
        return PairInputs(standardized(x_NF, is_fitted_N), item_ME, self.row_P, index_P)

    def _examples(self, inputs: PairInputs, *roles: int) -> tuple[PairInputs, Floats32]:
        """Return the pairs of some roles with their labels, ordered by row, and only the rows and items in use."""
        selected = np.flatnonzero(np.isin(self._role_P, roles))
        selected = selected[np.argsort(inputs.row_P[selected], kind="stable")]
        rows, row_P = np.unique(inputs.row_P[selected], return_inverse=True)
        items, item_P = np.unique(inputs.item_P[selected], return_inverse=True)
        pairs = PairInputs(inputs.x_NF[rows], inputs.item_ME[items], row_P, item_P)
        return pairs, self.is_positive_P[selected].astype(np.float32)

    def item_inputs(self) -> tuple[Floats32, Ints]:
        """Return the inputs of each item at each date with a pair: valid vectors, presence flags and popularity.

        Returns x_ME, and the index into it of each pair's item.
        """
        truth = self.truth
        num_items = len(truth.activity.item_ids)
        date_P = truth.rows.date_N[self.row_P]
        distinct_M, index_P = np.unique(date_P * num_items + self.item_P, return_inverse=True)
        date_M, item_M = np.divmod(distinct_M, num_items)
        vectors_ME = np.vstack([truth.items.at(day)[item_M[date_M == d]] for d, day in enumerate(truth.rows.dates)])
        popularity_M = np.log1p(truth.activity.popularity_DI[date_M, item_M])
        return np.hstack([vectors_ME, popularity_M[:, None]]).astype(np.float32), index_P


def next_item(days: int, *, only_new: bool = False) -> Task:
    """Return the task: the items that the user has an event with in ``[as_of, as_of + days)``; negatives by exchange.

    Excluded are items that the user picked at onboarding, and items without an event of any user before the date. With
    ``only_new``, items that the user had an event with before are excluded too.
    """
    name = f"next_item_{days}d" + ("_new" if only_new else "")
    return Task(name, partial(_problem, days=days, only_new=only_new))


def new_users(after: int, days: int, *, is_blank: bool) -> Task:
    """Return the task: the pairs of ``next_item`` over ``days`` days, on rows truncated to the ``after`` newest events.

    The rows' roles are set by the caller: test rows are of new users, training rows of all users. The pairs do not
    depend on ``after``, so results of one representation can be compared. ``is_blank``: a row without events has no
    data at all.
    """

    def problem(truth: Truth, seed: int) -> PairProblem | LeftOut:
        if is_blank and not after:
            return LeftOut(
                "without events, all users are identical: the configuration has no onboarding, no users.attributes "
                "and no users.columns.registered_at"
            )
        rows = truth.rows
        num_new = len(np.unique(rows.user_N[rows.role_N == TEST]))
        count = f"{num_new} of {len(rows.user_ids)} sampled users are new at a test date (for at most {days} days)"
        if num_new < MIN_EXAMPLES:
            return LeftOut(f"{count}; at least {MIN_EXAMPLES} are required")
        drawn = _problem(truth, seed, days=days)
        return LeftOut(f"{count}; {drawn}") if isinstance(drawn, LeftOut) else drawn

    return Task(f"new_users_after_{after}", problem)


def _problem(truth: Truth, seed: int, *, days: int, only_new: bool = False) -> PairProblem | LeftOut:
    problem = draw_pairs(truth, days, np.random.default_rng(seed), only_new=only_new)
    for name, count in problem.num_examples.items():
        if count < 4 * MIN_EXAMPLES:
            return LeftOut(f"{count} user-item pairs in the {name} split; at least {4 * MIN_EXAMPLES} are required")
    return problem


def draw_pairs(truth: Truth, days: int, rng: np.random.Generator, *, only_new: bool = False) -> PairProblem:
    """Draw positives, and exchange their items for negatives among rows of the same date and role."""
    taken = truth.futures.num_events(days)
    excluded = truth.activity.picked[truth.rows.user_N]
    if only_new:
        excluded = excluded + truth.futures.history
    never = taken + excluded  # must not be negatives
    row_P, item_P = taken.nonzero()
    sold_P = truth.activity.is_sold_DI[truth.rows.date_N[row_P], item_P]
    is_allowed_P = sold_P & ~_is_in(excluded, row_P, item_P)
    row_P, item_P = _at_most_per_row(row_P[is_allowed_P], item_P[is_allowed_P], rng)
    parts = []
    for d in range(len(truth.rows.dates)):
        for role in ROLES.values():
            is_in_group_P = (truth.rows.date_N[row_P] == d) & (truth.rows.role_N[row_P] == role)
            parts.append(exchanged(row_P[is_in_group_P], item_P[is_in_group_P], never, rng))
    return PairProblem(truth, *(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def exchanged(row_P: Ints, item_P: Ints, never: csr_array, rng: np.random.Generator) -> tuple[Ints, Ints, Mask]:
    """Match positives in pairs so that the item of each is a negative of the other; return row, item, is_positive.

    ``never``: N x I, not zero for pairs that must not be negatives. Positives without a match after ``_ATTEMPTS``
    attempts are dropped; these are mostly items that nearly all users have.
    """
    waiting, matched = np.arange(len(row_P)), []
    for _ in range(_ATTEMPTS):
        waiting = rng.permutation(waiting)
        half = len(waiting) // 2
        first, second = waiting[:half], waiting[half : 2 * half]
        is_barred = _is_in(never, row_P[first], item_P[second]) | _is_in(never, row_P[second], item_P[first])
        matched.append(np.stack([first[~is_barred], second[~is_barred]]))
        waiting = np.concatenate([first[is_barred], second[is_barred], waiting[2 * half :]])
    first, second = np.concatenate(matched, axis=1)
    own, other = np.concatenate([first, second]), np.concatenate([second, first])
    return (
        np.concatenate([row_P[own], row_P[own]]),
        np.concatenate([item_P[own], item_P[other]]),
        np.arange(2 * len(own)) < len(own),
    )


def _is_in(matrix: csr_array, row_P: Ints, item_P: Ints) -> Mask:
    """Return which pairs have an entry in a matrix."""
    return np.asarray(matrix[row_P, item_P] > 0) if len(row_P) else np.zeros(0, bool)  # otherwise sparse


def _at_most_per_row(row_P: Ints, item_P: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    order = rng.permutation(len(row_P))
    order = order[np.argsort(row_P[order], kind="stable")]
    row_P, item_P = row_P[order], item_P[order]
    first_P = np.searchsorted(row_P, row_P)
    kept = np.arange(len(row_P)) - first_P < _MAX_PER_ROW
    return row_P[kept], item_P[kept]
