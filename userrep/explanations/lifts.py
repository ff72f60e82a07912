"""Over-represented labels of a segment of users: lifts with a bound that accounts for chance and for many labels.

Shapes: N users, L labels, S segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import norm

from userrep.explanations.item_labels import without_repeats
from userrep.explanations.user_labels import ACTIVITY, ATTRIBUTE, ITEMS, UserLabels

_ERROR = 0.05  # probability that any label of any segment is listed by chance
LEAST_USERS = 10  # of a listed label in a segment; a smaller group could reveal single users
_MOST_LIFTS = 10  # listed per segment and kind
_IN_NAME = {ITEMS: 2, ATTRIBUTE: 1, ACTIVITY: 1}  # labels of a name by kind
_LEAST_LIFT = 1.5  # of a label in a name; what most users have anyway may be over-represented, too


@dataclass(frozen=True)
class Lift:
    """A label that users of a segment have more of than other users.

    ``share``: mean over the segment's users; for labels of items, over those with items. ``lift``: ``share`` divided by
    the mean over all other users. ``at_least``: lower bound of the lift.
    """

    label: str
    kind: str
    share: float
    lift: float
    at_least: float


def lifts_by_segment(labels: UserLabels, segment_N: NDArray[np.int64], num_segments: int) -> list[list[Lift]]:
    """Return the over-represented labels of each segment, most characteristic first.

    The logarithm of the ratio of two means is approximately normal, with a variance of var1 / (n1 mean1^2) + var2 /
    (n2 mean2^2). For shares of 0 and 1 that is the interval of Katz and others (Biometrics 34, 1978). ``at_least`` is
    the one-sided bound at a level divided by the number of labels and segments (Bonferroni); a label is listed if it is
    above 1. Labels are ordered by share x log(at_least), their part of the divergence between the segment and the rest.
    """
    members_SN = csr_array((np.ones(len(segment_N)), (segment_N, np.arange(len(segment_N)))),
                           shape=(num_segments, len(segment_N)))  # fmt: skip
    sums_SL, squares_SL = members_SN @ labels.share_NL, members_SN @ labels.share_NL.power(2)
    users_SL = (members_SN @ (labels.share_NL > 0).astype(float)).toarray()
    is_items_L = np.array([kind == ITEMS for kind in labels.kinds])
    num_SL = np.where(is_items_L, (members_SN @ labels.has_items_N.astype(float))[:, None],
                      (members_SN.sum(axis=1))[:, None])  # fmt: skip
    mean_SL, error_SL = _mean_and_error(sums_SL.toarray(), squares_SL.toarray(), num_SL)
    rest = (values.sum(axis=0) - values for values in (sums_SL.toarray(), squares_SL.toarray(), num_SL))
    rest_mean_SL, rest_error_SL = _mean_and_error(*rest)
    z = norm.isf(_ERROR / max(1, mean_SL.size))
    lift_SL = mean_SL / rest_mean_SL
    least_SL = lift_SL * np.exp(-z * np.sqrt(error_SL + rest_error_SL))
    is_listed_SL = (users_SL >= LEAST_USERS) & (least_SL > 1)
    weight_SL = np.where(is_listed_SL, mean_SL * np.log(np.maximum(least_SL, 1)), 0)
    lists = []
    for s in range(num_segments):
        lists.append([
            Lift(labels.labels[k], labels.kinds[k], float(mean_SL[s, k]), float(lift_SL[s, k]), float(least_SL[s, k]))
            for k in np.argsort(-weight_SL[s], kind="stable")[: is_listed_SL[s].sum()]
        ])  # fmt: skip
    return [[lift for kind in _IN_NAME for lift in _of_kind(each, kind)[:_MOST_LIFTS]] for each in lists]


def name_of(lifts: Sequence[Lift]) -> str:
    """Return a name from a segment's labels: up to two of items, one attribute and one range of activity."""
    strong = [lift for lift in lifts if lift.lift >= _LEAST_LIFT]
    parts = (
        ", ".join(without_repeats((lift.label for lift in _of_kind(strong, kind)), most))
        for kind, most in _IN_NAME.items()
    )
    return "; ".join(part for part in parts if part) or "no label stands out"


def _of_kind(lifts: Sequence[Lift], kind: str) -> list[Lift]:
    return [lift for lift in lifts if lift.kind == kind]


def _mean_and_error(
    sums_SL: NDArray[np.float64], squares_SL: NDArray[np.float64], num_SL: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means and the squared relative errors of the means. Half a user is added to means of 0."""
    num_SL = np.maximum(num_SL, 1)
    mean_SL = np.where(sums_SL > 0, sums_SL, 0.5) / num_SL
    variance_SL = np.where(sums_SL > 0, np.maximum(squares_SL / num_SL - mean_SL**2, 0), mean_SL * (1 - mean_SL))
    return mean_SL, variance_SL / (num_SL * mean_SL**2)
