"""Tasks of new users: predict items from onboarding picks, attributes and the first few events."""

from dataclasses import dataclass

import numpy as np

from userrep.evaluation.sampled_users import TEST
from userrep.evaluation.tasks.pairs import NextItem, PairProblem
from userrep.evaluation.tasks.task import MIN_EXAMPLES, LeftOut, Truth


@dataclass(frozen=True)
class NewUsers:
    """The pairs of ``NextItem`` over ``days`` days, on rows truncated to the ``after`` newest events.

    The rows' roles are set by the caller: test rows are of new users, training rows of all users. The pairs do not
    depend on ``after``, so results of one representation can be compared. ``is_blank``: a row without events has no
    data at all.
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
        """Draw the pairs. Items picked at onboarding are excluded."""
        if self.is_blank and not self.after:
            return LeftOut(
                "without events, all users are identical: the configuration has no onboarding, no users.attributes "
                "and no users.columns.registered_at"
            )
        rows = truth.rows
        num_new = len(np.unique(rows.user_N[rows.role_N == TEST]))
        count = f"{num_new} of {len(rows.user_ids)} sampled users are new at a test date (for at most {self.days} days)"
        if num_new < MIN_EXAMPLES:
            return LeftOut(f"{count}; at least {MIN_EXAMPLES} are required")
        problem = NextItem(self.days).problem(truth, seed)
        return LeftOut(f"{count}; {problem}") if isinstance(problem, LeftOut) else problem
