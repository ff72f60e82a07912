"""What the sampled users did before and after each as-of date, item by item, and how popular the items were.

Time is cut where a window of the evaluation begins or ends; tiles are summed between the cuts in Spark, and every
window is a sum over what lies between. Shapes: E entries, U users, I items, N rows, D dates.
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
from userrep.evaluation.plan import Plan
from userrep.evaluation.rows import Ints, Rows, only_of, only_sampled, places
from userrep.features.sides import read_picks
from userrep.store.tables import Tables
from userrep.tiles.tiles import read_tiles

POPULARITY_DAYS = 30

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Activity:
    """Events of U users with I items, summed between ``cuts`` (ascending; slot k: at or after k of them).

    ``item_ids`` are distinct and ascend: all items that a sampled user has had an event with or has picked.
    ``picked``: U x I, true where the user picked the item at onboarding, whenever that was. ``popularity_DI``: events
    of all users with the item in the 30 days before each of the plan's dates. ``is_sold_DI``: it had an event of
    anyone before that date.
    """

    cuts: tuple[date, ...]
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
        """Count events of the days ``[start, end)``, of all days before ``end`` without a start: U x I.

        Raises ValueError if a day is not among the cuts.
        """
        return self._sums(self.num_events_E, start, end)

    def weight(self, start: date | None, end: date) -> csr_array:
        """Sum weight over the days ``[start, end)``, as ``num_events`` counts."""
        return self._sums(self.weight_E, start, end)

    def _sums(self, values_E: Floats, start: date | None, end: date) -> csr_array:
        first = 0 if start is None else self.cuts.index(start) + 1
        inside = (self.slot_E >= first) & (self.slot_E <= self.cuts.index(end))
        shape = (len(self.user_ids), len(self.item_ids))
        return csr_array((values_E[inside], (self.user_E[inside], self.item_E[inside])), shape=shape)


@dataclass(frozen=True)
class Futures:
    """The windows of rows: a U x I matrix of the activity, taken for each row at its own date."""

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
        """Count each row's events before its as-of date, since the log began: N x I."""
        return self._by_row(lambda day: self.activity.num_events(None, day))

    def _by_row(self, of_date: Callable[[date], csr_array]) -> csr_array:
        parts, order = [], []
        for d, day in enumerate(self.rows.dates):
            mine = np.flatnonzero(self.rows.date_N == d)
            parts.append(of_date(day)[self.rows.user_N[mine]])
            order.append(mine)
        back = np.argsort(np.concatenate(order), kind="stable")
        return csr_array(scipy.sparse.vstack(parts, format="csr")[back])


@dataclass(frozen=True)
class CutFutures(Futures):
    """The windows of rows of whose past only a part is to be known: ``known`` is the history, N x I."""

    known: csr_array

    @cached_property
    def history(self) -> csr_array:
        """Return the part that is known."""
        return self.known


def cuts_of(plan: Plan) -> tuple[date, ...]:
    """Return where the windows of the sampled users begin and end."""
    ends = (day + timedelta(days=h) for day in plan.dates for h in (0, *plan.horizons))
    return tuple(sorted(set(ends)))


def read_activity(tables: Tables, rows: Rows, plan: Plan, *, onboarding: Onboarding | None, seed: int) -> Activity:
    """Read the tiles of the sampled users, all days of the log, and the popularity of the items that are in them.

    Cost: two passes over the tiles, each with a shuffle of sums; the filter on users needs no join. What reaches the
    driver: a row for each sampled user, item and pair of neighbouring cuts with an event, and a few for each item of
    theirs: it grows with ``evaluation.max_rows``, not with the log's users.
    """
    cuts = cuts_of(plan)
    tiles = read_tiles(tables, start=None, end=cuts[-1])
    sums = only_sampled(tiles, rows, seed=seed).groupBy("user_id", "item_id", slot_of(cuts).alias("slot")).agg(
        F.sum("num_events").cast("double").alias("num_events"), F.sum("weight").alias("weight")
    )  # fmt: skip
    entries = sums.toArrow()
    picks = None
    if onboarding is not None:
        picked = only_sampled(read_picks(tables.spark, onboarding), rows, seed=seed)
        picks = picked.select("user_id", "item_id").distinct().toArrow()
    item_ids = _items(entries, picks)
    popularity = _popularity(tiles, item_ids, plan.dates).toArrow()
    return activity_of(rows.user_ids, item_ids, entries, popularity, cuts=cuts, dates=plan.dates, picks=picks)


def activity_of(
    user_ids: pa.StringArray,
    item_ids: pa.StringArray,
    entries: pa.Table,
    popularity: pa.Table,
    *,
    cuts: tuple[date, ...],
    dates: tuple[date, ...],
    picks: pa.Table | None,
) -> Activity:
    """Number users and items of ``entries`` (user_id, item_id, slot, num_events, weight); others' users are dropped.

    ``popularity``: item_id, slot (as of ``popularity_cuts``), num_events. ``picks``: user_id, item_id.
    """
    users = places(entries.column("user_id").combine_chunks(), user_ids)
    known = np.flatnonzero(users >= 0)
    items = places(entries.column("item_id").combine_chunks(), item_ids)
    slot_P = popularity.column("slot").to_numpy()
    item_P = places(popularity.column("item_id").combine_chunks(), item_ids)
    count_P = popularity.column("num_events").to_numpy()
    cuts_P = np.array(popularity_cuts(dates), "datetime64[D]")
    popularity_DI, is_sold_DI = np.zeros((2, len(dates), len(item_ids)))
    for d, day in enumerate(dates):
        end = np.searchsorted(cuts_P, np.datetime64(day))
        start = np.searchsorted(cuts_P, np.datetime64(day - timedelta(days=POPULARITY_DAYS)))
        inside = (slot_P > start) & (slot_P <= end)
        np.add.at(popularity_DI[d], item_P[inside], count_P[inside])
        is_sold_DI[d, item_P[slot_P <= end]] = 1
    return Activity(
        cuts, user_ids, item_ids, users[known], items[known],
        entries.column("slot").to_numpy()[known].astype(np.int64),
        entries.column("num_events").to_numpy()[known],
        entries.column("weight").to_numpy()[known],
        _picked(picks, user_ids, item_ids), dates, popularity_DI, is_sold_DI.astype(bool),
    )  # fmt: skip


def popularity_cuts(dates: Sequence[date]) -> tuple[date, ...]:
    """Return where the windows of popularity begin and end."""
    return tuple(sorted({day - timedelta(days=days) for day in dates for days in (0, POPULARITY_DAYS)}))


def _popularity(tiles: DataFrame, item_ids: pa.StringArray, dates: Sequence[date]) -> DataFrame:
    """Count events of all users by item and slot, for these items."""
    cuts = popularity_cuts(dates)
    mine = only_of(tiles.where(F.col("event_date") < F.lit(cuts[-1])), "item_id", item_ids)
    return mine.groupBy("item_id", slot_of(cuts).alias("slot")).agg(
        F.sum("num_events").cast("double").alias("num_events")
    )


def slot_of(cuts: Sequence[date]) -> Column:
    """Say how many of the cuts lie at or before a tile's day."""
    return reduce(add, ((F.col("event_date") >= F.lit(day)).cast("int") for day in cuts))


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
        places(picks.column(name).combine_chunks(), ids) for name, ids in (("user_id", user_ids), ("item_id", item_ids))
    )
    known = user_P >= 0
    return csr_array((np.ones(known.sum(), bool), (user_P[known], item_P[known])), shape=shape)
