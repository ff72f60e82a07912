"""Sums per user over windows, in NumPy on blocks of users: the only place where events become features.

Every sum is exact: vectors are multiples of 2^-16, weights of 2^-8, and sums are float64. So neither the order nor the
partitioning of rows changes a bit, and subtracting what was added restores the earlier sums.

Shapes: U users, N rows of tiles, P picks, R windows (the history window is last), T days, I items, E numbers of all
modalities' vectors, M modalities, X = E + M (vectors, followed by one mark per modality: 1 if the item has a vector), S
sums per user, K context keys. Ring r contains the days of window r that are not in window r-1, so the sums of a window
are those of its ring and all rings before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from userrep.features.spec import NUM_WEEKDAYS, PARTS_OF_DAY, FeatureSpec
from userrep.utc import day_number

EXACT_BELOW = 2.0**28  # half of the exact range of float64: during an update, a sum may contain both old and new rows
NEVER = np.iinfo(np.int64).min
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Tiles:
    """Tiles of a block of users as arrays. ``before``, ``after``: whether a row counts in the old and the new sums."""

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
        """Return each row's ring for the windows ``[as_of - w, as_of)``; -1 outside all windows."""
        age_N = day_number(as_of) - self.day_N
        inside_N = (age_N >= 1) & (age_N <= spec.span)
        return np.where(inside_N, np.searchsorted(spec.windows, age_N), -1)


class SumViews(NamedTuple):
    """Sums by ring, and the event counts of the longest window: 4 parts of day, 7 weekdays."""

    pooled_URX: Floats
    weight_UR: Floats
    num_events_UR: Floats
    shares_US: Floats


@dataclass(frozen=True)
class Sums:
    """All sums of U users at one as-of date, and the time of their last event of each day.

    ``flat_US`` contains, per user: R x X pooled sums by ring, R weights and R event counts by ring, then the event
    counts of the longest window by part of day and by weekday. ``last_at_UT`` starts at ``first_day``. ``picks_UX``:
    sums of the vectors of onboarding picks, if known; they do not depend on windows.
    """

    flat_US: Floats
    last_at_UT: Ints
    first_day: int
    context_UK: scipy.sparse.csr_array
    picks_UX: Floats | None = None

    def emptied(self) -> "Sums":
        """Return zero sums of the same users, but keep the last events per day, which do not depend on item vectors."""
        no_context = scipy.sparse.csr_array(self.context_UK.shape, dtype=np.int64)
        return replace(self, flat_US=np.zeros_like(self.flat_US), context_UK=no_context)

    def views(self, spec: FeatureSpec) -> SumViews:
        """View the parts of ``flat_US``."""
        num_rings = len(spec.windows)
        ends = np.cumsum([num_rings * pooled_width(spec), num_rings, num_rings])
        pooled, *others = np.split(self.flat_US, ends, axis=1)
        return SumViews(pooled.reshape(len(pooled), num_rings, pooled_width(spec)), *others)

    def last_at_before(self, spec: FeatureSpec, as_of: date) -> Ints:
        """View the last events of the days of all windows at ``as_of``, oldest day first."""
        end = day_number(as_of) - self.first_day
        return self.last_at_UT[:, end - spec.span : end]


def pooled_width(spec: FeatureSpec) -> int:
    """Return X: the numbers of all modalities' vectors, and one mark per modality."""
    return sum(spec.modalities.values()) + len(spec.modalities)


def num_sums(spec: FeatureSpec) -> int:
    """Return S, the number of sums per user."""
    num_rings = len(spec.windows)
    return num_rings * (pooled_width(spec) + 2) + len(PARTS_OF_DAY) + NUM_WEEKDAYS


def move_tiles(
    sums: Sums, tiles: Tiles, item_N: Ints, vectors_IX: Floats, spec: FeatureSpec, *, old_ring_N: Ints, new_ring_N: Ints
) -> Sums:
    """Move tiles between rings: subtract them from their old ring and add them to the new one.

    ``item_N``: each row's index into ``vectors_IX``; -1 if the item has no vector, in which case only the events count.
    Cost: proportional to the number of rows whose ring changes (-1: in no ring), times X.
    """
    changed_N = old_ring_N != new_ring_N
    out_N, in_N = np.flatnonzero(changed_N & (old_ring_N >= 0)), np.flatnonzero(changed_N & (new_ring_N >= 0))
    rows = np.concatenate([out_N, in_N])
    if not len(rows):
        return sums
    num_users, num_rings = len(sums.flat_US), len(spec.windows)
    sign = np.concatenate([np.full(len(out_N), -1.0), np.ones(len(in_N))])
    cell = tiles.user_N[rows] * num_rings + np.concatenate([old_ring_N[out_N], new_ring_N[in_N]])
    weight, num_events = sign * tiles.weight_N[rows], sign * tiles.num_events_N[rows]

    with_vector = np.flatnonzero(item_N[rows] >= 0)
    shape = (num_users * num_rings, len(vectors_IX))
    entries = (weight[with_vector], (cell[with_vector], item_N[rows][with_vector]))
    product = scipy.sparse.csr_matrix(entries, shape=shape) @ vectors_IX
    pooled_URX, weight_UR, num_events_UR, _ = sums.views(spec)
    pooled_URX += product.reshape(pooled_URX.shape)
    weight_UR += np.bincount(cell, weight, minlength=shape[0]).reshape(weight_UR.shape)
    num_events_UR += np.bincount(cell, num_events, minlength=shape[0]).reshape(num_events_UR.shape)
    was_in_N, is_in_N = ((ring_N >= 0) & (ring_N < len(spec.windows_days)) for ring_N in (old_ring_N, new_ring_N))
    return _move_in_longest(sums, tiles, spec, is_in_N.astype(np.int64) - was_in_N)


def _move_in_longest(sums: Sums, tiles: Tiles, spec: FeatureSpec, sign_N: Ints) -> Sums:
    """Update the counts that exist for the longest window only: parts of day, weekdays, context."""
    rows = np.flatnonzero(sign_N)
    num_users, user, sign = len(sums.flat_US), tiles.user_N[rows], sign_N[rows]
    shares = sums.views(spec).shares_US
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


def add_last_events(sums: Sums, tiles: Tiles) -> None:
    """Update ``last_at_UT`` in place with the last event per user and day of the rows that count after."""
    day_N = tiles.day_N - sums.first_day
    rows = np.flatnonzero(tiles.after_N & (day_N >= 0) & (day_N < sums.last_at_UT.shape[1]))
    np.maximum.at(sums.last_at_UT, (tiles.user_N[rows], day_N[rows]), tiles.at_N[rows])


def clear_last_events(sums: Sums, days: Sequence[int]) -> None:
    """Clear ``last_at_UT`` in place on days whose tiles have changed."""
    columns = [day - sums.first_day for day in days if 0 <= day - sums.first_day < sums.last_at_UT.shape[1]]
    sums.last_at_UT[:, columns] = NEVER
