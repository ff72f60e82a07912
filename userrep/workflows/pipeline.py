"""The batch pipeline: its stages, in order.

Each stage compares its outputs with its inputs, builds what is missing or stale, and records itself in ``job_runs``.
A pipeline that is killed at any point and run again ends with the same tables as an uninterrupted one.
"""

from userrep.spaces.create import check_training
from userrep.spaces.registry import Space, find_space
from userrep.workflows.data_stages import build_activity_tiles, build_user_features, train_item_vectors
from userrep.workflows.run_context import RunContext
from userrep.workflows.space_stages import (
    embed_users,
    promote_first,
    publish_staged,
    skip_training,
    train_autoencoder,
)

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
        work.runs.expect([stage for stage in _STAGES if has_check or stage != "check_quality"])
        schedule = work.schedule
        dates = schedule.feature_dates(retrain=retrain)
        if retrain or schedule.usable_space is None:
            check_training(work.tables, work.config, work.report)
        build_activity_tiles(work)
        train_item_vectors(work, dates)
        build_user_features(work, dates, leave_sums=True)
        space = schedule.unfinished_candidate() if retrain else schedule.usable_space
        space = train_autoencoder(work) if space is None else skip_training(work, space)
        embed_users(work, space, schedule.snapshot_dates(space))
        publish_staged(work, space, schedule.snapshot_dates(space))
        promote_first(work, space)
        return find_space(work.tables, None)
