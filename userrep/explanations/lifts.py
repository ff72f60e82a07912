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
_ZERO = 1e-9  # sum of shares below which it is 0, apart from the error of a difference
_LEAST_USERS = 10  # of a listed label in a segment; a smaller group could reveal single users
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
    marks = np.ones(len(segment_N)), (segment_N, np.arange(len(segment_N)))
    members_SN = csr_array(marks, shape=(num_segments, len(segment_N)))
    is_items_L = np.array([kind == ITEMS for kind in labels.kinds])
    num_users_S, num_with_items_S = members_SN.sum(axis=1), members_SN @ labels.has_items_N.astype(float)
    num_SL = np.where(is_items_L, num_with_items_S[:, None], num_users_S[:, None])
    sums_SL, squares_SL = ((members_SN @ part).toarray() for part in (labels.share_NL, labels.share_NL.power(2)))
    mean_SL, error_SL = _mean_and_error(sums_SL, squares_SL, num_SL)
    rest_sums_SL, rest_squares_SL, rest_num_SL = (x.sum(axis=0) - x for x in (sums_SL, squares_SL, num_SL))
    rest_mean_SL, rest_error_SL = _mean_and_error(rest_sums_SL, rest_squares_SL, rest_num_SL)
    lift_SL = mean_SL / rest_mean_SL
    z = norm.isf(_ERROR / max(1, lift_SL.size))
    least_SL = lift_SL * np.exp(-z * np.sqrt(error_SL + rest_error_SL))
    num_having_SL = (members_SN @ (labels.share_NL > 0).astype(float)).toarray()
    is_listed_SL = (num_having_SL >= _LEAST_USERS) & (least_SL > 1)
    weight_SL = np.where(is_listed_SL, mean_SL * np.log(np.maximum(least_SL, 1)), 0)
    lists = [
        [
            Lift(labels.labels[k], labels.kinds[k], float(mean_SL[s, k]), float(lift_SL[s, k]), float(least_SL[s, k]))
            for k in np.argsort(-weight_SL[s], kind="stable")[: is_listed_SL[s].sum()]
        ]
        for s in range(num_segments)
    ]
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
    num_SL, is_zero_SL = np.maximum(num_SL, 1), sums_SL < _ZERO
    mean_SL = np.where(is_zero_SL, 0.5, sums_SL) / num_SL
    variance_SL = np.where(is_zero_SL, mean_SL * (1 - mean_SL), np.maximum(squares_SL / num_SL - mean_SL**2, 0))
    return mean_SL, variance_SL / (num_SL * mean_SL**2)
