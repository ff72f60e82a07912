"""All that a report tells, from ledgers, an artifact's manifest and a sample of one snapshot."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import Row

from userrep.config import Config
from userrep.errors import UsageError
from userrep.operations.maintenance import stored_bytes
from userrep.operations.plan import TRAINING, measured_runs
from userrep.report.facts import (
    ConsumerFacts,
    Facts,
    Request,
    Run,
    SnapshotFacts,
    SpaceFacts,
    Stage,
    Table,
)
from userrep.report.log_days import log_facts
from userrep.report.space_facts import drift_facts, evaluation_facts, outcomes, training_facts
from userrep.report.user_map import map_users
from userrep.spaces.registry import Space, read_registry
from userrep.spaces.snapshots import EXPIRED, PUBLISHED, REFUSED, list_snapshots
from userrep.store import schemas
from userrep.store.tables import Tables
from userrep.tiles.tiles import tile_ledger
from userrep.utc import utc_now

_MOST_RUNS = 60
_HOUR = 3600
_DAILY, _PIPELINE = "refresh_user_features", "train_autoencoder"  # the stages that tell what a run was


def check_reportable(tables: Tables, space_id: str | None, config: str) -> Space | None:
    """Return the space that a report is about: the one asked for, that serves, or the newest; None: there is none yet.

    Cost: reads of two ledgers, without Spark where these are files.

    Raises
    ------
    UsageError
        If nothing has run yet, or there is no such space.
    """
    if not tables.ledger(schemas.JOB_RUNS, ("run_id",)):
        raise UsageError(
            f"nothing has run yet: there is nothing to report. `userrep pipeline --config {config} --as-of D` makes "
            "tables, a space and its first snapshots."
        )
    registry = read_registry(tables)
    if space_id is not None:
        return registry.space(space_id)
    return registry.serving or (registry.spaces[-1] if registry.spaces else None)


def gather(
    tables: Tables, config: Config, space: Space | None, *, named: str, state: Mapping[str, Any]
) -> Facts:  # fmt: skip
    """Gather a report. ``named``: the configuration file; ``state``: what ``userrep status`` finds of these tables.

    Cost: reads of ledgers, a listing of each table's files, and of the newest snapshot a sample of 2,000 users, joined
    with their features by one small shuffle. Driver memory: the ledgers, and the sample.
    """
    stages = [_stage(row) for row in sorted(tables.ledger(schemas.JOB_RUNS), key=lambda row: row.started_at)]
    night, is_daily = _night(stages)
    published = list_snapshots(tables, space.space_id) if space else []
    training, fault = training_facts(config, space)
    newest = {of.stage: of for of in stages}
    return Facts(
        made_at=utc_now(),
        config=named,
        space_id=space.space_id if space else None,
        runs=_runs(stages)[-_MOST_RUNS:],
        newest=sorted(newest.values(), key=lambda of: of.started_at),
        night=night,
        night_is_daily=is_daily,
        log=log_facts(tile_ledger(tables), state["rejected"], config.events.max_rejected_share),
        spaces=_spaces(tables, state),
        snapshots=_snapshots(tables, space),
        consumers=[_consumer(of) for of in read_registry(tables).consumers],
        outcomes=outcomes(tables, space),
        training=training,
        artifact_fault=fault,
        drift=drift_facts(tables, config, space),
        evaluation=evaluation_facts(tables, space),
        user_map=map_users(tables, config, space, published[-1]) if space and published else None,
        training_stages=[_stage(row) for name, (row, _) in measured_runs(tables).items() if name in TRAINING],
        storage=_storage(tables),
        requests=[Request(of["request_id"], of["num_users"], of["due_at"]) for of in state["erasures"]],
    )


def _stage(row: Row) -> Stage:
    outputs = json.loads(row.outputs)
    spark = outputs.get("spark") or {}
    seconds = spark.get("task_seconds")
    return Stage(
        run_id=row.run_id,
        stage=row.stage,
        outcome=row.outcome,
        reason=row.reason or "",
        started_at=row.started_at,
        seconds=row.seconds,
        num_rows=row.num_rows,
        core_hours=None if seconds is None else seconds / _HOUR,
        shuffle_bytes=int(spark.get("shuffle_bytes", 0)),
        inputs=json.loads(row.inputs),
        config_hash=row.config_hash,
        code_hash=row.code_hash,
    )


def _runs(stages: Sequence[Stage]) -> list[Run]:
    """Put stages of one run together, in the order in which runs began."""
    by_run: dict[str, list[Stage]] = {}
    for of in stages:
        by_run.setdefault(of.run_id, []).append(of)
    return [
        Run(
            run_id=run_id,
            started_at=mine[0].started_at,
            seconds=sum(of.seconds for of in mine),
            outcome=next((o for o in ("failed", "done") if o in {of.outcome for of in mine}), "skipped"),
            stages=[of.stage for of in mine if of.outcome != "skipped"],
        )
        for run_id, mine in by_run.items()
    ]


def _night(stages: Sequence[Stage]) -> tuple[list[Stage], bool]:
    """Return the stages of the newest run that refreshed features; without one, of the newest pipeline."""
    for name in (_DAILY, _PIPELINE):
        run_id = next((of.run_id for of in reversed(stages) if of.stage == name), None)
        if run_id is not None:
            return [of for of in stages if of.run_id == run_id], name == _DAILY
    return [], False


def _spaces(tables: Tables, state: Mapping[str, Any]) -> list[SpaceFacts]:
    found = []
    for of in state["spaces"]:
        published = list_snapshots(tables, of["space_id"])
        newest = published[-1] if published else None
        same = {name: of[name] for name in ("space_id", "state", "in_use", "trained_until", "created_at", "stale")}
        found.append(
            SpaceFacts(
                **same,
                num_snapshots=len(published),
                newest_as_of=newest.as_of if newest else None,
                newest_users=newest.num_users if newest else 0,
            )
        )
    return found


def _snapshots(tables: Tables, space: Space | None) -> list[SnapshotFacts]:
    if space is None:
        return []
    return [
        SnapshotFacts(
            of.snapshot_id,
            of.as_of,
            of.revision,
            of.state,
            of.num_users,
            of.available_at,
            json.loads(of.gates or "{}").get("faults", []),
        )
        for of in list_snapshots(tables, space.space_id, states=(PUBLISHED, REFUSED, EXPIRED))
    ]


def _consumer(of: Any) -> ConsumerFacts:
    return ConsumerFacts(of.name, of.owner, of.pinned_space_id, of.ready_for, of.last_seen_at)


def _storage(tables: Tables) -> list[Table]:
    return [Table(name, num) for name, num in stored_bytes(tables).items()]
