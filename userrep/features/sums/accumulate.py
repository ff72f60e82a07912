"""Sums per user over windows: NumPy on blocks of users, the one place where events become features.

Every sum is exact (vectors are multiples of 2^-16, weights of 2^-8, sums are float64), so that neither the order of
rows nor their split changes a bit, and what was added can be taken away again without a trace.

Shapes: U users, N rows of tiles, P picks, R windows (the history's is the last), T days, E numbers of all modalities'
vectors, M modalities, X = E + M (vectors, and beside them one mark per modality: the item has a vector), S sums per
user, K words of context.
Ring r holds the days that window r has and window r-1 has not: a window's sums are those of its ring and the ones
before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from userrep.features.spec import NUM_WEEKDAYS, PARTS_OF_DAY, FeatureSpec
from userrep.utc import day_number

EXACT_BELOW = 2.0**28  # half of what float64 holds exactly: sums before and after a change meet on the way
NEVER = np.iinfo(np.int64).min
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Tiles:
    """Tiles of a block of users, as arrays. ``before``, ``after``: does a row count in the sums before, and after."""

    user_N: Ints
    day_N: Ints
    weight_N: Floats
    num_events_N: Ints
    at_N: Ints  # microseconds since 1970
    parts_N4: Ints
    context_NK: scipy.sparse.csr_array
    before_N: Flags
    after_N: Flags

    def rings(self, spec: FeatureSpec, as_of: date) -> Ints:
        """Return each row's ring as seen from ``as_of``, events of ``[as_of - w, as_of)``; -1 outside all windows."""
        age_N = day_number(as_of) - self.day_N
        inside_N = (age_N >= 1) & (age_N <= spec.span)
        return np.where(inside_N, np.searchsorted(spec.windows, age_N), -1)


@dataclass(frozen=True)
class Sums:
    """All that is summed of U users at one as-of date, and the time of their last event of each day.

    ``flat_US`` holds, per user: R x X pooled sums (by ring), R weights, R numbers of events (by ring), and of the
    longest window the numbers of events by part of the day and by weekday. ``last_at_UT`` begins with ``first_day``.
    ``picks_UX``: the sums of the vectors of the onboarding picks, where they are known; no window moves them.
    """

    flat_US: Floats
    last_at_UT: Ints
    first_day: int
    context_UK: scipy.sparse.csr_array
    picks_UX: Floats | None = None

    @classmethod
    def zeros(cls, num_users: int, spec: FeatureSpec, days: range, num_words: int) -> "Sums":
        """Return the sums of users without events; ``days``: those that ``last_at_UT`` has room for."""
        return cls(
            flat_US=np.zeros((num_users, num_sums(spec))),
            last_at_UT=np.full((num_users, len(days)), NEVER),
            first_day=days.start,
            context_UK=scipy.sparse.csr_array((num_users, num_words), dtype=np.int64),
        )

    @classmethod
    def zeros_like(cls, sums: "Sums") -> "Sums":
        """Return empty sums of the same users; the last events of each day, which no item vector touches, stay."""
        no_context = scipy.sparse.csr_array(sums.context_UK.shape, dtype=np.int64)
        return replace(sums, flat_US=np.zeros_like(sums.flat_US), context_UK=no_context)

    def pooled_URX(self, spec: FeatureSpec) -> Floats:
        """View the pooled sums by ring."""
        width = len(spec.windows) * pooled_width(spec)
        return self.flat_US[:, :width].reshape(len(self.flat_US), len(spec.windows), -1)

    def counts_US(self, spec: FeatureSpec) -> Floats:
        """View what is beside the pooled sums: R weights, R numbers of events, 4 parts of the day, 7 weekdays."""
        return self.flat_US[:, len(spec.windows) * pooled_width(spec) :]

    def num_events_UR(self, spec: FeatureSpec) -> Floats:
        """View the numbers of events by ring."""
        num_rings = len(spec.windows)
        return self.counts_US(spec)[:, num_rings : 2 * num_rings]

    def weight_UR(self, spec: FeatureSpec) -> Floats:
        """View the weights by ring."""
        return self.counts_US(spec)[:, : len(spec.windows)]

    def shares_US(self, spec: FeatureSpec) -> Floats:
        """View what is counted over the longest window alone: 4 parts of the day, 7 weekdays."""
        return self.counts_US(spec)[:, 2 * len(spec.windows) :]

    def last_at_before(self, spec: FeatureSpec, as_of: date) -> Ints:
        """View the last events of all windows' days, the oldest day first."""
        end = day_number(as_of) - self.first_day
        return self.last_at_UT[:, end - spec.span : end]


def pooled_width(spec: FeatureSpec) -> int:
    """Return X: numbers of all modalities' vectors, and one mark per modality."""
    return sum(spec.modalities.values()) + len(spec.modalities)


def num_sums(spec: FeatureSpec) -> int:
    """Return S."""
    num_rings = len(spec.windows)
    return num_rings * (pooled_width(spec) + 2) + len(PARTS_OF_DAY) + NUM_WEEKDAYS


def moved(
    sums: Sums,
    tiles: Tiles,
    item_N: Ints,
    vectors_IX: Floats,
    spec: FeatureSpec,
    *,
    ring_before_N: Ints,
    ring_after_N: Ints,
) -> Sums:
    """Move tiles between rings: subtract them where they were, add them where they are now.

    ``item_N``: each row's row of ``vectors_IX``; -1 where the item has no vector, which counts as an event all the
    same. Only rows whose ring changes (-1: in none) cost anything: proportional to their number x X.
    """
    changed_N = ring_before_N != ring_after_N
    out_N, in_N = np.flatnonzero(changed_N & (ring_before_N >= 0)), np.flatnonzero(changed_N & (ring_after_N >= 0))
    rows = np.concatenate([out_N, in_N])
    if not len(rows):
        return sums
    num_users, num_rings = len(sums.flat_US), len(spec.windows)
    sign = np.concatenate([np.full(len(out_N), -1.0), np.ones(len(in_N))])
    cell = tiles.user_N[rows] * num_rings + np.concatenate([ring_before_N[out_N], ring_after_N[in_N]])
    weight, num_events = sign * tiles.weight_N[rows], sign * tiles.num_events_N[rows]

    with_vector = np.flatnonzero(item_N[rows] >= 0)
    shape = (num_users * num_rings, len(vectors_IX))
    entries = (weight[with_vector], (cell[with_vector], item_N[rows][with_vector]))
    product = scipy.sparse.csr_matrix(entries, shape=shape) @ vectors_IX
    pooled_URX, weight_UR, num_events_UR = sums.pooled_URX(spec), sums.weight_UR(spec), sums.num_events_UR(spec)
    pooled_URX += product.reshape(pooled_URX.shape)
    weight_UR += np.bincount(cell, weight, minlength=shape[0]).reshape(weight_UR.shape)
    num_events_UR += np.bincount(cell, num_events, minlength=shape[0]).reshape(num_events_UR.shape)
    is_before_N, is_after_N = (_in_longest(ring_N, spec) for ring_N in (ring_before_N, ring_after_N))
    return _with_longest(sums, tiles, spec, is_after_N.astype(np.int64) - is_before_N)


def _in_longest(ring_N: Ints, spec: FeatureSpec) -> Flags:
    """Say whether a ring is in the longest window: in one, and not in the history's."""
    return (ring_N >= 0) & (ring_N < len(spec.windows_days))


def _with_longest(sums: Sums, tiles: Tiles, spec: FeatureSpec, sign_N: Ints) -> Sums:
    """Add what is counted over the longest window alone: parts of the day, weekdays, context."""
    rows = np.flatnonzero(sign_N)
    num_users, user, sign = len(sums.flat_US), tiles.user_N[rows], sign_N[rows]
    shares = sums.shares_US(spec)
    for part in range(len(PARTS_OF_DAY)):
        shares[:, part] += np.bincount(user, sign * tiles.parts_N4[rows, part], minlength=num_users)
    weekday = user * NUM_WEEKDAYS + (tiles.day_N[rows] + 3) % NUM_WEEKDAYS
    by_weekday = np.bincount(weekday, sign * tiles.num_events_N[rows], minlength=num_users * NUM_WEEKDAYS)
    shares[:, len(PARTS_OF_DAY) :] += by_weekday.reshape(num_users, NUM_WEEKDAYS)
    if not tiles.context_NK.shape[1]:
        return sums
    by_user = scipy.sparse.csr_array((sign, (user, np.arange(len(rows)))), shape=(num_users, len(rows)))
    context_UK = scipy.sparse.csr_array(sums.context_UK + by_user @ tiles.context_NK[rows])
    context_UK.eliminate_zeros()
    return replace(sums, context_UK=context_UK)


def with_days(sums: Sums, tiles: Tiles) -> None:
    """Note the last event of each user and day, of the rows that count after, in ``last_at_UT``; in place."""
    day_N = tiles.day_N - sums.first_day
    rows = np.flatnonzero(tiles.after_N & (day_N >= 0) & (day_N < sums.last_at_UT.shape[1]))
    np.maximum.at(sums.last_at_UT, (tiles.user_N[rows], day_N[rows]), tiles.at_N[rows])


def without_days(sums: Sums, days: Sequence[int]) -> None:
    """Forget the last events of some days, whose content has changed; in place."""
    kept = [day - sums.first_day for day in days if 0 <= day - sums.first_day < sums.last_at_UT.shape[1]]
    sums.last_at_UT[:, kept] = NEVER
