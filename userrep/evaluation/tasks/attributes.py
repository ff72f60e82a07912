"""Tasks of attributes that are not inputs: predict the user's value of an attribute.

An attribute does not change over time, so a probe would recognize users that it was fitted on. Therefore it is tested
on other users than those for training and validation. Shapes: N rows, U users, K values.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from userrep.evaluation.sampled_users import NO_ROLE, TEST, TRAIN, VALID, Rows
from userrep.evaluation.tasks.rows import RowProblem, too_few_rows
from userrep.evaluation.tasks.task import MIN_EXAMPLES, LeftOut, Truth, too_few_values
from userrep.store.xxhash import hash64

_MAX_VALUES = 10
_PARTS = np.array([TRAIN, TRAIN, VALID, TEST, TEST], np.int8)  # by a hash of the user id
_SEED = 5  # of the hash; fixed, so all seeds of an evaluation have the same split


@dataclass(frozen=True)
class AttributeValue:
    """The user's value of an attribute that is not an input, one value against the rest; mean over values.

    One row per user, the newest. Only the ten most frequent values are used.
    """

    attribute: str
    metrics: tuple[str, ...] = ("auc",)
    is_drawn: bool = False
    is_akin_to_training: bool = False

    @property
    def name(self) -> str:
        return f"attribute_{self.attribute}"

    def problem(self, truth: Truth, seed: int) -> RowProblem | LeftOut:
        """Label the newest row of each user with a known value, for values frequent enough in each split."""
        del seed
        values = truth.attributes_of_rows(self.attribute)
        is_known_N = values.is_valid().to_numpy(zero_copy_only=False)
        rows = split_by_user(truth.rows)
        rows = replace(rows, role_N=np.where(is_known_N, rows.role_N, NO_ROLE).astype(np.int8))
        counts = pc.value_counts(values.filter(pa.array(rows.role_N != NO_ROLE)))
        reason = too_few_values(self.attribute, len(counts))
        if reason:
            return reason
        top = sorted(counts.to_pylist(), key=lambda count: (-count["counts"], count["values"]))[:_MAX_VALUES]
        is_value_KN = [pc.equal(values, kind["values"]).fill_null(False).to_numpy(zero_copy_only=False) for kind in top]
        labels_KN = [is_value_N for is_value_N in is_value_KN if too_few_rows(rows, is_value_N) is None]
        if not labels_KN:
            lacking = f"no value of {self.attribute} has {MIN_EXAMPLES} users with and {MIN_EXAMPLES} users without it"
            return LeftOut(f"{lacking} in each split")
        return RowProblem(rows, np.stack(labels_KN, axis=1).astype(np.float32), "yes_or_no", "auc")


def split_by_user(rows: Rows) -> Rows:
    """Assign roles by user to the newest row of each user, and NO_ROLE to the other rows."""
    newest = np.flatnonzero(np.append(rows.user_N[1:] != rows.user_N[:-1], True))
    role_N = np.full(len(rows), NO_ROLE, np.int8)
    role_N[newest] = _PARTS[hash64(rows.user_ids, seed=_SEED) % len(_PARTS)]
    return replace(rows, role_N=role_N)
