"""The retraining policy: train a candidate when it is due, compare it for the consumers, and promote it if allowed.

Each step leaves its result in a ledger (a space, a snapshot, a verdict, a promotion), so a killed run continues where
it stopped.
"""

import logging
import shlex
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import NamedTuple

from userrep.config import Config
from userrep.config.operations import Retraining
from userrep.errors import GateRefusedError, UsageError, shortened
from userrep.items.versions import lineage_of
from userrep.monitoring import drift
from userrep.spaces.consumer_model import read_model
from userrep.spaces.registry import CANDIDATE, READY, Space, find_space, mark_ready, promote, read_registry
from userrep.spaces.registry_state import Registry
from userrep.spaces.snapshots import PUBLISHED, REFUSED, list_snapshots
from userrep.spaces.transitions import planned_promotion
from userrep.spaces.verdicts import FAIL, PASS, LabelTable, Verdict, follower_verdicts, newest_verdicts, record_verdict
from userrep.store.schemas import SNAPSHOT_DRIFT
from userrep.store.tables import Tables
from userrep.workflows.pipeline import run_pipeline
from userrep.workflows.run_context import RunContext
from userrep.workflows.runs import DONE, SKIPPED, Runs
from userrep.workflows.space_compare import compare_spaces
from userrep.workflows.space_diff import diff_spaces

logger = logging.getLogger(__name__)


def retrain_if_due(tables: Tables, config: Config, as_of: date, context: Callable[[], RunContext]) -> tuple[str, str]:
    """Do what the section ``retraining`` of a configuration makes due; return the outcome and its reason.

    ``context`` checks root, sources and date, then starts Spark and opens the run.

    Raises
    ------
    GateRefusedError
        If the self-check or a gate refuses the candidate, or a comparison of this run has the verdict fail.
    """
    registry, policy = read_registry(tables), config.retraining
    assert policy is not None
    serving = registry.serving
    if serving is None:
        return SKIPPED, "no space is serving"
    newest = _newest(registry, config)
    if newest and newest.state == CANDIDATE and PUBLISHED in _snapshot_states(tables, newest):
        # The run that published its first snapshots was killed before it could do this.
        newest = mark_ready(tables, newest).space(newest.space_id)
    due = _due(tables, newest, serving, policy, as_of)
    reason = due.reason if due else None
    if due:
        logger.info(f"retraining: {reason}")
        if config.training.as_ofs.until is not None:
            logger.warning(
                f"retraining: training.as_ofs.until is {config.training.as_ofs.until}, so the candidate is not trained "
                "on events from that date on. Remove the setting to train on newer days."
            )
        work = context()
        # The same dates and rows in all nights of a week, so that an interrupted training is continued.
        work.training_due = as_of - timedelta(days=(as_of - due.since).days % 7)
        run_pipeline(work, retrain=True)
    registry = read_registry(tables)
    candidate = _newest(registry, config)
    assert candidate is not None
    if due and (superseded := _superseded(registry, candidate)):
        logger.warning(
            f"retraining: older spaces also wait to serve: {shortened(superseded)}. Daily runs refresh them, too. "
            "Run `userrep spaces retire SPACE` for those that will not be promoted."
        )
    if not _is_waiting(candidate):
        due_on = candidate.created_at.date() + policy.every
        return SKIPPED, f"due on {due_on}, {policy.every.days} days after {candidate.space_id}"
    return _judge(tables, config, serving, candidate, reason=reason, promotes=policy.promote == "when_all_pass")


def _judge(
    tables: Tables, config: Config, serving: Space, candidate: Space, *, reason: str | None, promotes: bool
) -> tuple[str, str]:
    """Compare a candidate for the followers that have no verdict on it; with ``promotes``, promote it if all pass.

    It is not promoted while a follower is not ready for it.
    """
    runs, verdicts = Runs(tables, config), follower_verdicts(tables, candidate.space_id)
    recipes = {verdict.consumer: verdict for verdict in newest_verdicts(tables)}
    pending = {name: recipes[name] for name, known in verdicts.items() if known is None and name in recipes}
    if pending:
        with runs.stage("compare_spaces") as run:
            _compare(tables, config, serving, candidate, pending)
            verdicts = follower_verdicts(tables, candidate.space_id)
            run.reason = _state(candidate, verdicts)
    state = _state(candidate, verdicts)
    all_pass = bool(verdicts) and all(verdict and verdict.verdict == PASS for verdict in verdicts.values())
    is_promoted = promotes and all_pass and not planned_promotion(read_registry(tables), candidate.space_id).blocks
    if is_promoted:
        with runs.stage("promote") as run:
            promote(tables, candidate)
            state = run.reason = f"space {candidate.space_id} is serving, because all consumers that follow pass"
    failed = [name for name in pending if (verdict := verdicts.get(name)) and verdict.verdict == FAIL]
    if failed:
        command = _compare_command(serving, candidate, pending[failed[0]].label_table)
        raise GateRefusedError(
            f"retraining: space {candidate.space_id} fails for {', '.join(failed)}: {verdicts[failed[0]]}. "
            f"Before you promote it, look at `{command}`."
        )
    return DONE if reason or pending or is_promoted else SKIPPED, f"{reason}; {state}" if reason else state


def _compare_command(serving: Space, candidate: Space, table: LabelTable) -> str:
    """Return the command that compares two spaces on the labels of a consumer."""
    options = [f"--labels={table.labels}", f"--user-col={table.user_column}", f"--time-col={table.time_column}"]
    options += [f"--model={table.model}"] if table.model else []
    return shlex.join(["userrep", "spaces", "compare", serving.space_id, candidate.space_id, *options])


def _compare(tables: Tables, config: Config, serving: Space, candidate: Space, pending: Mapping[str, Verdict]) -> None:
    """Compare two spaces for consumers and record the verdicts; report consumers whose labels do not allow it.

    ``pending``: each consumer's newest verdict, of which the labels and the model are used again.
    """
    if serving.space_id not in dict(candidate.maps):
        diff_spaces(tables, old=serving, new=candidate)
        candidate = find_space(tables, candidate.space_id)
    for name, newest in pending.items():
        label_table = newest.label_table
        try:
            _check_model(newest, serving)
            comparison = compare_spaces(tables, config, old=serving, new=candidate, label_table=label_table)
        except UsageError as error:
            logger.warning(f"consumer {name} is not compared: {' '.join(error.faults)}")
        else:
            record_verdict(tables, comparison.verdict_for(name, label_table))


def _check_model(verdict: Verdict, serving: Space) -> None:
    """Raise UsageError if a consumer's model is for another space than the serving one, as far as can be known.

    A model that names no space is taken to be for the space that it was compared on.
    """
    path = verdict.label_table.model
    if path and verdict.old_space_id != serving.space_id and read_model(path).space_id is None:
        raise UsageError(
            f"--model {path}: the model names no space and was last compared on {verdict.old_space_id}. Compare with a "
            f"model of {serving.space_id}, for example a saved pipeline of EmbeddingJoin and a regression."
        )


def _snapshot_states(tables: Tables, space: Space) -> set[str]:
    """Return the states of a space's snapshots that gates have judged."""
    return {snapshot.state for snapshot in list_snapshots(tables, space.space_id, states=(PUBLISHED, REFUSED))}


def _newest(registry: Registry, config: Config) -> Space | None:
    """Return the newest space of this configuration's lineage. Those of other configurations have other policies."""
    lineage_id = lineage_of(config)
    return next((space for space in reversed(registry.spaces) if space.lineage_id == lineage_id), None)


def _superseded(registry: Registry, candidate: Space) -> list[str]:
    """Return the ids of older spaces that were never promoted and that no consumer is pinned to."""
    waiting = [space for space in registry.spaces if _is_waiting(space) and space.created_at < candidate.created_at]
    return [space.space_id for space in waiting if not registry.pinned_to(space.space_id)]


class _Due(NamedTuple):
    """Why a training is due, and since which date."""

    reason: str
    since: date


def _due(tables: Tables, newest: Space | None, serving: Space, policy: Retraining, as_of: date) -> _Due | None:
    """Return whether a training is due. ``newest``: of this configuration."""
    if newest is None:
        return _Due("no space of this configuration yet", serving.created_at.date())
    trained_on = newest.created_at.date()
    if newest.state == CANDIDATE and not _snapshot_states(tables, newest):
        return _Due(f"the first snapshots of space {newest.space_id} are missing", trained_on)
    if as_of - trained_on >= policy.every:
        return _Due(f"space {newest.space_id} was trained on {trained_on}", trained_on + policy.every)
    if policy.on_drift and not _is_waiting(newest):
        return _drift_since(tables, serving, newest.created_at)
    return None


def _drift_since(tables: Tables, space: Space, since: datetime) -> _Due | None:
    """Return the newest drift of a space past a limit that was measured since a time, or None."""
    rows = tables.ledger(SNAPSHOT_DRIFT, space_id=space.space_id)
    past = [row for row in rows if not row.part and row.outcome != drift.OK and row.measured_at > since]
    if not past:
        return None
    newest = max(past, key=lambda row: (row.as_of, row.outcome == drift.FAIL))
    reason = f"{newest.metric} {newest.value:.3f} of {newest.snapshot_id} is past drift.{newest.outcome}"
    return _Due(reason, min(row.as_of for row in past))


def _is_waiting(space: Space) -> bool:
    """Return whether a space is ready and has never served."""
    return space.state == READY and not space.last_turn


def _state(candidate: Space, verdicts: Mapping[str, Verdict | None]) -> str:
    """Return what a candidate waits for, in one line."""
    states = [f"{name} {verdict.verdict if verdict else 'has no verdict'}" for name, verdict in verdicts.items()]
    return f"space {candidate.space_id} waits to serve: {', '.join(states) or 'no consumer follows'}"
