"""A small world for evaluation tests: users with planted tastes, their events, and the data of labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_array

from userrep.evaluation.dates import EvaluationPlan, make_plan
from userrep.evaluation.futures import Activity, Futures, activity_of, boundaries_of
from userrep.evaluation.item_vectors import ItemVectors, clustered
from userrep.evaluation.metrics import bootstrapped, resampled_users, value_of
from userrep.evaluation.representation import Context
from userrep.evaluation.representations.nmf import SampledCounts
from userrep.evaluation.sampled_rows import NO_ROLE, TEST, Rows, rows_of
from userrep.evaluation.tasks.task import LeftOut, Task, Truth
from userrep.features.layout import InputLayout, Scaler
from userrep.features.spec import FeatureSpec
from userrep.features.sums.chunk import TILES
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


def rows_at_all_dates(num_users: int, plan: EvaluationPlan = PLAN, **attributes: list[str | None]) -> Rows:
    """Return rows of all users at all dates. ``attributes``: one value per user."""
    num_dates = len(plan.dates)
    columns: dict[str, pa.Array] = {
        "user_id": pa.array(np.repeat(user_ids(num_users), num_dates)),
        "as_of": pa.array([*plan.dates] * num_users, pa.date32()),
    }
    for name, values in attributes.items():
        columns[f"attribute_{name}"] = pa.array([v for v in values for _ in range(num_dates)], pa.string())
    return rows_of(pa.table(columns), plan, seed=1)


def activity_from(
    events: list[Event],
    rows: Rows,
    num_items: int,
    plan: EvaluationPlan = PLAN,
    picks: list[tuple[int, int]] | None = None,
) -> Activity:
    """Sum events one by one, as an oracle for Spark."""
    boundaries, num_dates = boundaries_of(plan), len(plan.dates)
    counts, weights = Counter(), Counter()
    first_day, popular_D = {}, [Counter() for _ in plan.dates]
    days = {event.day for event in events}
    slot_of = {day: sum(day >= cut for cut in boundaries) for day in days}
    popular_on = {
        day: [popular for popular, as_of in zip(popular_D, plan.dates, strict=True) if 0 < (as_of - day).days <= 30]
        for day in days
    }
    for event in events:
        if event.day < boundaries[-1]:
            key = event.user, event.item, slot_of[event.day]
            counts[key] += 1
            weights[key] += event.weight
        first_day[event.item] = min(event.day, first_day.get(event.item, event.day))
        for popular in popular_on[event.day]:
            popular[event.item] += 1
    entries = {
        "user_id": pa.array([f"u{user:04d}" for user, _, _ in counts], pa.string()),
        "item_id": pa.array([item_id(item) for _, item, _ in counts], pa.string()),
        "slot": pa.array([slot for *_, slot in counts], pa.int32()),
        "num_events": pa.array(counts.values(), pa.float64()), "weight": pa.array(weights.values(), pa.float64()),
    }  # fmt: skip
    popularity = {
        "item_id": pa.array([item_id(item) for item in first_day], pa.string()),
        "first_day": pa.array(first_day.values(), pa.date32()),
    } | {f"before_{d}": pa.array([popular_D[d][i] for i in first_day], pa.float64()) for d in range(num_dates)}
    picked = pa.table({
        "user_id": pa.array([f"u{user:04d}" for user, _ in picks or []], pa.string()),
        "item_id": pa.array([item_id(item) for _, item in picks or []], pa.string()),
    })  # fmt: skip
    return activity_of(
        rows.user_ids, pa.array([item_id(item) for item in range(num_items)]), pa.table(entries), pa.table(popularity),
        boundaries=boundaries, dates=plan.dates, picks=picked,
    )  # fmt: skip


def found_tiles(tiles: list[dict[str, Any]], dates: Sequence[date], *, most: int = 10**6) -> pa.Table:
    """Number each user's tiles before each date, the newest first, as Spark does; at most ``most`` of them."""
    days = [day_number(day) for day in dates]
    earlier = [tile for tile in tiles if tile["day"] < days[-1]]
    first_day = {tile["user_id"]: tile["day"] for tile in sorted(earlier, key=lambda row: -row["day"])}
    counts: Counter[tuple[str, int]] = Counter()
    kept = []
    for tile in sorted(earlier, key=lambda row: (-row["last_event_at"], row["item_id"], -row["num_events"])):
        for d, day in enumerate(days):
            key = tile["user_id"], d
            if tile["day"] < day and counts[key] < most:
                kept.append({**tile, "date_index": d, "rank": counts[key], "first_day": first_day[tile["user_id"]]})
                counts[key] += 1
    names = [name for name in TILES.names if name != "user_bucket" and (not kept or name in kept[0])]
    numbers = [(name, pa.int32()) for name in ("date_index", "rank", "first_day")]
    return pa.Table.from_pylist(kept, pa.schema([*(TILES.field(name) for name in names), *numbers]))


@dataclass(frozen=True)
class World:
    """Users with tastes (U x T), items with vectors of the same dimension (I x T), and the users' events."""

    taste_UT: NDArray[np.float64]
    item_IT: NDArray[np.float32]
    events: list[Event]
    truth: Truth

    @property
    def rows(self) -> Rows:
        return self.truth.rows

    def taste_of_rows(self) -> NDArray[np.float32]:
        """Return the taste of each row's user, which a perfect embedding would contain."""
        return self.taste_UT[self.rows.user_N].astype(np.float32)


def world(num_users: int = 300, num_items: int = 80, *, seed: int = 0, per_day: float = 0.12) -> World:
    """Draw a world: tastes determine items, popularity is skewed, and some users are far more active than others."""
    rng = np.random.default_rng(seed)
    taste_UT, item_IT = rng.normal(size=(num_users, 4)), rng.normal(size=(num_items, 4)).astype(np.float32)
    chance_UI = np.exp(taste_UT @ item_IT.T) * np.exp(rng.normal(size=num_items))
    chance_UI /= chance_UI.sum(axis=1, keepdims=True)
    up_to_UI = chance_UI.cumsum(axis=1)
    up_to_UI /= up_to_UI[:, -1:]
    rate_U = per_day * np.exp(1.3 * rng.normal(size=num_users))
    num_days = (PLAN.end - FIRST_DAY).days
    events = [
        Event(user, int(item), FIRST_DAY + timedelta(days=int(day)), float(rng.integers(1, 5)))
        for user in range(num_users)
        for day in np.flatnonzero(rng.random(num_days) < np.minimum(rate_U[user], 1))
        for item in up_to_UI[user].searchsorted(rng.random(rng.integers(1, 4)), side="right")  # a faster `rng.choice`
    ]
    rows = rows_at_all_dates(num_users)
    return World(taste_UT, item_IT, events, truth_of(events, rows, item_IT))


def truth_of(
    events: list[Event],
    rows: Rows,
    item_IT: NDArray[np.float32],
    plan: EvaluationPlan = PLAN,
    picks: list[tuple[int, int]] | None = None,
) -> Truth:
    """Return the data that tasks take their labels from."""
    futures = Futures(rows, activity_from(events, rows, len(item_IT), plan, picks))
    return Truth(
        futures, item_vectors(item_IT, plan), clustered(item_IT, np.ones(len(item_IT), bool), num_clusters=6, seed=0)
    )


def item_vectors(item_IT: NDArray[np.float32], plan: EvaluationPlan = PLAN) -> ItemVectors:
    """Return the same vectors for all dates, valid from the start of the plan."""
    dates = {plan.until, *plan.dates}
    x_IX = np.hstack([item_IT, np.ones((len(item_IT), 1), np.float32)])
    return ItemVectors({"content": item_IT.shape[1]}, dict.fromkeys(dates, plan.until), {plan.until: x_IX})


def judged(
    truth: Truth, task: Task, x_NF: NDArray[np.float32], seed: int = 1, metric: str | None = None
) -> tuple[float, float, float]:
    """Return a metric of a task, its first by default, for a representation, with the ends of its 90 % interval."""
    problem = task.problem(truth, seed)
    assert not isinstance(problem, LeftOut)
    by_metric = problem.scores(x_NF, problem.choose(x_NF))
    metric = metric or next(iter(by_metric))
    scores = by_metric[metric]
    weight_UB = resampled_users(len(truth.rows.user_ids), 200, seed)
    low, high = np.quantile(bootstrapped(metric, scores, weight_UB), [0.05, 0.95])
    return value_of(metric, scores), float(low), float(high)


def windows_by_hand(events: list[Event], user: int, day: date, days: int) -> tuple[Counter[int], Counter[int], float]:
    """Return a user's item counts before a date and in the ``days`` from it, and the weight of the latter."""
    own = [event for event in events if event.user == user]
    after = [e for e in own if day <= e.day < day + timedelta(days=days)]
    return Counter(e.item for e in own if e.day < day), Counter(e.item for e in after), sum(e.weight for e in after)


def truth_with(num_users: int, **values: list[str | None]) -> Truth:
    """Return a world whose users have attributes that are not inputs. ``values``: one value per user."""
    attributes = {name: pa.array(texts, pa.string()) for name, texts in values.items()}
    return replace(world(num_users=num_users).truth, attributes=attributes)


# -- a world in which half of the users are new at the test dates ------------------------------------------------------


def world_with_newcomers(num_users: int = 500) -> World:
    """Return a world in which half of the users arrive in the weeks before a test date, and the others long before."""
    whole, rng = world(num_users=num_users, per_day=0.3), np.random.default_rng(3)
    start_U = [
        PLAN.test[0] - timedelta(days=int(rng.integers(1, 25))) if user % 2 else FIRST_DAY for user in range(num_users)
    ]
    events = [event for event in whole.events if event.day >= start_U[event.user]]
    return replace(whole, events=events, truth=truth_of(events, whole.rows, whole.item_IT))


def first_days(events: list[Event]) -> dict[int, date]:
    """Return the day of each user's first event."""
    first: dict[int, date] = {}
    for event in events:
        first[event.user] = min(event.day, first.get(event.user, event.day))
    return first


def only_new_users_tested(planted: World, days: int, picks: list[tuple[int, int]] | None = None) -> Truth:
    """Take test rows of users who had their first event more than ``days`` days before out of the tasks."""
    rows, first = planted.rows, first_days(planted.events)
    is_old_N = [
        first.get(int(user), date.max) < rows.dates[d] - timedelta(days=days)
        for user, d in zip(rows.user_N, rows.date_N, strict=True)
    ]
    role_N = np.where((rows.role_N == TEST) & is_old_N, NO_ROLE, rows.role_N).astype(np.int8)
    return truth_of(planted.events, replace(rows, role_N=role_N), planted.item_IT, picks=picks)


# -- a world of two groups, for representations ------------------------------------------------------------------------

NUM_GROUPED, NUM_GROUPED_ITEMS = 60, 40


def events_of_groups(seed: int = 0, days: int = 130) -> list[Event]:
    """Let each user take items of its group (even or odd), and one in ten of the other."""
    rng = np.random.default_rng(seed)
    return [
        Event(
            user,
            int(2 * rng.integers(NUM_GROUPED_ITEMS // 2) + (user + (rng.random() < 0.1)) % 2),
            FIRST_DAY + timedelta(days=day),
        )
        for user in range(NUM_GROUPED)
        for day in sorted(rng.integers(0, days, size=40).tolist())
    ]


def counts_of(events: list[Event]) -> csr_array:
    """Count events before the plan's ``until`` by user and item."""
    counts_UV = np.zeros((NUM_GROUPED, NUM_GROUPED_ITEMS))
    for event in events:
        if event.day < PLAN.until:
            counts_UV[event.user, event.item] += 1
    return csr_array(counts_UV)


def context_of(events: list[Event]) -> Context:
    """Put together what representations may look at, without tables, configuration or artifact."""
    rows = rows_at_all_dates(NUM_GROUPED)
    nothing = cast(Any, None)
    futures = Futures(rows, activity_from(events, rows, NUM_GROUPED_ITEMS))
    return Context(nothing, nothing, nothing, PLAN, nothing, futures, seed=1)


def sample_of_groups(events: list[Event]) -> SampledCounts:
    """Return the counts of all users and items before the plan's ``until``."""
    items = [item_id(item) for item in range(NUM_GROUPED_ITEMS)]
    return SampledCounts(pa.array(user_ids(NUM_GROUPED)), pa.array(items), counts_of(events))


# -- rows with features, for representations that read them ------------------------------------------------------------

FEATURE_SPEC = FeatureSpec(
    windows_days=[7, 14], history_days=60, modalities={"content": 2}, onboarding=True, registered_at=True,
    attributes=["country"], context=[],
)  # fmt: skip
LAYOUT = InputLayout.of(FEATURE_SPEC, {"attribute_country": ["de", "se", "(other)"]})


def features_of(num_rows: int, seed: int = 0) -> pa.RecordBatch:
    """Draw rows of user features; a third of the pooled vectors and of the unknown numbers is missing."""
    rng = np.random.default_rng(seed)
    columns: dict[str, pa.Array] = {}
    for block in FEATURE_SPEC.pooled:
        columns[block.column] = pa.array(rng.normal(size=(num_rows, block.dim)).astype(np.float32).tolist())
        columns[block.flag] = pa.array(rng.random(num_rows) < 2 / 3)
    for name in FEATURE_SPEC.scalars:
        mask = rng.random(num_rows) < (1 / 3 if name in FEATURE_SPEC.flagged_scalars else 0)
        columns[name] = pa.array(rng.integers(0, 50, num_rows).astype(np.float64), mask=mask)
    for name, width in FEATURE_SPEC.shares.items():
        columns[name] = pa.array(rng.dirichlet(np.ones(width), num_rows).astype(np.float32).tolist())
    columns["attribute_country"] = pa.array(rng.choice(["de", "se", "fr"], num_rows))
    return pa.RecordBatch.from_pydict(columns)


def context_with_features(seed: int = 0) -> Context:
    """Put a context together whose rows have features, and whose artifact has a layout and a scaler."""
    context, rng = context_of([]), np.random.default_rng(seed)
    scaler = Scaler(
        center_F=rng.normal(size=LAYOUT.width).astype(np.float32) * (np.arange(LAYOUT.width) < LAYOUT.blocks[-1].start),
        scale_F=np.where(np.arange(LAYOUT.width) < LAYOUT.blocks[-1].start, 2, 1).astype(np.float32),
    )
    rows = replace(context.rows, features=features_of(len(context.rows), seed))
    artifact = cast(Any, SimpleNamespace(layout=LAYOUT, scaler=scaler))
    return replace(context, artifact=artifact, futures=replace(context.futures, rows=rows))
