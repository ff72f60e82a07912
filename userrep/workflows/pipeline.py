"""The batch pipeline: its stages, in order.

Each stage compares its outputs with its inputs, builds what is missing or stale, and records itself in ``job_runs``.
A pipeline that is killed at any point and run again ends with the same tables as an uninterrupted one.
"""

from userrep.spaces.create import check_training
from userrep.spaces.registry import Space, find_space
from userrep.workflows import data_stages, space_stages
from userrep.workflows.run_context import RunContext

_STAGES = (
    "take_inventory", "build_activity_tiles", "train_item_vectors", "build_user_features", "check_quality",
    "train_autoencoder", "embed_users", "publish_snapshot", "promote",
)  # fmt: skip


def run_pipeline(work: RunContext, *, retrain: bool = False) -> Space:
    """Run all stages; return the serving space. A space is trained if none is usable, or with ``retrain``.

    Raises
    ------
    AlreadyRunningError
        If another pipeline is active on these tables.
    """
    with work.lease("pipeline"):
        has_check = work.config.quality.self_check
        work.runs.expected = [stage for stage in _STAGES if has_check or stage != "check_quality"]
        schedule = work.schedule
        space = schedule.space_of_pipeline(retrain=retrain)
        dates = schedule.feature_dates(space)
        if space is None:
            check_training(work.tables, work.config, work.schedule.until)
        work.predict(lambda plan: plan.pipeline(retrain=retrain))
        data_stages.build_activity_tiles(work)
        data_stages.train_item_vectors(work, dates)
        data_stages.build_user_features(
            work,
            dates,
            sampled=schedule.sampled_dates(space),
            leave_sums=True,
        )
        space = space_stages.train_autoencoder(work) if space is None else space_stages.skip_training(work, space)
        space_stages.embed_users(work, space, schedule.snapshot_dates(space))
        space_stages.publish_snapshots(work, space, schedule.snapshot_dates(space))
        space_stages.promote_first(work, space)
        return find_space(work.tables, None)
