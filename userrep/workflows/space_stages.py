"""The batch stages of a space: self-check, training, snapshots, drift, publication and first promotion."""

import logging
from collections.abc import Mapping, Sequence
from datetime import date, timedelta

from userrep.errors import GateRefusedError, UsageError, plural
from userrep.features.ledger import built_sets, features_table
from userrep.logs import logged_with
from userrep.model.self_check import SelfCheck
from userrep.monitoring.drift import FAIL, WARN, failed_drift, measure_drift
from userrep.spaces import registry, snapshots
from userrep.spaces.create import check_training, create_space
from userrep.spaces.registry import Space, is_trained_so, next_space_id
from userrep.spaces.stale import without_snapshot
from userrep.spaces.training_inputs import TrainingPlan
from userrep.spaces.unrecorded import record_kept
from userrep.store.leases import held
from userrep.store.schemas import TRAINING_ROWS, USER_EMBEDDINGS
from userrep.workflows.run_context import RunContext

logger = logging.getLogger(__name__)


def check_quality(work: RunContext) -> SelfCheck | None:
    """Train a model with these settings on less of the log and evaluate it; None if off or the log is too short.

    Raises
    ------
    GateRefusedError
        If ``quality.min_gain`` is set and the gain is lower or cannot be measured.
    """
    quality, schedule = work.config.quality, work.schedule
    if not quality.self_check:
        return None
    from userrep.evaluation import run_self_check as checks  # imports scikit-learn, LightGBM and torch

    check_training(work.tables, work.config, work.schedule.until)
    check = schedule.check_plan
    with work.runs.stage("check_quality", [features_table(work.config, schedule.lineage_id)]) as run:
        try:
            if check is None:
                raise UsageError(
                    "the log is too short, or training.as_ofs.max_dates too small, to train a model for a check"
                )
            space_id = next_space_id(work.tables, work.config, schedule.until)
            with logged_with(prefix="self-check: "):
                result = checks.self_check(
                    work.tables, work.config, space_id, versions=schedule.versions, check=check, ledger=work.tiles
                )
        except UsageError as error:
            if quality.min_gain is not None:
                raise GateRefusedError(f"quality.min_gain is set, but the self-check failed: {error}") from error
            run.reason = f"no check: {error}"
            return None
        run.num_rows = result.num_test_users
        run.reason = f"trained until {result.trained_until}, {result.summary}"
        run.outputs = result.model_dump(mode="json")
        checks.check_gain(result, quality.min_gain)
    return result


def train_autoencoder(work: RunContext) -> Space:
    """Run the self-check, then train a new space and register it as a candidate."""
    with held(work.tables, "train_autoencoder", nested=True):
        schedule = work.schedule
        built_sets(work.tables, schedule.lineage_id, schedule.training_feature_dates)
        work.self_check = check_quality(work)
        with work.runs.stage("train_autoencoder", [features_table(work.config, schedule.lineage_id)]) as run:
            run.reason = "no space yet" if schedule.usable_space is None else "requested"
            _warn_short_history(work)
            plan = TrainingPlan(schedule.versions, schedule.training_as_ofs, schedule.until, work.tiles)
            space = create_space(work.tables, work.config, plan, self_check=work.self_check)
            record_kept(work.tables, work.config)
            rows = work.tables.partitions(TRAINING_ROWS)
            run.num_rows = sum(part.num_rows for key, part in rows.items() if key[0] == space.space_id)
            run.outputs = {"space_id": space.space_id}
            run.reason += f"; space {space.space_id}"
    return space


def _warn_short_history(work: RunContext) -> None:
    """Report training dates with less history than later dates will have."""
    days, first_training_date = work.config.history_window, work.schedule.training_as_ofs[0]
    first_day = work.schedule.inventory.first_day
    if days and first_training_date - timedelta(days=days) < first_day:
        logger.warning(
            f"the log starts on {first_day}, so the first training date, {first_training_date}, has less than "
            f"{days} days of history; set history_days: 0 to leave history out"
        )


def train_unless_trained(work: RunContext) -> Space:
    """Train a new space, unless the same training has left a candidate that is not ready yet.

    A scheduler that retries this task therefore does not train twice.
    """
    candidate = work.schedule.unfinished_candidate()
    if candidate is not None and is_trained_so(candidate, work.config, work.schedule.until):
        return skip_training(work, candidate)
    return train_autoencoder(work)


def skip_training(work: RunContext, space: Space) -> Space:
    with work.runs.stage("train_autoencoder", space_id=space.space_id) as run:
        record_kept(work.tables, work.config)  # trainings that MLflow did not accept at the time
        is_judged = snapshots.list_snapshots(
            work.tables, space.space_id, states=(snapshots.PUBLISHED, snapshots.REFUSED)
        )
        state = f"{space.state}; use --retrain to train a new one" if is_judged else "trained, without a snapshot"
        run.skip(f"space {space.space_id} is {state}")
    return space


def embed_users(work: RunContext, space: Space, as_ofs: Sequence[date]) -> None:
    """Stage snapshots of these dates, unless one of the same inputs is staged or published."""
    features = features_table(work.config, space.lineage_id)
    with work.runs.stage("embed_users", [features], space_id=space.space_id) as run:
        missing = without_snapshot(work.tables, space, as_ofs, snapshots.STAGED, snapshots.PUBLISHED)
        again = snapshots.restage_refused(work.tables, work.config, space, missing) if missing else []
        missing = sorted({*missing} - {snapshot.as_of for snapshot in again})
        if not missing:
            which = f"{plural(len(as_ofs), 'snapshot')} of space {space.space_id}"
            run.skip(f"{which}, {len(again)} of them refused before" if again else which)
            return
        staged = snapshots.stage_snapshots(work.tables, work.config, space, missing)
        run.num_rows = sum(snapshot.num_users for snapshot in staged)
        run.reason = f"{plural(len(staged), 'snapshot')}, the last {staged[-1].snapshot_id}"
        run.outputs = {"snapshots": [snapshot.snapshot_id for snapshot in staged]}


def monitor_drift(work: RunContext, space: Space, as_of: date) -> None:
    """Measure the drift between the newest snapshot of a date, staged or published, and the previous date's.

    Raises
    ------
    GateRefusedError
        If a metric is past ``drift.fail``.
    """
    with work.runs.stage("monitor_drift", [USER_EMBEDDINGS], space_id=space.space_id) as run:
        states = (snapshots.STAGED, snapshots.PUBLISHED)
        snapshot = snapshots.newest_snapshot(work.tables, space.space_id, as_of, states=states)
        drift = measure_drift(work.tables, work.config, space, snapshot)
        if drift is None:
            run.skip(f"space {space.space_id} has no snapshot before {as_of}")
            return
        run.num_rows, run.outputs = len(drift.metrics), dict(drift.metrics)
        names = f"{drift.snapshot.snapshot_id} against {drift.before.snapshot_id}"
        if failed := drift.describe(FAIL):
            raise _refused_for_drift({names: failed})
        warned = ", ".join(drift.describe(WARN))
        run.reason = f"{names}: {warned or 'nothing'} past drift.warn"
        if not drift.is_new:
            run.skip(run.reason)
        elif warned:
            logger.warning(f"drift: {run.reason}")


def _refused_for_drift(failed: Mapping[str, Sequence[str]]) -> GateRefusedError:
    """Return the error for snapshots past ``drift.fail``, given a description of each metric by snapshot."""
    return GateRefusedError(
        " ".join(
            f"drift: {names}: above the limits in drift.fail: {', '.join(each)}." for names, each in failed.items()
        )
        + " Check the last days of the log, or change the limits. Published snapshots do not change."
    )


def publish_snapshots(work: RunContext, space: Space, as_ofs: Sequence[date], *, on_time: bool = True) -> None:
    """Check the staged snapshots of these dates against the gates and publish them.

    ``on_time``: first revisions get the ``available_at`` of a run on time instead of the current time.

    Raises
    ------
    GateRefusedError
        If a gate refuses a snapshot, or its recorded drift is past ``drift.fail``. The others are published.
    """
    with work.runs.stage("publish_snapshot", [USER_EMBEDDINGS], space_id=space.space_id) as run:
        missing = without_snapshot(work.tables, space, as_ofs, snapshots.PUBLISHED)
        if not missing:
            if space.state == registry.CANDIDATE:  # the run that published them was killed before it did this
                registry.mark_ready(work.tables, space)
            run.skip(f"{plural(len(as_ofs), 'snapshot')} of space {space.space_id}")
            return
        staged = snapshots.staged_snapshots(work.tables, space, missing)
        drifted = failed_drift(work.tables, work.config, space, staged)
        staged = [snapshot for snapshot in staged if snapshot.snapshot_id not in drifted]
        try:
            if staged:  # not empty, unless all have drifted
                published = snapshots.publish_snapshots(work.tables, work.config, space, staged, on_time=on_time)
        except GateRefusedError:  # of some, perhaps not all
            if not drifted and snapshots.list_snapshots(work.tables, space.space_id):
                registry.mark_ready(work.tables, space)
            raise
        if drifted:
            raise _refused_for_drift(drifted)
        registry.mark_ready(work.tables, space)
        run.num_rows = sum(snapshot.num_users for snapshot in published)
        last = published[-1]
        run.reason = (
            f"{plural(len(published), 'snapshot')}, the last available at {last.available_at:%Y-%m-%d %H:%M} UTC"
        )
        if num_at_limit := sum(snapshot.facts["num_at_limit"] for snapshot in published):
            run.reason += f"; {num_at_limit:,} numbers at the limit of {last.facts['storage']}"
        run.outputs = {snapshot.snapshot_id: snapshot.gates for snapshot in published}


def promote_first(work: RunContext, space: Space) -> None:
    """Promote a space if no space is serving yet."""
    with work.runs.stage("promote", space_id=space.space_id) as run:
        serving = registry.read_registry(work.tables).serving
        if serving is not None:
            run.skip(f"space {serving.space_id} is serving")
            return
        registry.promote(work.tables, space)
        run.reason = f"space {space.space_id} is the first serving space"
