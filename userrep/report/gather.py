"""Gathers the content of a report from ledgers, the manifest of an artifact and a sample of one snapshot."""

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pyspark.sql import Row

from userrep.config import Config
from userrep.erasure.request_states import ASKED
from userrep.errors import UsageError
from userrep.operations.cost_plan import TRAINING, measured_runs
from userrep.report.facts import BAD, WARN, Facts, Request, Run, SpaceFacts, Stage
from userrep.report.log_facts import log_facts
from userrep.report.space_facts import drift_facts, evaluation_facts, outcomes, training_facts
from userrep.report.state import RootState, begins_attempt
from userrep.report.user_map import map_users
from userrep.spaces.registry import Space
from userrep.spaces.snapshots import EXPIRED, PUBLISHED, REFUSED, Snapshot, available, list_snapshots
from userrep.store.tables import Tables
from userrep.utc import utc_now

_MOST_RUNS = 60
_HOUR = 3600
_DAILY, _PIPELINE = "refresh_user_features", "train_autoencoder"  # stages by which these runs are recognized


def reported_space(state: RootState, space_id: str | None, config: str) -> Space | None:
    """Return the space to report on: ``space_id``, else the serving space, else the newest; None if no space exists.

    ``config``: the configuration file, for messages.

    Raises
    ------
    UsageError
        If nothing has run yet, or if ``space_id`` does not exist.
    """
    if not state.runs:
        raise UsageError(
            f"report: nothing has run yet. Run `userrep pipeline --config {config} --as-of D` to create the tables, a "
            "space and its first snapshots."
        )
    if space_id is not None:
        return state.registry.space(space_id)
    return state.registry.serving or (state.registry.spaces[-1] if state.registry.spaces else None)


def gather(
    state: RootState, tables: Tables, config: Config, space: Space | None, *, named: str, sample: bool = True,
    models: Sequence[str] = (),
) -> Facts:  # fmt: skip
    """Gather a report on ``space``. ``named``: the configuration file. ``models``: paths of models to explain.

    Cost: reads ledgers; with ``sample``, also up to 5,000 users (see ``map_users`` and ``explanation_facts``). Driver
    memory: the ledgers and the sample.
    """
    made_at, stages = utc_now(), [_stage(row) for row in state.runs]
    newest = _newest(stages)
    latest = next((_run_of(newest[name]) for name in (_DAILY, _PIPELINE) if name in newest), None)
    limits = {WARN: config.freshness.warn_after, BAD: config.freshness.error_after}
    about_space = _of_space(tables, config, space) if space else {}
    if space and sample and (published := state.snapshots[space.space_id]):
        newest_snapshot = (available(published, made_at) or published)[-1]
        about_space |= _sampled(tables, config, space, newest_snapshot, models)
    return Facts(
        made_at=made_at,
        root=tables.location,
        config=named,
        runs=_runs(stages)[-_MOST_RUNS:],
        newest=sorted(newest.values(), key=lambda stage: stage.started_at),
        latest_run=[stage for stage in stages if _run_of(stage) == latest],
        latest_run_is_daily=_DAILY in newest,
        log=log_facts(state.ledger, state.rejected, config.events.max_rejected_share),
        spaces=[_space(state, space, made_at) for space in state.registry.spaces],
        consumers=state.registry.consumers,
        training_stages=[_stage(row) for name, (row, _) in measured_runs(tables).items() if name in TRAINING],
        storage=state.num_bytes,
        requests=[Request(row.request_id, row.num_users, row.due_at, row.state != ASKED) for row in state.requests],
        max_age={level: age for level, age in limits.items() if age is not None},
        **about_space,
    )


def _of_space(tables: Tables, config: Config, space: Space) -> dict[str, Any]:
    training, fault = training_facts(tables, space)
    return {
        "space_id": space.space_id,
        "snapshots": list_snapshots(tables, space.space_id, states=(PUBLISHED, REFUSED, EXPIRED)),
        "outcomes": outcomes(tables, space),
        "training": training,
        "artifact_fault": fault,
        "drift": drift_facts(tables, config, space),
        "evaluation": evaluation_facts(tables, space),
    }


def _sampled(tables: Tables, config: Config, space: Space, snapshot: Snapshot, models: Sequence[str]) -> dict[str, Any]:
    from userrep.report.explained import explanation_facts
    from userrep.spaces.consumer_model import read_model  # scipy takes a second, and `check` does not need it

    read = {path: read_model(path) for path in models}
    return {
        "user_map": map_users(tables, config, space, snapshot),
        "explanation": explanation_facts(tables, config, space, snapshot, read),
    }


def _stage(row: Row) -> Stage:
    outputs = json.loads(row.outputs)
    spark = outputs.get("spark") or {}
    seconds = spark.get("task_seconds")
    same = ("run_id", "stage", "outcome", "started_at", "seconds", "num_rows", "config_hash", "code_hash")
    return Stage(
        **{name: row[name] for name in same},
        command=outputs.get("command") or row.stage,
        reason=row.reason or "",
        core_hours=None if seconds is None else seconds / _HOUR,
        shuffle_bytes=int(spark.get("shuffle_bytes", 0)),
        inputs=json.loads(row.inputs),
        expected_seconds=(outputs.get("predicted") or {}).get("seconds"),
    )


def _run_of(stage: Stage) -> tuple[str, bool]:
    """Return what the stages of one run share: the run id, and whether they are those of `userrep daily`.

    `userrep nightly` runs maintenance and retraining under the same id.
    """
    return stage.run_id, stage.command == "daily"


def _runs(stages: Sequence[Stage]) -> list[Run]:
    """Group stages by run. Runs are in the order in which they started."""
    by_run: dict[tuple[str, bool], list[Stage]] = {}
    for stage in stages:
        by_run.setdefault(_run_of(stage), []).append(stage)
    return [*map(_run, by_run.values())]


def _run(stages: Sequence[Stage]) -> Run:
    outcomes = {stage.outcome for stage in _last_attempts(stages)}
    expected = [stage.seconds if stage.expected_seconds is None else stage.expected_seconds for stage in stages]
    return Run(
        run_id=stages[0].run_id,
        started_at=stages[0].started_at,
        seconds=sum(stage.seconds for stage in stages),
        outcome=next((outcome for outcome in ("failed", "done") if outcome in outcomes), "skipped"),
        stages=[stage.stage for stage in stages if stage.outcome != "skipped"],
        is_daily=any(stage.stage == _DAILY for stage in stages),
        expected_seconds=None if all(stage.expected_seconds is None for stage in stages) else sum(expected),
    )


def _newest(stages: Sequence[Stage]) -> dict[str, Stage]:
    """Return the last run of each stage. If its attempt ran it several times, for several spaces, a failed one."""
    newest: dict[str, Stage] = {}
    failed: dict[tuple[str, str], dict[str, Stage]] = defaultdict(dict)
    for stage in stages:
        of_attempt = failed[stage.run_id, stage.command]
        if begins_attempt(stage.stage, stage.command):
            of_attempt.clear()
        if stage.outcome == "failed":
            of_attempt[stage.stage] = stage
        newest[stage.stage] = of_attempt.get(stage.stage, stage)
    return newest


def _last_attempts(stages: Sequence[Stage]) -> list[Stage]:
    """Return the stages of the last attempt of each command: schedulers repeat a command under its run id."""
    attempts: dict[str, list[Stage]] = {}
    for stage in stages:
        attempt = attempts.setdefault(stage.command, [])
        if begins_attempt(stage.stage, stage.command):
            attempt.clear()
        attempt.append(stage)
    return [stage for attempt in attempts.values() for stage in attempt]


def _space(state: RootState, space: Space, now: datetime) -> SpaceFacts:
    published = state.snapshots[space.space_id]
    newest = published[-1] if published else None
    usable = available(published, now)
    newest_usable = usable[-1] if usable else None
    return SpaceFacts(
        space_id=space.space_id,
        state=space.state,
        in_use=state.registry.spaces_in_use().get(space.space_id),
        trained_until=space.trained_until,
        created_at=space.created_at,
        num_snapshots=len(published),
        newest_as_of=newest.as_of if newest else None,
        newest_users=newest.num_users if newest else 0,
        available_as_of=newest_usable.as_of if newest_usable else None,
        available_at=newest_usable.available_at if newest_usable else None,
        stale=state.stale.get(space.space_id, []),
    )
