"""Which snapshots are kept, and the deletion of others: first in the ledger, so that nobody reads half of one."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import date

from userrep import config
from userrep.spaces.registry import RETIRED, Space
from userrep.spaces.snapshots import EXPIRED, PUBLISHED, Snapshot, list_snapshots, record_snapshots
from userrep.store.schemas import TRAINING_SETS, USER_EMBEDDINGS
from userrep.store.tables import Tables


def expire_snapshots(
    tables: Tables,
    space: Space,
    settings: config.Snapshots,
    *,
    today: date,
    needed: Collection[date],
    report: Callable[[str], None],
) -> None:
    """Delete a space's published snapshots that need not be kept; see ``snapshots_to_expire``.

    One commit marks them expired in the ledger: joins don't read them any more, and say so of labels that resolve to
    them. Then their rows go, in one commit. Killed in between and run again it ends the same. Who has begun to read
    still finds the rows: files go by VACUUM.
    """
    ledger = list_snapshots(tables, space.space_id, states=(PUBLISHED, EXPIRED))
    pinned = {name for row in tables.ledger(TRAINING_SETS, space_id=space.space_id) for name in row.snapshot_ids}
    published = [snapshot for snapshot in ledger if snapshot.state == PUBLISHED]
    expired = snapshots_to_expire(
        published, settings, today=today, needed=needed, pinned=pinned, keep_newest=space.state != RETIRED
    )
    if expired:
        record_snapshots(tables, [replace(snapshot, state=EXPIRED) for snapshot in expired])
        report(
            f"snapshots of space {space.space_id} expired: {len(expired)}, {expired[0].as_of} to {expired[-1].as_of}; "
            f"{len(published) - len(expired)} are kept"
        )
    gone = [snapshot for snapshot in ledger if snapshot.state == EXPIRED] + expired
    tables.drop_partitions(USER_EMBEDDINGS, [snapshot.key for snapshot in gone])


def snapshots_to_expire(
    published: Sequence[Snapshot],
    settings: config.Snapshots,
    *,
    today: date,
    needed: Collection[date] = (),
    pinned: Collection[str] = (),
    keep_newest: bool = True,
) -> list[Snapshot]:
    """Return the snapshots of one space that need not be kept on the as-of date ``today``, by date and revision.

    Kept are all revisions of: the dates of the last ``keep_daily``; of each week (Monday to Sunday) of the last
    ``keep_weekly`` its first date that there is; the dates of ``needed``. Kept too: what training sets have ``pinned``,
    by id; and the newest snapshot, with ``keep_newest``. The last days are those after ``today`` less the time.
    """
    ordered = sorted(published, key=lambda s: (s.as_of, s.revision))
    dates = {snapshot.as_of for snapshot in ordered}
    first_of_week: dict[tuple[int, int], date] = {}
    for day in sorted(dates):
        first_of_week.setdefault(day.isocalendar()[:2], day)
    kept = {day for day in dates if day > today - settings.keep_daily} | set(needed)
    kept |= {day for day in first_of_week.values() if day > today - settings.keep_weekly}
    newest = ordered[-1:] if keep_newest else []
    return [s for s in ordered if s.as_of not in kept and s.snapshot_id not in pinned and s not in newest]
