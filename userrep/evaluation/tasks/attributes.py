"""The task of what was left out of the input: which value of an attribute has the user?

An attribute does not change, so that a probe that has met a user knows the answer: it is tested on other users than it
is trained and tuned on. Shapes: N rows, U users, K values.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from userrep.evaluation.rows import NO_ROLE, TEST, TRAIN, VALID, Rows
from userrep.evaluation.tasks.rows import RowProblem, lacking_kinds
from userrep.evaluation.tasks.task import LEAST, LeftOut, Truth, too_few_values
from userrep.store.hashing import hash64

_MAX_VALUES = 10
_PARTS = np.array([TRAIN, TRAIN, VALID, TEST, TEST], np.int8)  # of each five users, by a hash of their ids
_SEED = 5  # of that hash: the same users for all seeds of an evaluation


@dataclass(frozen=True)
class WhichValue:
    """Which value of an attribute that is no input has the user? The mean over values of one against the others.

    One row a user, its newest. Of many values the most frequent ten.
    """

    attribute: str
    metrics: tuple[str, ...] = ("auc",)
    is_drawn: bool = False
    is_akin_to_training: bool = False

    @property
    def name(self) -> str:
        return f"attribute_{self.attribute}"

    def problem(self, truth: Truth, seed: int) -> RowProblem | LeftOut:
        """Label the newest row of each user whose value is known, for values that enough users have in each part."""
        del seed
        values = truth.attributes_of_rows(self.attribute)
        is_known_N = values.is_valid().to_numpy(zero_copy_only=False)
        rows = split_by_user(truth.rows)
        rows = replace(rows, role_N=np.where(is_known_N, rows.role_N, NO_ROLE).astype(np.int8))
        counts = pc.value_counts(values.filter(pa.array(rows.role_N != NO_ROLE)))
        lacking = too_few_values(self.attribute, len(counts))
        if lacking:
            return lacking
        by_count = sorted(counts.to_pylist(), key=lambda one: (-one["counts"], one["values"]))
        is_it_KN = [pc.equal(values, one["values"]).fill_null(False).to_numpy(zero_copy_only=False) for one in by_count]
        enough = [is_it_N for is_it_N in is_it_KN[:_MAX_VALUES] if lacking_kinds(rows, is_it_N) is None]
        if not enough:
            return LeftOut(f"no value of {self.attribute} is that of {LEAST} users, and not of as many, in each part")
        return RowProblem(rows, np.stack(enough, axis=1).astype(np.float32), "yes_or_no", "auc")


def split_by_user(rows: Rows) -> Rows:
    """Give the newest row of each user a role by the user, and the others none."""
    newest = np.flatnonzero(np.append(rows.user_N[1:] != rows.user_N[:-1], True))
    role_N = np.full(len(rows), NO_ROLE, np.int8)
    role_N[newest] = _PARTS[hash64(rows.user_ids, seed=_SEED) % len(_PARTS)]
    return replace(rows, role_N=role_N)
