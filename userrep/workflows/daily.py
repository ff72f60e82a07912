"""What runs every night, and what puts history right: the daily refresh, backfills, and the list of stale dates."""

import time
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from userrep.errors import GateRefusedError, UsageError
from userrep.features.sums.openings import openings
from userrep.monitoring.drift import newest_measurable
from userrep.spaces.registry import Space
from userrep.spaces.retention import expire_snapshots
from userrep.spaces.snapshots import STAGED
from userrep.spaces.stale import stale_dates
from userrep.workflows.pipeline import Pipeline
from userrep.workflows.stream import open_days

_STAGES = (
    "take_inventory", "build_activity_tiles", "train_item_vectors", "refresh_user_features", "embed_users",
    "monitor_drift", "publish_snapshot",
)  # fmt: skip
DATES_PER_GROUP = 8  # of a backfill: what a killed one loses at most, and what shares one pass over the tiles


def daily(work: Pipeline, *, on_time: bool) -> list[Space]:
    """Bring the snapshots of the as-of date about, of all spaces in use: tiles, features, drift, gates; no training.

    Of the log only new and changed days are aggregated; the window sums move on by the days that enter and leave and
    by what has changed. The features are made once; each space encodes them. Published dates that late data has made
    stale are named, not rebuilt: that is ``backfill``'s. Where the configuration has a stream, or one has run, the
    openings of the next days are made for it. ``on_time``: stamp the snapshots as if they had been made on
    time, for replays of the past. Returns the spaces, the one that serves first.

    Raises
    ------
    UsageError
        If there is no space yet.
    GateRefusedError
        If a snapshot does not pass; those of the other spaces are published, and the one before goes on serving.
    AlreadyRunningError
        If another night is at work on these tables.
    """
    with work.held("daily"):
        return _daily(work, on_time=on_time)


def _daily(work: Pipeline, *, on_time: bool) -> list[Space]:
    work.runs.expect(_STAGES)
    spaces, as_of = refreshed_spaces(work), work.schedule.as_of
    work.build_activity_tiles()
    work.train_item_vectors([as_of])
    work.refresh_user_features()
    refused = []
    for space in spaces:
        try:
            work.embed_users(space, [as_of])
            if newest_measurable(work.tables, space, as_of).state == STAGED:
                work.monitor_drift(space, as_of)
            work.publish_snapshots(space, [as_of], on_time=on_time)
        except GateRefusedError as error:
            refused.append(str(error))
    lineage_id = work.schedule.lineage_id
    if work.config.stream is not None or openings(work.tables, lineage_id):
        open_days(work, as_of, work.schedule.versions)
    found = stale_dates(work.tables, work.config)
    for space in spaces:
        stale = [day for day in found.get(space.space_id, []) if day != as_of]
        if stale:
            work.report(
                f"stale: {_listed(stale)} of space {space.space_id} were published before days of the log changed; "
                "`userrep backfill --stale` rebuilds them"
            )
        needed = work.schedule.snapshot_dates(space)
        expire_snapshots(work.tables, space, work.config.snapshots, today=as_of, needed=needed, report=work.report)
    if refused:
        raise GateRefusedError("\n".join(refused))
    return spaces


def refreshed_spaces(work: Pipeline) -> list[Space]:
    """Return the spaces in use that this configuration can refresh; those of other item vectors are named.

    Where none in use is of this configuration: the space that jobs after training work on. Raises UsageError if there
    is none either.
    """
    registry, lineage_id, spaces = work.schedule.registry, work.schedule.lineage_id, []
    for space_id, why in registry.spaces_in_use().items():
        space = registry.space(space_id)
        if space.lineage_id == lineage_id:
            spaces.append(space)
        else:
            work.report(
                f"space {space_id} ({why}) is not refreshed: its item vectors are {space.lineage_id}, those of this "
                f"configuration {lineage_id}; run daily with the configuration that it was trained with, too"
            )
    return spaces or [work.schedule.space_to_use()]


def backfill(work: Pipeline, dates: Sequence[date]) -> None:
    """Build and publish snapshots of many dates as if they had been built on time; what is up to date is skipped.

    Groups of dates share one pass over the tiles of all their windows; each group is published before the next is
    begun, so that a killed backfill goes on where it was. A published date that is rebuilt gets a new revision, by
    the clock. Raises AlreadyRunningError if another backfill is at work on these tables.
    """
    with work.held("backfill"):
        for day in (dates[0], dates[-1]):
            work.schedule.inventory.check_as_of(day)
        space = work.schedule.space_to_use()
        work.build_activity_tiles()
        _publish_dates(work, space, dates)


def _publish_dates(work: Pipeline, space: Space, dates: Sequence[date]) -> None:
    work.train_item_vectors(list(dates))
    started, done = time.monotonic(), 0
    for group in _groups(dates):
        work.build_user_features(group)
        work.embed_users(space, group)
        work.publish_snapshots(space, group)
        done += len(group)
        left = (time.monotonic() - started) / done * (len(dates) - done)
        work.report(f"{done} of {len(dates)} as-of dates" + (f", about {left / 60:.0f} min left" if left >= 30 else ""))


def backfill_stale(work: Pipeline) -> None:
    """Rebuild the published dates of the spaces in use that late data has made stale; nothing else is touched.

    Raises AlreadyRunningError if another backfill is at work on these tables.
    """
    with work.held("backfill"):
        _backfill_stale(work)


def _backfill_stale(work: Pipeline) -> None:
    spaces = refreshed_spaces(work)
    work.build_activity_tiles()
    found = stale_dates(work.tables, work.config)
    for space in spaces:
        stale = found.get(space.space_id, [])
        if not stale:
            work.report(f"no published date of space {space.space_id} is stale")
            continue
        work.report(f"stale: {_listed(stale)} of space {space.space_id}")
        _publish_dates(work, space, stale)


def dates_between(first: date, last: date, every_days: int) -> list[date]:
    """Return ``first``, and every so many days on, up to ``last``. Raises UsageError if there is no date."""
    if every_days < 1:
        raise UsageError(f"--every {every_days}: a number of days, 1 or more.")
    if first > last:
        raise UsageError(f"--from {first} lies after --to {last}: no date in between.")
    return [first + timedelta(days=k) for k in range(0, (last - first).days + 1, every_days)]


def _groups(dates: Sequence[date]) -> Iterator[list[date]]:
    for start in range(0, len(dates), DATES_PER_GROUP):
        yield list(dates[start : start + DATES_PER_GROUP])


def _listed(dates: Sequence[date]) -> str:
    shown = ", ".join(str(day) for day in dates[:5])
    return shown + (f" and {len(dates) - 5} more dates" if len(dates) > 5 else "")
