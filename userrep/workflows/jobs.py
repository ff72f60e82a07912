"""The jobs by name, as ``userrep run JOB`` and the entry points in jobs/ run them."""

import signal
from collections.abc import Callable

from userrep.operations.maintenance import maintain_tables
from userrep.spaces.registry import Space
from userrep.workflows import data_stages, space_stages
from userrep.workflows.run_context import RunContext


def _train_item_vectors(work: RunContext, *, retrain: bool = False) -> None:
    data_stages.train_item_vectors(work, work.schedule.feature_dates(retrain=retrain))


def _build_user_features(work: RunContext, *, retrain: bool = False) -> None:
    data_stages.build_user_features(work, work.schedule.feature_dates(retrain=retrain), force=[work.schedule.as_of])


def _job_space(work: RunContext) -> Space:
    """Return the space a job works on: a candidate that is not ready yet if there is one, else the space to use."""
    return work.schedule.unfinished_candidate() or work.schedule.space_to_use()


def _embed_users(work: RunContext) -> None:
    space = _job_space(work)
    space_stages.embed_users(work, space, work.schedule.snapshot_dates(space))


def _publish_snapshot(work: RunContext) -> None:
    space = _job_space(work)
    space_stages.publish_snapshots(work, space, work.schedule.snapshot_dates(space))
    space_stages.promote_first(work, space)


def _monitor_drift(work: RunContext) -> None:
    space_stages.monitor_drift(work, work.schedule.space_to_use(), work.schedule.as_of)


def _maintain_tables(work: RunContext) -> None:
    with work.runs.stage("maintain_tables") as run:
        run.outputs = maintain_tables(work.tables, work.config)


def _train_return_propensity(work: RunContext) -> None:
    from return_propensity.training import train_return_propensity  # the example in examples/

    train_return_propensity(work)


JOBS: dict[str, Callable[..., object]] = {
    "build_activity_tiles": data_stages.build_activity_tiles,
    "train_item_vectors": _train_item_vectors,
    "build_user_features": _build_user_features,
    "train_autoencoder": space_stages.train_unless_trained,
    "embed_users": _embed_users,
    "monitor_drift": _monitor_drift,
    "publish_snapshot": _publish_snapshot,
    "maintain_tables": _maintain_tables,
    "train_return_propensity": _train_return_propensity,
}


def run_job(work: RunContext, name: str, *, retrain: bool = False) -> None:
    """Run a job of ``JOBS``. With ``retrain``, which some take, it also covers the dates that a training needs next.

    Raises
    ------
    AlreadyRunningError
        If another process runs the same job on these tables.
    """
    with work.lease(name):
        JOBS[name](work, **({"retrain": True} if retrain else {}))


def stop_on_signals(received: list[int]) -> Callable[[], bool]:
    """Add SIGTERM and SIGINT to ``received`` from now on; return a function that tells whether one has arrived."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    return lambda: bool(received)
