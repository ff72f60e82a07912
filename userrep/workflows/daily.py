"""The daily run and backfills: publish snapshots of the next date, of past dates and of stale dates."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date

from userrep.errors import AlreadyRunningError, GateRefusedError, explain, plural, shortened
from userrep.spaces.registry import CANDIDATE, Space
from userrep.spaces.retention import expire_snapshots, kept_dates
from userrep.spaces.snapshots import PUBLISHED, STAGED, list_snapshots, newest_snapshot
from userrep.spaces.stale import stale_dates
from userrep.workflows import data_stages, space_stages
from userrep.workflows.run_context import RunContext
from userrep.workflows.run_plan import DATES_PER_GROUP
from userrep.workflows.stream import build_stream_bases, newest_published

logger = logging.getLogger(__name__)

_STAGES = (
    "take_inventory", "build_activity_tiles", "train_item_vectors", "refresh_user_features", "embed_users",
    "monitor_drift", "publish_snapshot",
)  # fmt: skip


def daily(work: RunContext, *, on_time: bool) -> list[Space]:
    """Publish the snapshots of the as-of date for all spaces in use, without training.

    Only new and changed days of the log are aggregated. The window sums are updated by the days that enter and leave
    the windows and by changed days. Features are built once and encoded by each space. Published dates that late data
    has made stale are reported, not rebuilt; ``backfill_stale`` rebuilds them. If the configuration has a stream, or
    one has run before, the stream bases of the next dates are built. ``on_time``: stamp the snapshots as if this run
    had been on time, to replay the past. Returns the spaces, the serving one first.

    Raises
    ------
    UsageError
        If there is no space yet.
    GateRefusedError
        If a gate refuses a snapshot. Snapshots of the other spaces are published; earlier snapshots stay in use.
    AlreadyRunningError
        If another daily run is active on these tables.
    Exception
        Of a space that could not be embedded, or of the stream bases, once everything else is done.
    """
    with work.lease("daily"):
        return _daily(work, on_time=on_time)


def _daily(work: RunContext, *, on_time: bool) -> list[Space]:
    work.runs.expected = _STAGES
    spaces, as_of = work.schedule.spaces_to_refresh, work.schedule.as_of
    work.predict(lambda plan: plan.daily())
    data_stages.build_activity_tiles(work)
    data_stages.train_item_vectors(work, [as_of])
    data_stages.refresh_user_features(work)
    refusals: list[str] = []
    failures: list[Exception] = []
    for space in spaces:
        with _collected(failures, f"space {space.space_id}"):
            try:
                space_stages.embed_users(work, space, [as_of])
                newest = newest_snapshot(work.tables, space.space_id, as_of, states=(STAGED, PUBLISHED))
                if newest.state == STAGED:
                    space_stages.monitor_drift(work, space, as_of)
                space_stages.publish_snapshots(work, space, [as_of], on_time=on_time)
            except GateRefusedError as error:
                refusals.append(str(error))
    with _collected(failures, "stream bases"):
        _refresh_stream_bases(work, as_of)
    stale_by_space = stale_dates(work.tables, work.config, work.tiles)
    for space in spaces:
        stale = [day for day in stale_by_space.get(space.space_id, []) if day != as_of]
        if stale:
            logger.warning(
                f"stale: snapshots of space {space.space_id} for {shortened(stale)} were published before the log "
                "changed; run `userrep backfill --stale` to rebuild them"
            )
        needed = work.schedule.snapshot_dates(space)
        expire_snapshots(work.tables, space, work.config.snapshots, today=as_of, needed=needed)
    used = {space.space_id for space in spaces}
    for space in work.schedule.registry.spaces:
        # A candidate may be waiting for its first snapshots.
        if space.space_id not in used and space.lineage_id == work.schedule.lineage_id and space.state != CANDIDATE:
            expire_snapshots(work.tables, space, work.config.snapshots, today=as_of, needed=())
    if failures:
        for refusal in refusals:
            logger.error(refusal)
        raise failures[0]
    _check_refusals(refusals)
    return spaces


@contextmanager
def _collected(failures: list[Exception], what: str) -> Iterator[None]:
    """Add an error of the block, such as a lost artifact, to ``failures``: other parts of the run do not depend on it.

    The first one is to be raised, so later ones are logged. That another run has taken over the lease is raised.
    """
    try:
        yield
    except AlreadyRunningError:
        raise
    except Exception as error:
        if failures:
            logger.error(f"{what}: {' '.join(explain(error)[1])}")
        failures.append(error)


def backfill(work: RunContext, dates: Sequence[date]) -> None:
    """Build and publish snapshots of many dates as if they had been built on time. Dates up to date are skipped.

    The dates of a group share one pass over the tiles. Each group is published before the next one starts, so a
    killed backfill continues where it stopped. A published date that is rebuilt gets a new revision, available from
    the time of this run.

    Raises
    ------
    AlreadyRunningError
        If another backfill is active on these tables.
    """
    with work.lease("backfill"):
        for day in (dates[0], dates[-1]):
            work.schedule.inventory.check_as_of(day)
        space = work.schedule.space_to_use()
        _warn_of_expiry(work, space, dates)
        work.predict(lambda plan: plan.backfill(dates))
        data_stages.build_activity_tiles(work)
        _check_refusals(_publish_dates(work, [(space, dates)]))


def _warn_of_expiry(work: RunContext, space: Space, dates: Sequence[date]) -> None:
    """Warn of dates that the next daily run removes, because they are older than the configuration keeps them."""
    published = {*dates, *(snapshot.as_of for snapshot in list_snapshots(work.tables, space.space_id))}
    settings, needed = work.config.snapshots, work.schedule.snapshot_dates(space)
    kept = kept_dates(published, settings, today=max(published), needed=needed)
    if num_removed := len({*dates} - kept):
        logger.warning(
            f"backfill: the next daily run removes {num_removed} of these dates, because snapshots.keep_daily is "
            f"{settings.keep_daily.days}d and snapshots.keep_weekly {settings.keep_weekly.days}d. Raise these settings "
            "to keep them."
        )


def _publish_dates(work: RunContext, dates_by_space: Iterable[tuple[Space, Sequence[date]]]) -> list[str]:
    """Build and publish snapshots of dates in groups; return the refusals, which do not stop later groups."""
    refusals = []
    for space, dates in dates_by_space:
        data_stages.train_item_vectors(work, dates)
        started = time.monotonic()
        for start in range(0, len(dates), DATES_PER_GROUP):
            group = dates[start : start + DATES_PER_GROUP]
            data_stages.build_user_features(work, group)
            space_stages.embed_users(work, space, group)
            try:
                space_stages.publish_snapshots(work, space, group)
            except GateRefusedError as error:
                refusals.append(str(error))
            done = start + len(group)
            left = (time.monotonic() - started) / done * (len(dates) - done)
            remaining = f", about {left / 60:.0f} min left" if left >= 30 else ""
            logger.info(f"{done} of {plural(len(dates), 'as-of date')}{remaining}")
    return refusals


def _check_refusals(refusals: Sequence[str]) -> None:
    if refusals:
        raise GateRefusedError("\n".join(refusals))


def backfill_stale(work: RunContext) -> None:
    """Rebuild only the published dates of the spaces in use that late data has made stale.

    Raises
    ------
    AlreadyRunningError
        If another backfill is active on these tables.
    """
    with work.lease("backfill"):
        spaces = work.schedule.spaces_to_refresh
        work.predict(lambda plan: plan.backfill())
        data_stages.build_activity_tiles(work)
        stale_by_space = stale_dates(work.tables, work.config, work.tiles)
        for space in spaces:
            stale = stale_by_space.get(space.space_id)
            which = f"stale: snapshots of space {space.space_id} for {shortened(stale)}" if stale else ""
            logger.info(which or f"space {space.space_id} has no stale snapshot")
        refusals = _publish_dates(work, [(s, stale) for s in spaces if (stale := stale_by_space.get(s.space_id))])
        if any(stale_by_space.values()):
            _refresh_stream_bases(work, newest_published(work))
        _check_refusals(refusals)


def _refresh_stream_bases(work: RunContext, as_of: date) -> None:
    """Build the stream bases of the dates after an as-of date, if a stream is configured or has run."""
    if work.schedule.has_stream:
        build_stream_bases(work, as_of, work.schedule.versions)
