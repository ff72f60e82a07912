"""Cost estimate for a deployment of another size, compared with one feature pipeline per consumer.

Rates come from recorded runs in ``job_runs``: task seconds and shuffled bytes, divided by the number of users or events
that the run processed. Each stage is scaled by what its work grows with (measured by `make bench-features-growth`).

Fixed costs of a stage weigh more at a small size. So the rate of a stage is taken from the run that processed the most,
or from the newest run of a stage whose runs do not record this; and an estimate from a small sample is an upper bound.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from math import isfinite
from typing import Any

from pyspark.sql import Row

from userrep.config import Config
from userrep.errors import UsageError
from userrep.features.ledger import feature_sets, features_table
from userrep.features.sums.generations import generations
from userrep.items.versions import lineage_of
from userrep.operations.stage_rates import done_stages
from userrep.spaces.registry import read_registry
from userrep.spaces.snapshots import PUBLISHED, Snapshot
from userrep.store import schemas
from userrep.store.schemas import TableSchema
from userrep.store.tables import Tables
from userrep.tiles.ledger import TileLedger, tile_ledger

_DAY, _WEEK = timedelta(days=1), timedelta(weeks=1)
_HOUR, _GB = 3600, 1e9
TRAINING = ("train_item_vectors", "build_user_features", "check_quality", "train_autoencoder")
# Stages of a daily run and of a training, each with what its work grows with.
_GROWS_BY = {
    "build_activity_tiles": "event",
    "refresh_user_features": "user",
    "embed_users": "user and space",
    "publish_snapshot": "user and space",
    **dict.fromkeys(TRAINING, "user"),
}
# Most bytes of a number in a snapshot's files: a float, or an index into a dictionary of 2^16 or 2^10 numbers.
_NUMBER_BYTES = {"float32": 4.0, "float16": 2.0, "int8": 1.25}
_OWN = ("build_activity_tiles", "refresh_user_features")  # stages that a consumer without embeddings runs itself


@dataclass(frozen=True)
class Size:
    """The deployment to estimate. ``log_days``: days of tiles kept. ``retrain_days``: days between trainings."""

    users: int
    events_per_day: int
    consumers: int
    log_days: int
    retrain_days: int
    core_hour_price: float
    gb_month_price: float


@dataclass(frozen=True)
class Work:
    """A stage at the planned size, per day. Training stages are divided by the days between trainings."""

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
class CostPlan:
    """Daily work and storage shared by all consumers, and the comparison with one feature pipeline per consumer.

    ``embeddings``: all retained embeddings in each storage type, by its name; ``storage`` has the configured type.
    """

    work: list[Work]
    storage: list[Storage]
    embeddings: Mapping[str, Storage]
    summary: dict[str, float]


def plan_for(tables: Tables, config: Config, size: Size) -> CostPlan:
    """Estimate daily work and storage, and those of consumers with their own pipelines. Cost: reads some ledgers.

    A consumer's own pipeline is assumed to build and keep the same tiles and window features every day. The cost of
    training its model on wider rows is not included. All spaces in use are counted, or one space if none is in use.

    Raises
    ------
    UsageError
        If a price is not finite, if no run of a stage is recorded, or if no snapshot is published.
    """
    prices = size.core_hour_price, size.gb_month_price
    if not all(map(isfinite, prices)):
        raise UsageError(
            f"estimate: prices must be finite, got {prices[0]} and {prices[1]}. See `userrep estimate --help`."
        )
    runs, ledger = measured_runs(tables), tile_ledger(tables)
    missing = [stage for stage in _GROWS_BY if stage not in (*runs, "check_quality")]  # which may be off
    if missing:
        raise UsageError(
            f"estimate: no run of {', '.join(missing)} is recorded in {config.root or config.catalog}. Run `userrep "
            "pipeline` and then `userrep daily` for the next date, on a sample of the log."
        )
    num_spaces = max(1, len(read_registry(tables).spaces_in_use()))
    per_day = {"event": size.events_per_day, "user": size.users, "user and space": size.users * num_spaces}
    published = _published(tables)
    users = published[-1].num_users
    work = [
        _work(*runs[stage], per_day, every_days=size.retrain_days if stage in TRAINING else 1, users=users)
        for stage in _GROWS_BY
        if stage in runs
    ]
    storage = _storage(tables, config, size, ledger, num_spaces, num_vectors=sum(row.num_users for row in published))
    embeddings = _by_type(storage[-1], published)
    storage[-1] = embeddings.get(config.snapshots.storage, storage[-1])
    return CostPlan(work, storage, embeddings, compare(size, work, storage))


def compare(size: Size, work: Sequence[Work], storage: Sequence[Storage]) -> dict[str, float]:
    """Compare one shared embedding with one feature pipeline per consumer. A month has 30 days."""
    shared_hours, shared_gb = sum(stage.core_hours for stage in work), sum(table.gb for table in storage)
    own_hours = size.consumers * sum(stage.core_hours for stage in work if stage.stage in _OWN)
    own_gb = size.consumers * sum(table.gb for table in storage if table.table != schemas.USER_EMBEDDINGS.name)
    shared_price = 30 * shared_hours * size.core_hour_price + shared_gb * size.gb_month_price
    own_price = 30 * own_hours * size.core_hour_price + own_gb * size.gb_month_price
    return {
        "shared_core_hours": shared_hours, "own_core_hours": own_hours, "shared_gb": shared_gb, "own_gb": own_gb,
        "shared_price": shared_price, "own_price": own_price,
        "saved_core_hours": 1 - shared_hours / own_hours if own_hours else 0.0,
        "saved_price": 1 - shared_price / own_price if own_price else 0.0,
    }  # fmt: skip


def measured_runs(tables: Tables) -> dict[str, tuple[Row, dict[str, Any]]]:
    """Return the run that gives the rate of each stage, and its outputs. Ignores runs without Spark metrics."""
    best: dict[str, tuple[Row, dict[str, Any]]] = {}
    done = list(done_stages(tables))
    trained_at = max((row.started_at for row, _ in done if row.stage == "train_autoencoder"), default=None)
    for row, outputs in done:
        is_measured = row.stage in _GROWS_BY and row.num_rows and outputs.get("spark")
        # of a backfill, an evaluation or a daily run
        is_other = row.stage in TRAINING and trained_at is not None and row.started_at > trained_at
        if (
            is_measured
            and not is_other
            and (row.stage not in best or _amount(row, outputs) >= _amount(*best[row.stage]))
        ):
            best[row.stage] = row, outputs
    return best


def _amount(row: Row, outputs: dict[str, Any], *, users: int = 0) -> int:
    """Return how much a run processed of what its stage grows by. ``users``: 0 where only runs are compared."""
    amounts = {"event": outputs.get("num_events", 0), "user": users, "user and space": row.num_rows}
    return int(amounts[_GROWS_BY[row.stage]])


def _work(row: Row, outputs: dict[str, Any], per_day: Mapping[str, float], *, every_days: int, users: int) -> Work:
    grows_by, measured, spark = _GROWS_BY[row.stage], _amount(row, outputs, users=users), outputs["spark"]
    factor = per_day[grows_by] / every_days / measured
    core_hours, shuffle_gb = spark["task_seconds"] * factor / _HOUR, spark["shuffle_bytes"] * factor / _GB
    return Work(row.stage, grows_by, measured, core_hours, shuffle_gb)


def _published(tables: Tables) -> list[Row]:
    """Return the published snapshots with users, by date and revision. Raises UsageError if there is none."""
    published = [row for row in tables.ledger(schemas.SNAPSHOTS, state=PUBLISHED) if row.num_users]  # none once erased
    rows = sorted(published, key=lambda row: (row.as_of, row.revision))
    if not rows:
        raise UsageError(
            "estimate: no snapshot is published yet. Run `userrep pipeline --as-of DATE` on a sample of the log."
        )
    return rows


def _storage(
    tables: Tables, config: Config, size: Size, ledger: TileLedger, num_spaces: int, *, num_vectors: int
) -> list[Storage]:
    """Estimate the storage of tiles of the kept days, sums, features of one date, and all retained embeddings."""
    lineage_id = lineage_of(config)
    num_events = sum(day.num_events for day in ledger.days.values())
    num_sums = sum(kept.num_users for kept in generations(tables, lineage_id))
    num_features = sum(built.num_users for built in feature_sets(tables, lineage_id, sampled=True).values())
    snapshots = config.snapshots.keep_daily / _DAY + config.snapshots.keep_weekly / _WEEK

    def stored(table: TableSchema, grows_by: str, measured: int, planned: float) -> Storage:
        bytes_each = tables.num_bytes(table) / measured if measured else 0.0
        return Storage(table.name, grows_by, bytes_each, bytes_each * planned / _GB)

    return [
        stored(schemas.USER_ITEM_DAYS, "event", num_events, size.events_per_day * size.log_days),
        stored(schemas.USER_WINDOW_SUMS, "user", num_sums, size.users),
        stored(features_table(config, lineage_id), "user", num_features, size.users),
        stored(schemas.USER_EMBEDDINGS, "user, space and snapshot", num_vectors, size.users * num_spaces * snapshots),
    ]


def _by_type(measured: Storage, published: Sequence[Row]) -> dict[str, Storage]:
    """Return the measured storage of embeddings as it would be in each type; empty if no snapshot records its width."""
    snapshots = [Snapshot(**row.asDict()) for row in published]
    known = [snapshot for snapshot in snapshots if snapshot.dim and snapshot.num_users]
    if not known or not measured.bytes_each:
        return {}
    users = sum(snapshot.num_users for snapshot in known)
    bytes_now = sum(snapshot.num_users * _NUMBER_BYTES[snapshot.facts["storage"]] for snapshot in known) / users
    dim, vectors = max(snapshot.dim or 0 for snapshot in known), measured.gb / measured.bytes_each
    each = {name: measured.bytes_each + dim * (size - bytes_now) for name, size in _NUMBER_BYTES.items()}
    return {name: replace(measured, bytes_each=size, gb=size * vectors) for name, size in each.items()}
