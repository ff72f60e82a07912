"""The jobs by name, as ``userrep run JOB`` and the entry points in jobs/ run them."""

import signal
from collections.abc import Callable

from userrep.operations.maintenance import maintain_tables
from userrep.spaces.registry import Space
from userrep.spaces.snapshots import STAGED, list_snapshots
from userrep.workflows import data_stages, space_stages
from userrep.workflows.run_context import RunContext


def run_job(work: RunContext, name: str, *, retrain: bool = False) -> None:
    """Run a job. With ``retrain``, item vectors and features are also built for the dates that a training needs next.

    Raises
    ------
    AlreadyRunningError
        If another process runs the same job on these tables.
    """
    with work.lease(name):
        match name:
            case "build_activity_tiles":
                data_stages.build_activity_tiles(work)
            case "train_item_vectors":
                space = None if retrain else work.schedule.usable_space
                data_stages.train_item_vectors(work, work.schedule.feature_dates(space))
            case "build_user_features":
                schedule = work.schedule
                space = None if retrain else schedule.usable_space
                dates, sampled = schedule.feature_dates(space), schedule.sampled_dates(space)
                data_stages.build_user_features(work, dates, sampled=sampled, force=[schedule.as_of])
            case "train_autoencoder":
                space_stages.train_unless_trained(work)
            case "embed_users":
                space = _job_space(work)
                space_stages.embed_users(work, space, work.schedule.snapshot_dates(space))
            case "monitor_drift":
                space_stages.monitor_drift(work, _drifting_space(work), work.schedule.as_of)
            case "publish_snapshot":
                space = _job_space(work)
                space_stages.publish_snapshots(work, space, work.schedule.snapshot_dates(space))
                space_stages.promote_first(work, space)
            case "maintain_tables":
                with work.runs.stage("maintain_tables") as run:
                    run.outputs = maintain_tables(work.tables, work.config)
            case "train_return_propensity":
                from return_propensity.training import train_return_propensity  # the example in examples/

                train_return_propensity(work)
            case _:
                raise KeyError(name)


def _job_space(work: RunContext) -> Space:
    """Return the space a job works on: a candidate that is not ready yet if there is one, else the space to use."""
    return work.schedule.unfinished_candidate() or work.schedule.space_to_use()


def _drifting_space(work: RunContext) -> Space:
    """Return the candidate if ``embed_users`` has staged the as-of date for it, else the space to use."""
    candidate, as_of = work.schedule.unfinished_candidate(), work.schedule.as_of
    staged = list_snapshots(work.tables, candidate.space_id, states=(STAGED,)) if candidate else []
    is_staged = any(snapshot.as_of == as_of for snapshot in staged)
    return candidate if candidate and is_staged else work.schedule.space_to_use()


def stop_on_signals(received: list[int]) -> Callable[[], bool]:
    """Add SIGTERM and SIGINT to ``received`` from now on; return a function that returns whether one has arrived."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    return lambda: bool(received)
