"""Tasks of new users: what will they take, as far as onboarding, attributes and a few events can tell?"""

from dataclasses import dataclass

import numpy as np

from userrep.evaluation.rows import TEST
from userrep.evaluation.tasks.pairs import NextItem, PairProblem
from userrep.evaluation.tasks.task import LEAST, LeftOut, Truth


@dataclass(frozen=True)
class NewUsers:
    """Pairs as of ``NextItem`` over ``days`` days, at rows of which the newest ``after`` events are known.

    Rows have these roles: test rows are of users who are new there, and training rows of all. The pairs are the same
    whatever ``after`` is, so that figures of one representation can be compared. ``is_blank``: without events nothing
    at all is known of a row.
    """

    after: int
    days: int
    is_blank: bool
    metrics: tuple[str, ...] = ("auc", "accuracy")
    is_drawn: bool = True
    is_akin_to_training: bool = True

    @property
    def name(self) -> str:
        return f"new_users_after_{self.after}"

    def problem(self, truth: Truth, seed: int) -> PairProblem | LeftOut:
        """Draw the pairs. Items picked at onboarding are in none."""
        if self.is_blank and not self.after:
            return LeftOut(
                "without an event all users are alike: the configuration has no onboarding, no users.attributes and no "
                "users.columns.registered_at"
            )
        rows = truth.rows
        num_new = len(np.unique(rows.user_N[rows.role_N == TEST]))
        said = f"{num_new} of {len(rows.user_ids)} sampled users are new at a test date, {self.days} days there at most"
        if num_new < LEAST:
            return LeftOut(f"{said}; {LEAST} are wanted")
        problem = NextItem(self.days).problem(truth, seed)
        return LeftOut(f"{said}; {problem}") if isinstance(problem, LeftOut) else problem
