"""A small world for tests of the evaluation: users with planted tastes, their events, and what labels are made from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.evaluation.activity import Activity, Futures, activity_of, cuts_of, popularity_cuts
from userrep.evaluation.items import ItemVectors, clustered
from userrep.evaluation.plan import Plan, make_plan
from userrep.evaluation.rows import Rows, rows_of
from userrep.evaluation.tasks.task import Truth
from userrep.features.chunk import TILES
from userrep.utc import day_number

PLAN = make_plan(until=date(2024, 3, 1), end=date(2024, 5, 20), horizons=[7, 30], every_days=7, max_dates=8, space="s1")
FIRST_DAY = date(2024, 1, 1)


@dataclass(frozen=True)
class Event:
    """An event of user number ``user`` with item number ``item``."""

    user: int
    item: int
    day: date
    weight: float = 1.0


def user_ids(num_users: int) -> list[str]:
    return [f"u{k:04d}" for k in range(num_users)]


def item_id(item: int) -> str:
    return f"i{item:04d}"


def rows_at_all_dates(num_users: int, plan: Plan = PLAN, **attributes: list[str | None]) -> Rows:
    """Make rows of all users at all dates; ``attributes``: a value for each user."""
    num_dates = len(plan.dates)
    columns: dict[str, pa.Array] = {
        "user_id": pa.array(np.repeat(user_ids(num_users), num_dates)),
        "as_of": pa.array([*plan.dates] * num_users, pa.date32()),
    }
    for name, values in attributes.items():
        columns[f"attribute_{name}"] = pa.array([v for v in values for _ in range(num_dates)], pa.string())
    return rows_of(pa.table(columns), plan, seed=1)


def activity_from(
    events: list[Event], rows: Rows, num_items: int, plan: Plan = PLAN, picks: list[tuple[int, int]] | None = None
) -> Activity:
    """Sum events as Spark does, one by one."""
    cuts, popular_cuts = cuts_of(plan), popularity_cuts(plan.dates)
    counts, weights, popular = Counter(), Counter(), Counter()
    for event in events:
        if event.day < cuts[-1]:
            key = event.user, event.item, sum(event.day >= cut for cut in cuts)
            counts[key] += 1
            weights[key] += event.weight
        if event.day < popular_cuts[-1]:
            popular[event.item, sum(event.day >= cut for cut in popular_cuts)] += 1
    entries = {
        "user_id": [f"u{user:04d}" for user, _, _ in counts], "item_id": [item_id(item) for _, item, _ in counts],
        "slot": pa.array([slot for *_, slot in counts], pa.int32()),
        "num_events": pa.array(counts.values(), pa.float64()), "weight": pa.array(weights.values(), pa.float64()),
    }  # fmt: skip
    popularity = {
        "item_id": [item_id(item) for item, _ in popular],
        "slot": pa.array([slot for _, slot in popular], pa.int32()),
        "num_events": pa.array(popular.values(), pa.float64()),
    }
    picked = pa.table({
        "user_id": pa.array([f"u{user:04d}" for user, _ in picks or []], pa.string()),
        "item_id": pa.array([item_id(item) for _, item in picks or []], pa.string()),
    })  # fmt: skip
    return activity_of(
        rows.user_ids, pa.array([item_id(item) for item in range(num_items)]), pa.table(entries), pa.table(popularity),
        cuts=cuts, dates=plan.dates, picks=picked,
    )  # fmt: skip


def found_tiles(tiles: list[dict[str, Any]], dates: Sequence[date], *, most: int = 10**6) -> pa.Table:
    """Number tiles as Spark does: each user's between neighbouring dates, the newest first; ``most`` of them."""
    days = [day_number(day) for day in dates]
    counts: Counter[tuple[str, int]] = Counter()
    first_day = {tile["user_id"]: tile["day"] for tile in sorted(tiles, key=lambda row: -row["day"])}
    kept = []
    for tile in sorted(tiles, key=lambda row: (-row["last_event_at"], row["item_id"], -row["num_events"])):
        key = tile["user_id"], sum(tile["day"] >= day for day in days)
        if counts[key] < most:
            kept.append({**tile, "place": counts[key], "first_day": first_day[tile["user_id"]]})
        counts[key] += 1
    names = [name for name in TILES.names if name != "user_bucket" and (not kept or name in kept[0])]
    schema = pa.schema([*(TILES.field(name) for name in names), ("place", pa.int32()), ("first_day", pa.int32())])
    return pa.Table.from_pylist(kept, schema)


@dataclass(frozen=True)
class World:
    """Users with tastes (U x T), items with vectors of the same kind (I x T), and what the users did."""

    taste_UT: NDArray[np.float64]
    item_IT: NDArray[np.float32]
    events: list[Event]
    truth: Truth

    @property
    def rows(self) -> Rows:
        return self.truth.rows

    def taste_of_rows(self) -> NDArray[np.float32]:
        """Return each row's user's taste: what an embedding that knows everything would hold."""
        return self.taste_UT[self.rows.user_N].astype(np.float32)


def world(num_users: int = 300, num_items: int = 80, *, seed: int = 0, per_day: float = 0.12) -> World:
    """Draw a world: taste decides which items, popularity is skewed, and some users do far more than others."""
    rng = np.random.default_rng(seed)
    taste_UT, item_IT = rng.normal(size=(num_users, 4)), rng.normal(size=(num_items, 4)).astype(np.float32)
    chance_UI = np.exp(taste_UT @ item_IT.T) * np.exp(rng.normal(size=num_items))
    chance_UI /= chance_UI.sum(axis=1, keepdims=True)
    rate_U = per_day * np.exp(1.3 * rng.normal(size=num_users))
    num_days = (PLAN.end - FIRST_DAY).days
    events = [
        Event(user, int(item), FIRST_DAY + timedelta(days=int(day)), float(rng.integers(1, 5)))
        for user in range(num_users)
        for day in np.flatnonzero(rng.random(num_days) < np.minimum(rate_U[user], 1))
        for item in rng.choice(num_items, size=rng.integers(1, 4), p=chance_UI[user])
    ]
    rows = rows_at_all_dates(num_users)
    return World(taste_UT, item_IT, events, truth_of(events, rows, item_IT))


def truth_of(
    events: list[Event],
    rows: Rows,
    item_IT: NDArray[np.float32],
    plan: Plan = PLAN,
    picks: list[tuple[int, int]] | None = None,
) -> Truth:
    """Put together what tasks take their labels from."""
    futures = Futures(rows, activity_from(events, rows, len(item_IT), plan, picks))
    return Truth(
        futures, item_vectors(item_IT, plan), clustered(item_IT, np.ones(len(item_IT), bool), num_clusters=6, seed=0)
    )


def item_vectors(item_IT: NDArray[np.float32], plan: Plan = PLAN) -> ItemVectors:
    """Return the same vectors for all dates, valid from the plan's beginning."""
    dates = {plan.until, *plan.dates}
    has = np.ones((len(item_IT), 1), bool)
    return ItemVectors(
        {"content": item_IT.shape[1]}, dict.fromkeys(dates, plan.until), {plan.until: item_IT}, {plan.until: has}
    )
