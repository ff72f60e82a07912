"""Events of the sampled users before and after each as-of date, by item, and the popularity of those items.

Time is divided at every day on which a window of the evaluation begins or ends (a boundary). Spark sums the tiles
between neighboring boundaries, and each window is a sum of those parts. Shapes: E entries, U users, I items, N rows, D
dates, P entries of another table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property, reduce
from operator import add

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from scipy.sparse import csr_array

from userrep.config import Onboarding
from userrep.evaluation.dates import Plan
from userrep.evaluation.sampled_users import Ints, Rows, indices_in, only_sampled, where_in
from userrep.features.profiles import read_picks
from userrep.store.tables import Tables
from userrep.tiles.ledger import read_tiles

POPULARITY_DAYS = 30

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Activity:
    """Events of U users with I items, summed between ``boundaries``.

    ``boundaries`` ascend; slot k contains the events on or after exactly k of them. ``item_ids`` are distinct and
    ascend: all items that a sampled user had an event with or picked. ``picked``: U x I, true where the user picked the
    item at onboarding, at any time. ``popularity_DI``: events of all users with the item in the 30 days before each of
    the plan's dates. ``is_sold_DI``: whether any user had an event with the item before that date.
    """

    boundaries: tuple[date, ...]
    user_ids: pa.StringArray
    item_ids: pa.StringArray
    user_E: Ints
    item_E: Ints
    slot_E: Ints
    num_events_E: Floats
    weight_E: Floats
    picked: csr_array
    dates: tuple[date, ...]
    popularity_DI: Floats
    is_sold_DI: NDArray[np.bool_]

    def num_events(self, start: date | None, end: date) -> csr_array:
        """Count events of the days ``[start, end)``, without ``start`` of all days before ``end``: U x I.

        Raises ValueError if a day is not one of the boundaries.
        """
        return self._sums(self.num_events_E, start, end)

    def weight(self, start: date | None, end: date) -> csr_array:
        """Sum weights over the days ``[start, end)``; the arguments are those of ``num_events``."""
        return self._sums(self.weight_E, start, end)

    def _sums(self, values_E: Floats, start: date | None, end: date) -> csr_array:
        first = 0 if start is None else self.boundaries.index(start) + 1
        inside = (self.slot_E >= first) & (self.slot_E <= self.boundaries.index(end))
        shape = (len(self.user_ids), len(self.item_ids))
        return csr_array((values_E[inside], (self.user_E[inside], self.item_E[inside])), shape=shape)


@dataclass(frozen=True)
class Futures:
    """Windows of each row: the U x I matrices of the activity, taken at the row's own date."""

    rows: Rows
    activity: Activity

    def num_events(self, days: int) -> csr_array:
        """Count each row's events in ``[as_of, as_of + days)``: N x I."""
        return self._by_row(lambda day: self.activity.num_events(day, day + timedelta(days=days)))

    def weight(self, days: int) -> csr_array:
        """Sum each row's weight in ``[as_of, as_of + days)``: N x I."""
        return self._by_row(lambda day: self.activity.weight(day, day + timedelta(days=days)))

    @cached_property
    def history(self) -> csr_array:
        """Counts of each row's events before its as-of date, from the start of the log: N x I."""
        return self._by_row(lambda day: self.activity.num_events(None, day))

    def _by_row(self, matrix_at: Callable[[date], csr_array]) -> csr_array:
        parts, order = [], []
        for d, day in enumerate(self.rows.dates):
            row_index = np.flatnonzero(self.rows.date_N == d)
            parts.append(matrix_at(day)[self.rows.user_N[row_index]])
            order.append(row_index)
        row_order = np.argsort(np.concatenate(order), kind="stable")
        return csr_array(scipy.sparse.vstack(parts, format="csr")[row_order])


@dataclass(frozen=True)
class TruncatedFutures(Futures):
    """Windows of truncated rows: the futures are complete, the history is only ``known``, N x I."""

    known: csr_array

    @cached_property
    def history(self) -> csr_array:
        """The known part of the history."""
        return self.known


def boundaries_of(plan: Plan) -> tuple[date, ...]:
    """Return the days on which windows of the sampled users begin or end."""
    ends = (day + timedelta(days=h) for day in plan.dates for h in (0, *plan.horizons))
    return tuple(sorted(set(ends)))


def read_activity(tables: Tables, rows: Rows, plan: Plan, *, onboarding: Onboarding | None, seed: int) -> Activity:
    """Read the sampled users' tiles of all days, and the popularity of their items.

    Cost: two passes over the tiles, each with a shuffle of sums; the filter on users needs no join. The driver receives
    one row for each sampled user, item and slot with an event, and a few rows for each of those items, so its memory
    grows with ``evaluation.max_rows`` and not with the number of users in the log.
    """
    boundaries = boundaries_of(plan)
    tiles = read_tiles(tables, start=None, end=boundaries[-1])
    sums = only_sampled(tiles, rows, seed=seed).groupBy("user_id", "item_id", slot_of(boundaries).alias("slot")).agg(
        F.sum("num_events").cast("double").alias("num_events"), F.sum("weight").alias("weight")
    )  # fmt: skip
    entries = sums.toArrow()
    picks = None
    if onboarding is not None:
        picked = only_sampled(read_picks(tables.spark, onboarding), rows, seed=seed)
        picks = picked.select("user_id", "item_id").distinct().toArrow()
    item_ids = _items(entries, picks)
    popularity = _popularity(tiles, item_ids, plan.dates).toArrow()
    return activity_of(
        rows.user_ids, item_ids, entries, popularity, boundaries=boundaries, dates=plan.dates, picks=picks
    )


def activity_of(
    user_ids: pa.StringArray,
    item_ids: pa.StringArray,
    entries: pa.Table,
    popularity: pa.Table,
    *,
    boundaries: tuple[date, ...],
    dates: tuple[date, ...],
    picks: pa.Table | None,
) -> Activity:
    """Build the activity of ``user_ids`` from ``entries``; rows of other users are dropped.

    ``entries``: user_id, item_id, slot, num_events, weight. ``popularity``: item_id, slot (between
    ``popularity_boundaries``), num_events. ``picks``: user_id, item_id.
    """
    user_E = indices_in(entries.column("user_id").combine_chunks(), user_ids)
    known = np.flatnonzero(user_E >= 0)
    item_E = indices_in(entries.column("item_id").combine_chunks(), item_ids)
    slot_P = popularity.column("slot").to_numpy()
    item_P = indices_in(popularity.column("item_id").combine_chunks(), item_ids)
    count_P = popularity.column("num_events").to_numpy()
    boundaries_P = np.array(popularity_boundaries(dates), "datetime64[D]")
    popularity_DI, is_sold_DI = np.zeros((2, len(dates), len(item_ids)))
    for d, day in enumerate(dates):
        end = np.searchsorted(boundaries_P, np.datetime64(day))
        start = np.searchsorted(boundaries_P, np.datetime64(day - timedelta(days=POPULARITY_DAYS)))
        inside = (slot_P > start) & (slot_P <= end)
        np.add.at(popularity_DI[d], item_P[inside], count_P[inside])
        is_sold_DI[d, item_P[slot_P <= end]] = 1
    return Activity(
        boundaries, user_ids, item_ids, user_E[known], item_E[known],
        entries.column("slot").to_numpy()[known].astype(np.int64),
        entries.column("num_events").to_numpy()[known],
        entries.column("weight").to_numpy()[known],
        _picked(picks, user_ids, item_ids), dates, popularity_DI, is_sold_DI.astype(bool),
    )  # fmt: skip


def popularity_boundaries(dates: Sequence[date]) -> tuple[date, ...]:
    """Return the days on which windows of popularity begin or end."""
    return tuple(sorted({day - timedelta(days=days) for day in dates for days in (0, POPULARITY_DAYS)}))


def _popularity(tiles: DataFrame, item_ids: pa.StringArray, dates: Sequence[date]) -> DataFrame:
    """Count events of all users by item and slot, for these items."""
    boundaries = popularity_boundaries(dates)
    events = where_in(tiles.where(F.col("event_date") < F.lit(boundaries[-1])), "item_id", item_ids)
    return events.groupBy("item_id", slot_of(boundaries).alias("slot")).agg(
        F.sum("num_events").cast("double").alias("num_events")
    )


def slot_of(boundaries: Sequence[date]) -> Column:
    """Return a tile's slot: how many boundaries are on or before its day."""
    return reduce(add, ((F.col("event_date") >= F.lit(day)).cast("int") for day in boundaries))


def _items(entries: pa.Table, picks: pa.Table | None) -> pa.StringArray:
    columns = [entries.column("item_id"), *([picks.column("item_id")] if picks is not None else [])]
    chunks = [chunk.cast(pa.string()) for column in columns for chunk in column.chunks]
    distinct = pa.chunked_array(chunks, pa.string()).unique()
    return distinct.take(pc.sort_indices(distinct))


def _picked(picks: pa.Table | None, user_ids: pa.StringArray, item_ids: pa.StringArray) -> csr_array:
    shape = (len(user_ids), len(item_ids))
    if picks is None or not picks.num_rows:
        return csr_array(shape, dtype=bool)
    user_P, item_P = (
        indices_in(picks.column(name).combine_chunks(), ids)
        for name, ids in (("user_id", user_ids), ("item_id", item_ids))
    )
    known = user_P >= 0
    return csr_array((np.ones(known.sum(), bool), (user_P[known], item_P[known])), shape=shape)
