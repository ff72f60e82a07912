"""What a deployment of another size would need a night, and what as many feature pipelines would: from measured rates.

Rates are those of runs in ``job_runs``: seconds that tasks ran, bytes that they shuffled, and what they did it for.
Work that follows users is scaled by users, work that follows events by events; that is how the stages grow
(`make bench-features-growth`). At a small size the fixed costs of a stage weigh more. So the run that did the most
counts, where runs say how much they did, else the newest; and a plan from a small sample is an upper bound.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from math import isfinite
from typing import Any

from pyspark.sql import Row

from userrep.config import Config
from userrep.errors import UsageError
from userrep.features.build import feature_sets, features_table
from userrep.items.versions import lineage_of
from userrep.spaces.registry import read_registry
from userrep.spaces.snapshots import PUBLISHED
from userrep.store import schemas
from userrep.store.schemas import TableSchema
from userrep.store.tables import Tables
from userrep.tiles.tiles import TileLedger, tile_ledger

_DAY, _WEEK = timedelta(days=1), timedelta(weeks=1)
_HOUR, _GB = 3600, 1e9
# Stage -> by what its work grows. A night's first, then a training's.
_NIGHT = {
    "build_activity_tiles": "event",
    "refresh_user_features": "user",
    "embed_users": "user and space",
    "publish_snapshot": "user and space",
}
TRAINING = {
    "train_item_vectors": "user", "build_user_features": "user", "check_quality": "user", "train_autoencoder": "user",
}  # fmt: skip
_OPTIONAL = ("check_quality",)
_OWN = ("build_activity_tiles", "refresh_user_features")  # what a team without embeddings does for itself


@dataclass(frozen=True)
class Size:
    """What is planned for. ``log_days``: of tiles that are kept; ``retrain_days``: from one training to the next."""

    users: int
    events_per_day: int
    consumers: int
    log_days: int
    retrain_days: int
    core_hour_price: float
    gb_month_price: float


@dataclass(frozen=True)
class Work:
    """A stage at the planned size, a night (a training's share of it)."""

    stage: str
    grows_by: str
    measured_on: float
    core_hours: float
    shuffle_gb: float


@dataclass(frozen=True)
class Storage:
    """A table at the planned size."""

    table: str
    grows_by: str
    bytes_each: float
    gb: float


@dataclass(frozen=True)
class Plan:
    """The work of a night and the storage, shared by all consumers; and both for a consumer on its own."""

    work: list[Work]
    storage: list[Storage]
    own_core_hours: float
    own_gb: float
    size: Size

    def monthly(self, core_hours: float, gb: float) -> float:
        """Return the price of 30 nights and a month's storage."""
        return 30 * core_hours * self.size.core_hour_price + gb * self.size.gb_month_price

    def summary(self) -> dict[str, float]:
        """Compare one embedding for all consumers with a feature pipeline for each."""
        shared = sum(of.core_hours for of in self.work), sum(of.gb for of in self.storage)
        own = self.size.consumers * self.own_core_hours, self.size.consumers * self.own_gb
        prices = self.monthly(*shared), self.monthly(*own)
        return {
            "shared_core_hours": shared[0], "own_core_hours": own[0], "shared_gb": shared[1], "own_gb": own[1],
            "shared_price": prices[0], "own_price": prices[1],
            "saved_core_hours": 1 - shared[0] / own[0] if own[0] else 0.0,
            "saved_price": 1 - prices[0] / prices[1] if prices[1] else 0.0,
        }  # fmt: skip


def plan_for(tables: Tables, config: Config, size: Size) -> Plan:
    """Estimate a night, a month's storage and what consumers would need on their own. Cost: reads of some ledgers.

    A consumer on its own is taken to build tiles and window features as this log's were built, each night, and to keep
    them; that its model then trains on wider rows is not counted. Of a space in use all is counted; without one, one.

    Raises
    ------
    UsageError
        If a price is no number, or a stage that the plan rests on has not run here yet.
    """
    if not all(map(isfinite, (size.core_hour_price, size.gb_month_price))):
        raise UsageError("plan: a price is a number, not nan or inf; see `userrep plan --help`.")
    runs, ledger = measured_runs(tables), tile_ledger(tables)
    missing = [stage for stage in (*_NIGHT, *TRAINING) if stage not in (*runs, *_OPTIONAL)]
    if missing:
        raise UsageError(
            f"plan: no run of {', '.join(missing)} is recorded below {config.root or config.catalog}, so there is no "
            "rate to plan by. Run `userrep pipeline` and then `userrep daily` of the next date on a sample of the log."
        )
    spaces = max(1, len(read_registry(tables).spaces_in_use()))
    times = {"event": size.events_per_day, "user": size.users, "user and space": size.users * spaces}
    published = _published(tables)
    users = published[-1].num_users
    night = [_work(stage, runs[stage], by, times[by], users) for stage, by in _NIGHT.items()]
    share = 1 / size.retrain_days
    stages = [stage for stage in TRAINING if stage in runs]
    training = [_work(stage, runs[stage], TRAINING[stage], times[TRAINING[stage]] * share, users) for stage in stages]
    storage = _storage(tables, config, size, ledger, spaces, num_vectors=sum(row.num_users for row in published))
    own_gb = sum(of.gb for of in storage if of.table != schemas.USER_EMBEDDINGS.name)
    return Plan(night + training, storage, sum(of.core_hours for of in night if of.stage in _OWN), own_gb, size)


def measured_runs(tables: Tables) -> dict[str, tuple[Row, dict[str, Any]]]:
    """Return the run of each stage that tells most of its rate, and its outputs, of those that have Spark's counts."""
    found: dict[str, tuple[Row, dict[str, Any]]] = {}
    for row in sorted(tables.ledger(schemas.JOB_RUNS, outcome="done"), key=lambda row: row.started_at):
        run = row, json.loads(row.outputs)
        if row.num_rows and run[1].get("spark"):
            grows_by = _NIGHT.get(row.stage, "user")
            if row.stage not in found or _done(*run, grows_by) >= _done(*found[row.stage], grows_by):
                found[row.stage] = run
    return found


def _done(row: Row, outputs: dict[str, Any], grows_by: str, users: int = 0) -> int:
    """Return how much a run did, of what its work grows by; of users, how many there are."""
    return int({"event": outputs.get("num_events", 0), "user": users, "user and space": row.num_rows}[grows_by])


def _work(stage: str, run: tuple[Row, dict[str, Any]], grows_by: str, number: float, users: int) -> Work:
    measured, spark = _done(*run, grows_by, users), run[1]["spark"]
    times = number / measured
    return Work(stage, grows_by, measured, spark["task_seconds"] * times / _HOUR, spark["shuffle_bytes"] * times / _GB)


def _published(tables: Tables) -> list[Row]:
    """Return the published snapshots by date and revision. Raises UsageError if there is none."""
    rows = sorted(tables.ledger(schemas.SNAPSHOTS, state=PUBLISHED), key=lambda row: (row.as_of, row.revision))
    if not rows:
        raise UsageError("plan: no snapshot is published yet. Run `userrep pipeline` on a sample of the log.")
    return rows


def _storage(
    tables: Tables, config: Config, size: Size, ledger: TileLedger, spaces: int, *, num_vectors: int
) -> list[Storage]:
    """Return what tables take: tiles of the days kept, features of one date, all vectors that retention keeps."""
    events = sum(of.num_events for of in ledger.days.values())
    snapshots = config.snapshots.keep_daily / _DAY + config.snapshots.keep_weekly / _WEEK
    sums = tables.ledger(schemas.SUM_GENERATIONS)
    lineage_id = lineage_of(config)
    features = feature_sets(tables, lineage_id).values()
    vectors = size.users * spaces * snapshots
    each: Iterable[tuple[TableSchema, str, float, float]] = (
        (schemas.USER_ITEM_DAYS, "event", events, size.events_per_day * size.log_days),
        (schemas.USER_WINDOW_SUMS, "user", sum(row.num_users for row in sums), size.users),
        (features_table(config, lineage_id), "user", sum(of.num_users for of in features), size.users),
        (schemas.USER_EMBEDDINGS, "user, space and snapshot", num_vectors, vectors),
    )
    found = []
    for table, grows_by, measured, number in each:
        bytes_each = tables.num_bytes(table) / measured if measured else 0.0
        found.append(Storage(table.name, grows_by, bytes_each, bytes_each * number / _GB))
    return found
