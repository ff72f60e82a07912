"""Retention of snapshots: choose those to delete, mark them expired in the ledger, then delete their rows."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import date

from userrep import config
from userrep.errors import plural
from userrep.spaces.registry import RETIRED, Space
from userrep.spaces.snapshots import EXPIRED, PUBLISHED, Snapshot, list_snapshots, record_snapshots
from userrep.store.schemas import TRAINING_SETS, USER_EMBEDDINGS
from userrep.store.tables import Tables

logger = logging.getLogger(__name__)


def expire_snapshots(
    tables: Tables, space: Space, settings: config.Snapshots, *, today: date, needed: Collection[date]
) -> None:
    """Delete a space's published snapshots that need not be kept; see ``snapshots_to_expire``.

    One commit marks them as expired in the ledger. From then on joins do not read them, and labels that resolve to them
    get the status ``expired``. A second commit deletes their rows. If the run is killed in between, the next run
    deletes the rows. Reads that have already started still find the rows, because files are only removed by VACUUM.
    """
    ledger = list_snapshots(tables, space.space_id, states=(PUBLISHED, EXPIRED))
    pinned = {name for row in tables.ledger(TRAINING_SETS, space_id=space.space_id) for name in row.snapshot_ids}
    published = [snapshot for snapshot in ledger if snapshot.state == PUBLISHED]
    expired = snapshots_to_expire(
        published, settings, today=today, needed=needed, pinned=pinned, keep_newest=space.state != RETIRED
    )
    if expired:
        record_snapshots(tables, [replace(snapshot, state=EXPIRED) for snapshot in expired])
        logger.info(
            f"space {space.space_id}: {plural(len(expired), 'snapshot')} expired, {expired[0].as_of} to "
            f"{expired[-1].as_of}; {len(published) - len(expired)} kept"
        )
    to_delete = [snapshot for snapshot in ledger if snapshot.state == EXPIRED] + expired
    tables.drop_partitions(USER_EMBEDDINGS, [snapshot.key for snapshot in to_delete])


def snapshots_to_expire(
    published: Sequence[Snapshot],
    settings: config.Snapshots,
    *,
    today: date,
    needed: Collection[date] = (),
    pinned: Collection[str] = (),
    keep_newest: bool = True,
) -> list[Snapshot]:
    """Return the snapshots of one space that need not be kept on the as-of date ``today``, by as-of date and revision.

    All revisions of these as-of dates are kept: dates after ``today - keep_daily``; the first published date of each
    week (Monday to Sunday), if it is after ``today - keep_weekly``; and the dates in ``needed``. Snapshots that
    training sets use (``pinned``, by id) are kept, and with ``keep_newest`` so is the newest snapshot.
    """
    ordered = sorted(published, key=lambda s: (s.as_of, s.revision))
    dates = {snapshot.as_of for snapshot in ordered}
    first_of_week = {day.isocalendar()[:2]: day for day in sorted(dates, reverse=True)}  # the earliest is set last
    kept = {day for day in dates if day > today - settings.keep_daily} | set(needed)
    kept |= {day for day in first_of_week.values() if day > today - settings.keep_weekly}
    newest = ordered[-1:] if keep_newest else []
    return [s for s in ordered if s.as_of not in kept and s.snapshot_id not in pinned and s not in newest]
