"""Retention of snapshots: choose those to delete, mark them expired in the ledger, then delete their rows."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from userrep import config
from userrep.errors import plural
from userrep.spaces.registry import RETIRED, Space
from userrep.spaces.snapshots import EXPIRED, PUBLISHED, Snapshot, list_snapshots
from userrep.store.schemas import SNAPSHOTS, TRAINING_SETS, USER_EMBEDDINGS
from userrep.store.sql import sql_key
from userrep.store.tables import Tables

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import Row

logger = logging.getLogger(__name__)


def expire_snapshots(
    tables: Tables, space: Space, settings: config.Snapshots, *, today: date, needed: Collection[date]
) -> None:
    """Delete a space's published snapshots that need not be kept; see ``snapshots_to_expire``.

    One commit marks them as expired in the ledger. From then on joins do not read them, and labels that resolve to them
    get the status ``expired``. A second commit deletes their rows. If the run is killed in between, the next run
    deletes the rows. Reads that have already started still find the rows, because files are only removed by VACUUM.

    If another run changes the ledger meanwhile, the snapshots are chosen again. Snapshots of a training set that is
    recorded meanwhile are published again (``_restore``), before any rows are deleted.
    """
    expired: list[Snapshot] = []

    def marked(rows: list[Row]) -> list[dict[str, Any]] | None:
        published = [Snapshot(**row.asDict()) for row in rows if row.state == PUBLISHED]
        expired[:] = snapshots_to_expire(
            published,
            settings,
            today=today,
            needed=needed,
            pinned=_pinned(tables, space),
            keep_newest=space.state != RETIRED,
        )
        return _in_state(EXPIRED, {snapshot.snapshot_id for snapshot in expired}, rows)

    key = {"space_id": space.space_id}
    tables.change(SNAPSHOTS, marked, replacing=sql_key(key), **key)
    pinned = _pinned(tables, space)
    _restore(tables, space, pinned)
    ledger = list_snapshots(tables, space.space_id, states=(PUBLISHED, EXPIRED))
    to_delete = [snapshot for snapshot in ledger if snapshot.state == EXPIRED and snapshot.snapshot_id not in pinned]
    if expired:
        logger.info(
            f"space {space.space_id}: {plural(len(expired), 'snapshot')} expired, {expired[0].as_of} to "
            f"{expired[-1].as_of}; {sum(snapshot.state == PUBLISHED for snapshot in ledger)} kept"
        )
    tables.drop_partitions(USER_EMBEDDINGS, [snapshot.key for snapshot in to_delete])


def _pinned(tables: Tables, space: Space) -> set[str]:
    """Return the ids of the snapshots of a space that training sets use."""
    return {name for row in tables.ledger(TRAINING_SETS, space_id=space.space_id) for name in row.snapshot_ids}


def _in_state(state: str, ids: Collection[str], rows: Sequence[Row]) -> list[dict[str, Any]] | None:
    """Return the rows of a ledger with another state of some snapshots; None if there are no such snapshots."""
    return [row.asDict() | ({"state": state} if row.snapshot_id in ids else {}) for row in rows] if ids else None


def _restore(tables: Tables, space: Space, pinned: Collection[str]) -> None:
    """Publish expired snapshots of training sets again, if their rows are not deleted yet.

    An expiry and the recording of a training set can overlap such that neither sees the other's commit before its own.
    A consumer may not write to the ledger of snapshots, so the expiry repairs it.
    """
    expired = list_snapshots(tables, space.space_id, states=(EXPIRED,))
    if not (names := {snapshot.snapshot_id for snapshot in expired} & {*pinned}):
        return
    stored = set(tables.partitions(USER_EMBEDDINGS))  # by space, date and revision

    def published(rows: list[Row]) -> list[dict[str, Any]] | None:
        kept = {r.snapshot_id for r in rows if r.snapshot_id in names and (r.space_id, r.as_of, r.revision) in stored}
        return _in_state(PUBLISHED, kept, rows)

    key = {"space_id": space.space_id}
    tables.change(SNAPSHOTS, published, replacing=sql_key(key), **key)


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

    All revisions of ``kept_dates`` are kept. Snapshots that training sets use (``pinned``, by id) are kept, and with
    ``keep_newest`` so is the newest snapshot.
    """
    ordered = sorted(published, key=lambda s: (s.as_of, s.revision))
    kept = kept_dates({snapshot.as_of for snapshot in ordered}, settings, today=today, needed=needed)
    newest = ordered[-1:] if keep_newest else []
    return [s for s in ordered if s.as_of not in kept and s.snapshot_id not in pinned and s not in newest]


def kept_dates(
    published: Collection[date], settings: config.Snapshots, *, today: date, needed: Collection[date] = ()
) -> set[date]:
    """Return the published as-of dates that are kept on the as-of date ``today``.

    These are dates after ``today - keep_daily``; the first published date of each week (Monday to Sunday), if it is
    after ``today - keep_weekly``; and the dates in ``needed``.
    """
    first_of_week = {day.isocalendar()[:2]: day for day in sorted(published, reverse=True)}  # the earliest is set last
    kept = {day for day in published if day > today - settings.keep_daily} | set(needed)
    return kept | {day for day in first_of_week.values() if day > today - settings.keep_weekly}
