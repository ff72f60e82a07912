"""The task with labels of pairs: will this user have an event with this item in the next days?

Negatives are made by exchange. Of two users at one date, each with an item that only it takes in the window, both items
are positives of the one and negatives of the other. So every item is as often a positive as a negative at each date,
and so is every user: popularity, season or a vector of zeros give nothing away, and only what joins a user and an item
can tell the two apart.

Shapes: N rows, I items, P pairs, M items at dates, E numbers of an item.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from userrep.evaluation.metrics import Scores
from userrep.evaluation.probes import PairInputs, fit_pairs, log_loss, pair_logits, penalty_path, standardized
from userrep.evaluation.rows import ROLES, TEST, TRAIN, VALID, Ints, num_by_role
from userrep.evaluation.tasks.task import LEAST, Floats32, LeftOut, Truth

_MAX_PER_ROW = 10  # positives, drawn where a user takes more
_ATTEMPTS = 30


@dataclass(frozen=True)
class Pairs:
    """P labelled pairs (row, item)."""

    row_P: Ints
    item_P: Ints
    is_positive_P: NDArray[np.bool_]


class PairSetting(NamedTuple):
    """The penalty that held-out users choose."""

    strength: float

    def __str__(self) -> str:
        return f"linear, penalty {self.strength:.1g}"


@dataclass(frozen=True)
class PairProblem:
    """Pairs, and what is known of their items at the pair's date: I x E for each of the dates, of which M are used."""

    truth: Truth
    pairs: Pairs

    @property
    def num_examples(self) -> dict[str, int]:
        """Count the pairs by role."""
        return num_by_role(self._role_P)

    def chosen(self, x_NF: Floats32) -> PairSetting:
        """Choose the penalty by the validation pairs."""
        inputs = self._standardized(x_NF)
        (train, y_train), (valid, y_valid) = (self._examples(inputs, role) for role in (TRAIN, VALID))
        [strength], _ = penalty_path(
            lambda strength, before: fit_pairs(train, y_train, strength, before),
            lambda weights: np.atleast_1d(log_loss(pair_logits(valid, weights), y_valid)),
        )
        return PairSetting(float(strength))

    def scores(self, x_NF: Floats32, choice: PairSetting) -> dict[str, Scores]:
        """Fit the training and validation pairs together; return logits of the test pairs."""
        inputs = self._standardized(x_NF)
        weights = fit_pairs(*self._examples(inputs, TRAIN, VALID), choice.strength)
        test, y_T = self._examples(inputs, TEST)
        row_T = np.sort(self.pairs.row_P[self._role_P == TEST])
        found = Scores(
            pair_logits(test, weights)[:, None], y_T.astype(np.float64)[:, None], self.truth.rows.user_N[row_T]
        )
        return {"auc": found, "accuracy": found}

    @property
    def _role_P(self) -> NDArray[np.int8]:
        return self.truth.rows.role_N[self.pairs.row_P]

    def _standardized(self, x_NF: Floats32) -> PairInputs:
        """Standardize rows and items by those of training and validation, for all pairs."""
        item_ME, at_P = self.item_inputs()
        used_M = np.zeros(len(item_ME), bool)
        used_M[at_P[np.isin(self._role_P, (TRAIN, VALID))]] = True
        is_fitted_N = np.isin(self.truth.rows.role_N, (TRAIN, VALID))
        return PairInputs(standardized(x_NF, is_fitted_N), standardized(item_ME, used_M), self.pairs.row_P, at_P)

    def _examples(self, inputs: PairInputs, *roles: int) -> tuple[PairInputs, Floats32]:
        """Return the pairs of some roles in the order of rows, with their labels; rows and items without a pair go."""
        some = np.flatnonzero(np.isin(self._role_P, roles))
        some = some[np.argsort(inputs.row_P[some], kind="stable")]
        rows, row_P = np.unique(inputs.row_P[some], return_inverse=True)
        items, item_P = np.unique(inputs.item_P[some], return_inverse=True)
        pairs = PairInputs(inputs.x_NF[rows], inputs.item_ME[items], row_P, item_P)
        return pairs, self.pairs.is_positive_P[some].astype(np.float32)

    def item_inputs(self) -> tuple[Floats32, Ints]:
        """Describe each item at each date that has it in a pair: its vectors valid then, and its popularity.

        Returns x_ME and the place in it of each pair's item.
        """
        truth, pairs = self.truth, self.pairs
        num_items = len(truth.activity.item_ids)
        date_P = truth.rows.date_N[pairs.row_P]
        distinct_M, at_P = np.unique(date_P * num_items + pairs.item_P, return_inverse=True)
        date_M, item_M = np.divmod(distinct_M, num_items)
        parts = []
        for d in range(len(truth.rows.dates)):
            mine = item_M[date_M == d]
            popularity = np.log1p(truth.activity.popularity_DI[d, mine])[:, None]
            parts.append(np.hstack([truth.items.at(truth.rows.dates[d])[mine], popularity]))
        return np.vstack(parts).astype(np.float32), at_P.astype(np.int64)


@dataclass(frozen=True)
class NextItem:
    """Which items has the user an event with in ``[as_of, as_of + days)``? Pairs, half of them negatives by exchange.

    Only events count: an item that the user picked at onboarding is in no pair. Neither is one that nobody had an event
    with before the date. ``only_new``: neither is one that the user had an event with before.
    """

    days: int
    only_new: bool = False
    metrics: tuple[str, ...] = ("auc", "accuracy")
    is_drawn: bool = True
    is_akin_to_training: bool = True

    @property
    def name(self) -> str:
        return f"next_item_{self.days}d" + ("_new" if self.only_new else "")

    def problem(self, truth: Truth, seed: int) -> PairProblem | LeftOut:
        """Draw the pairs; users with many items give some of them."""
        pairs = self.pairs(truth, np.random.default_rng(seed))
        problem = PairProblem(truth, pairs)
        for name, count in problem.num_examples.items():
            if count < 4 * LEAST:
                return LeftOut(f"{count} pairs of users and items in the {name} part; {4 * LEAST} are wanted")
        return problem

    def pairs(self, truth: Truth, rng: np.random.Generator) -> Pairs:
        """Draw positives, and exchange their items for negatives among rows of one date and role."""
        taken = truth.futures.num_events(self.days)
        barred = csr_array(truth.activity.picked[truth.rows.user_N]).astype(np.float64)
        if self.only_new:
            barred = barred + truth.futures.history
        never = _keys(csr_array(taken + barred))  # not negatives
        row_P, item_P = _pairs_of(taken)
        sold_P = truth.activity.is_sold_DI[truth.rows.date_N[row_P], item_P]
        fits = sold_P & ~_is_among(row_P * taken.shape[1] + item_P, _keys(barred))
        row_P, item_P = _at_most_per_row(row_P[fits], item_P[fits], rng)
        parts = []
        for d in range(len(truth.rows.dates)):
            for role in ROLES.values():
                mine = (truth.rows.date_N[row_P] == d) & (truth.rows.role_N[row_P] == role)
                parts.append(exchanged(row_P[mine], item_P[mine], never, taken.shape[1], rng))
        return Pairs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def exchanged(
    row_P: Ints, item_P: Ints, never: Ints, num_items: int, rng: np.random.Generator
) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Match positives two by two so that each one's item can be the other's negative; return row, item, is_positive.

    ``never``: keys (row x num_items + item), ascending, of what may not be a negative. Those that find no match in some
    attempts are dropped: mostly items that nearly everybody takes.
    """
    waiting, matched = np.arange(len(row_P)), []
    for _ in range(_ATTEMPTS):
        waiting = rng.permutation(waiting)
        half = len(waiting) // 2
        one, two = waiting[:half], waiting[half : 2 * half]
        fits = ~_is_among(row_P[one] * num_items + item_P[two], never)
        fits &= ~_is_among(row_P[two] * num_items + item_P[one], never)
        matched.append(np.stack([one[fits], two[fits]]))
        waiting = np.concatenate([one[~fits], two[~fits], waiting[2 * half :]])
    one, two = np.concatenate(matched, axis=1)
    row, other = np.concatenate([one, two]), np.concatenate([two, one])
    return (
        np.concatenate([row_P[row], row_P[row]]),
        np.concatenate([item_P[row], item_P[other]]),
        np.arange(2 * len(row)) < len(row),
    )


def _pairs_of(matrix: csr_array) -> tuple[Ints, Ints]:
    row_P, item_P = matrix.nonzero()
    return row_P.astype(np.int64), item_P.astype(np.int64)


def _keys(matrix: csr_array) -> Ints:
    row_P, item_P = _pairs_of(matrix)
    return np.sort(row_P * matrix.shape[1] + item_P)


def _is_among(keys: Ints, ascending: Ints) -> NDArray[np.bool_]:
    if not len(ascending):
        return np.zeros(len(keys), bool)
    at = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    is_there: NDArray[np.bool_] = ascending[at] == keys
    return is_there


def _at_most_per_row(row_P: Ints, item_P: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    order = rng.permutation(len(row_P))
    order = order[np.argsort(row_P[order], kind="stable")]
    row_P, item_P = row_P[order], item_P[order]
    first_P = np.searchsorted(row_P, row_P)
    kept = np.arange(len(row_P)) - first_P < _MAX_PER_ROW
    return row_P[kept], item_P[kept]
