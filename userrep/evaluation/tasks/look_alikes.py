"""Tasks of look-alike audiences: part of a list of users is hidden, and found again by likeness to the other users.

The score is that of ``userrep audience``. Shapes: N rows, Q rows of one date, L lists, F numbers.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from userrep.audiences.ensemble import fit_ensemble
from userrep.evaluation.metrics import Floats32, Ints, Mask, Scores, value_of
from userrep.evaluation.probes import standardized
from userrep.evaluation.sampled_rows import ROLES, TEST, Rows, indices_in
from userrep.evaluation.tasks.neighbours import AS_IT_IS, STANDARDIZED
from userrep.evaluation.tasks.rows import events_by_cluster
from userrep.evaluation.tasks.task import LeftOut, Task, Truth, too_few_values

_MAX_POOL = 5000  # rows of a date
_MAX_LISTS = 3
_MAX_SHARE = 0.75  # of the pool that a list may have
_METRICS = ("recall", "lift", "auc")
_HIDDEN = 200  # users of a list that are enough to be found; fewer if there are fewer seeds


class _Pool(NamedTuple):
    """Rows of one date, and which of them each list has."""

    row_Q: Ints
    is_listed_QL: Mask


@dataclass(frozen=True)
class LookAlikeProblem:
    """Lists of users at one training date and one test date.

    ``num_seeds`` users of a list are drawn as seeds; the others are hidden among all users of the pool. There is no
    probe; the only setting is whether to standardize each number of a representation, as ``userrep audience`` does, or
    to divide all by one scale. It is chosen by AUC at the training date.
    """

    rows: Rows
    training: _Pool
    test: _Pool
    num_seeds: int
    seed: int

    @property
    def num_examples(self) -> dict[str, int]:
        """Number of rows by role; training rows only decide on the setting."""
        return {**dict.fromkeys(ROLES, 0), "train": len(self.training.row_Q), "test": len(self.test.row_Q)}

    def choose(self, x_NF: Floats32) -> str:
        """Choose whether to standardize."""
        settings = (AS_IT_IS, STANDARDIZED)
        return max(settings, key=lambda setting: value_of("auc", self._scores(x_NF, setting, self.training)))

    def scores(self, x_NF: Floats32, choice: str) -> dict[str, Scores]:
        """Return the scores of all users of the test date; labels are 1 for hidden users and NaN for seeds."""
        scores = self._scores(x_NF, choice, self.test)
        return dict.fromkeys(_METRICS, scores)

    def _scores(self, x_NF: Floats32, setting: str, pool: _Pool) -> Scores:
        if setting == STANDARDIZED:
            x_NF = standardized(x_NF, self.rows.role_N != TEST)
        x_QF, rng = x_NF[pool.row_Q].astype(np.float64), np.random.default_rng(self.seed)
        x_QF = (x_QF - x_QF.mean(axis=0)) / max(np.sqrt(x_QF.var(axis=0).mean()), 1e-9)
        score_QL, label_QL = np.empty(pool.is_listed_QL.shape), pool.is_listed_QL.astype(np.float64)
        for k, is_listed_Q in enumerate(pool.is_listed_QL.T):
            seeds = rng.choice(np.flatnonzero(is_listed_Q), self.num_seeds, replace=False)
            others_QF = np.delete(x_QF, seeds, axis=0)
            ensemble, _ = fit_ensemble(x_QF[seeds], others_QF, num_seeds=len(seeds), num_others=len(others_QF))
            score_QL[:, k], label_QL[seeds, k] = ensemble.scores(x_QF), np.nan
        return Scores(score_QL, label_QL, self.rows.user_N[pool.row_Q])


def look_alikes(num_seeds: int, days: int, attribute: str | None = None) -> Task:
    """Return the task to find the rest of a list of users from ``num_seeds`` of them.

    A list has the users with an event in a cluster of items in ``[as_of, as_of + days)``, or with one value of an
    ``attribute`` that is not an input. It has at most three quarters of all users, and hides at least as many users as
    there are seeds, or 200; the longest such lists are used. ``recall``: the share of the hidden users among as many
    users with the highest scores. ``lift``: recall divided by that of a random choice. Metrics are means over up to
    three lists, at the newest test date.
    """

    def problem(truth: Truth, seed: int) -> LookAlikeProblem | LeftOut:
        if attribute is None:
            return _problem(truth, seed, events_by_cluster(truth, days) > 0, num_seeds)
        values = truth.attributes_of_rows(attribute)
        counted = values.drop_null().value_counts()
        long_enough = counted.field("values").filter(pc.greater(counted.field("counts"), num_seeds))
        is_listed_NL = indices_in(values, long_enough)[:, None] == np.arange(len(long_enough))
        return too_few_values(attribute, len(counted)) or _problem(truth, seed, is_listed_NL, num_seeds)

    name = f"look_alikes_{num_seeds}" + (f"_by_{attribute}" if attribute else "")
    return Task(name, problem)


def _problem(truth: Truth, seed: int, is_listed_NL: Mask, num_seeds: int) -> LookAlikeProblem | LeftOut:
    """Use the newest training date and the newest test date, and lists that are long enough at both."""
    rows, rng = truth.rows, np.random.default_rng(seed)
    training, test = (_pool(rows, is_listed_NL, is_test=is_test, rng=rng) for is_test in (False, True))
    least = num_seeds + min(num_seeds, _HIDDEN)
    lengths = [(pool.is_listed_QL.sum(axis=0), len(pool.row_Q)) for pool in (training, test)]
    fits_L = [(num_L >= least) & (num_L <= _MAX_SHARE * num_rows) for num_L, num_rows in lengths]
    lists = np.flatnonzero(np.logical_and(*fits_L))
    lists = lists[np.argsort(-lengths[1][0][lists], kind="stable")][:_MAX_LISTS]
    if not len(lists):
        return LeftOut(
            f"no list has at least {least} users and at most {_MAX_SHARE:.0%} of the {len(test.row_Q)} users"
        )
    training, test = (pool._replace(is_listed_QL=pool.is_listed_QL[:, lists]) for pool in (training, test))
    return LookAlikeProblem(rows, training, test, num_seeds, seed)


def _pool(rows: Rows, is_listed_NL: Mask, *, is_test: bool, rng: np.random.Generator) -> _Pool:
    """Return rows of the newest date of a role, in random order, so that equal scores are in random order."""
    in_role_N = (rows.role_N == TEST) == is_test
    row_Q = rng.permutation(np.flatnonzero(in_role_N & (rows.date_N == rows.date_N[in_role_N].max())))[:_MAX_POOL]
    return _Pool(row_Q, is_listed_NL[row_Q])
