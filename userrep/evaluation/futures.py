"""Events of the sampled users before and after each as-of date, by item, and the popularity of those items.

Time is divided at every day on which a window of the evaluation begins or ends (a boundary). Spark sums the tiles
between neighboring boundaries, and each window is a sum of those parts. Shapes: E entries, U users, I items, N rows, D
dates, P picks, V items with an event of any user.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property, reduce
from operator import add

import numpy as np
import pyarrow as pa
import scipy.sparse
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from scipy.sparse import csr_array

from userrep.config import Onboarding
from userrep.evaluation.dates import EvaluationPlan
from userrep.evaluation.metrics import Floats, Ints, Mask
from userrep.evaluation.sampled_rows import Rows, indices_in, where_in
from userrep.features.profiles import read_picks
from userrep.store.arrow import combined
from userrep.store.tables import Tables
from userrep.tiles.ledger import TileLedger, read_tiles

_POPULARITY_DAYS = 30


NO_PICKS = pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())})


@dataclass(frozen=True)
class Activity:
    """Events of U users with I items, summed between ``boundaries``.

    ``boundaries`` ascend; slot k contains the events on or after exactly k of them. ``item_ids`` are distinct and
    ascend: all items that a sampled user had an event with or picked. ``picked``: U x I, true where the user picked the
    item at onboarding, at any time. ``popularity_DI``: events of all users with the item in the 30 days before each
    date of the rows. ``is_sold_DI``: whether any user had an event with the item before that date.
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
    popularity_DI: Floats
    is_sold_DI: Mask

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
    """Windows of each row: the U x I matrices of the activity, taken at the row's own date.

    ``known``: of truncated rows, the part of the history that is left, N x I; their futures are complete.
    """

    rows: Rows
    activity: Activity
    known: csr_array | None = None

    def num_events(self, days: int) -> csr_array:
        """Count each row's events in ``[as_of, as_of + days)``: N x I."""
        return self._by_row(lambda day: self.activity.num_events(day, day + timedelta(days=days)))

    def weight(self, days: int) -> csr_array:
        """Sum each row's weight in ``[as_of, as_of + days)``: N x I."""
        return self._by_row(lambda day: self.activity.weight(day, day + timedelta(days=days)))

    @cached_property
    def history(self) -> csr_array:
        """Counts of each row's events before its as-of date, from the start of the log: N x I."""
        if self.known is not None:
            return self.known
        return self._by_row(lambda day: self.activity.num_events(None, day))

    def _by_row(self, matrix_at: Callable[[date], csr_array]) -> csr_array:
        of_all_users = scipy.sparse.vstack([matrix_at(day) for day in self.rows.dates], format="csr")
        return csr_array(of_all_users[self.rows.date_N * len(self.rows.user_ids) + self.rows.user_N])


def boundaries_of(plan: EvaluationPlan) -> tuple[date, ...]:
    """Return the days on which windows of the sampled users begin or end."""
    ends = (day + timedelta(days=h) for day in plan.dates for h in (0, *plan.horizons))
    return tuple(sorted(set(ends)))


def read_activity(
    tables: Tables, rows: Rows, plan: EvaluationPlan, *, onboarding: Onboarding | None, ledger: TileLedger
) -> Activity:
    """Read the sampled users' tiles of all days, and the popularity of their items.

    Cost: two passes over the tiles, each with a shuffle of sums. The driver receives one row for each sampled user,
    item and slot with an event, and a few rows for each of those items.
    """
    boundaries = boundaries_of(plan)
    tiles = read_tiles(tables, start=None, end=boundaries[-1], ledger=ledger)
    sums = rows.only_own(tiles).groupBy("user_id", "item_id", slot_of(boundaries).alias("slot")).agg(
        F.sum("num_events").cast("double").alias("num_events"), F.sum("weight").alias("weight")
    )  # fmt: skip
    entries = sums.toArrow()
    picks = NO_PICKS
    if onboarding is not None:
        picked = rows.only_own(read_picks(tables.spark, onboarding))
        picks = picked.select("user_id", "item_id").distinct().toArrow()
    items = pa.concat_tables([entries.select(["item_id"]), picks.select(["item_id"])], promote_options="permissive")
    item_ids = items["item_id"].cast(pa.string()).unique().sort()
    popularity = popularity_of(where_in(tiles, "item_id", item_ids), rows.dates).toArrow()
    return activity_of(
        rows.user_ids, item_ids, entries, popularity, boundaries=boundaries, dates=rows.dates, picks=picks
    )


def popularity_of(tiles: DataFrame, dates: Sequence[date]) -> DataFrame:
    """Return for each item its first day (first_day), and its events in the 30 days before date number d (before_d)."""

    def num_events_before(day: date) -> Column:
        is_recent = F.col("event_date") >= F.lit(day - timedelta(days=_POPULARITY_DAYS))
        is_recent &= F.col("event_date") < F.lit(day)
        return F.sum(F.when(is_recent, F.col("num_events")).otherwise(0)).cast("double")

    counts = [num_events_before(day).alias(f"before_{d}") for d, day in enumerate(dates)]
    earlier = tiles.where(F.col("event_date") < F.lit(max(dates)))
    return earlier.groupBy("item_id").agg(F.min("event_date").alias("first_day"), *counts)


def activity_of(
    user_ids: pa.StringArray,
    item_ids: pa.StringArray,
    entries: pa.Table,
    popularity: pa.Table,
    *,
    boundaries: tuple[date, ...],
    dates: Sequence[date],
    picks: pa.Table,
) -> Activity:
    """Build the activity of ``user_ids`` from ``entries``; rows of other users are dropped.

    ``entries``: user_id, item_id, slot, num_events, weight. ``popularity``: the result of ``popularity_of`` for
    ``dates``. ``picks``: user_id, item_id.
    """
    entries, user_E, item_E = _numbered(entries, user_ids, item_ids)
    slot_E, num_events_E, weight_E = (entries[name].to_numpy() for name in ("slot", "num_events", "weight"))
    picks, user_P, item_P = _numbered(picks, user_ids, item_ids)
    picked = csr_array((np.ones(len(picks), bool), (user_P, item_P)), shape=(len(user_ids), len(item_ids)))
    index_V = indices_in(combined(popularity["item_id"]), item_ids)
    popularity_DI, is_sold_DI = np.zeros((len(dates), len(item_ids))), np.zeros((len(dates), len(item_ids)), bool)
    popularity_DI[:, index_V] = [popularity[f"before_{d}"].to_numpy() for d in range(len(dates))]
    is_sold_DI[:, index_V] = popularity["first_day"].to_numpy() < np.array(dates, "datetime64[D]")[:, None]
    return Activity(
        boundaries,
        user_ids,
        item_ids,
        user_E,
        item_E,
        slot_E,
        num_events_E,
        weight_E,
        picked,
        popularity_DI,
        is_sold_DI,
    )


def _numbered(rows: pa.Table, user_ids: pa.StringArray, item_ids: pa.StringArray) -> tuple[pa.Table, Ints, Ints]:
    """Return the rows of ``user_ids``, with the index of each row's user and item."""
    user_N = indices_in(combined(rows["user_id"]), user_ids)
    rows = rows.filter(pa.array(user_N >= 0))
    return rows, user_N[user_N >= 0], indices_in(combined(rows["item_id"]), item_ids)


def slot_of(boundaries: Sequence[date]) -> Column:
    """Return a tile's slot: how many boundaries are on or before its day."""
    return reduce(add, ((F.col("event_date") >= F.lit(day)).cast("int") for day in boundaries))
