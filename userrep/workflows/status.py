"""What there is: spaces, snapshots, days of tiles, rejected rows, last runs."""

from collections import Counter
from datetime import date
from typing import Any

from userrep.config import Config
from userrep.erasure.erasure import DONE, newest_requests
from userrep.operations.maintenance import stored_bytes
from userrep.report.formats import size
from userrep.sources.source import UNDATED
from userrep.spaces.registry import read_registry
from userrep.spaces.snapshots import list_snapshots
from userrep.spaces.stale import stale_dates
from userrep.store import schemas
from userrep.store.tables import Tables
from userrep.tiles.tiles import tile_ledger


def status(tables: Tables, config: Config) -> dict[str, Any]:
    """Gather the state of the tables.

    Cost: a few reads of ledgers, a look at each table's log, and one count of the rejected rows. Below a root, none of
    it needs Spark.
    """
    ledger = tile_ledger(tables)
    days = sorted(ledger.days)
    counted = [*ledger.days.items(), (None, ledger.undated)]
    rejected = _rejected_by_reason(tables, {day: of.revision for day, of in counted if of.num_rejected})
    by_stage = {row.stage: row for row in sorted(tables.ledger(schemas.JOB_RUNS), key=lambda row: row.started_at)}
    stale, registry = stale_dates(tables, config), read_registry(tables)
    used = registry.spaces_in_use()
    return {
        "tiles": {
            "first_day": days[0] if days else None,
            "last_day": days[-1] if days else None,
            "num_days": len(days),
            "num_events": sum(of.num_events for _, of in counted),
            "num_rejected": sum(of.num_rejected for _, of in counted),
        },
        "rejected": rejected,
        "bytes": {name: num for name, num in stored_bytes(tables).items() if num},
        "spaces": [
            vars(space)
            | {
                "snapshots": [vars(s) for s in list_snapshots(tables, space.space_id)][-5:],
                "stale": stale.get(space.space_id, []),
                "in_use": used.get(space.space_id),
            }
            for space in registry.spaces
        ],
        "consumers": [vars(consumer) for consumer in registry.consumers],
        "erasures": [
            {name: row[name] for name in ("request_id", "state", "num_users", "requested_at", "due_at")}
            for row in newest_requests(tables)
            if row.state != DONE
        ],
        "runs": [row.asDict() for row in sorted(by_stage.values(), key=lambda row: row.started_at)],
    }


def _rejected_by_reason(tables: Tables, revisions: dict[date | None, int]) -> dict[str, int]:
    """Count rejected rows of the newest revisions by reason, most frequent first.

    ``revisions``: of the days that have rejected rows; None: of rows without a readable time.
    """
    counts: Counter[str] = Counter()
    if revisions:
        stored = tables.counts(schemas.REJECTED_EVENTS, ("reason", "event_date", "revision"))
        for (reason, day, revision), num in stored.items():
            if revisions.get(None if reason in UNDATED else day) == revision:
                counts[reason] += num
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def status_lines(found: dict[str, Any]) -> list[str]:
    """Write the state for a person."""
    tiles = found["tiles"]
    lines = ["tiles: none yet"]
    if tiles["num_days"]:
        lines = [
            f"tiles: {tiles['num_days']} days, {tiles['first_day']} to {tiles['last_day']}, "
            f"{tiles['num_events']:,} events, {tiles['num_rejected']:,} rows rejected"
        ]
    lines += [f"  rejected, {reason}: {count:,}" for reason, count in found["rejected"].items()]
    if found["bytes"]:
        shown = ", ".join(f"{name} {size(num)}" for name, num in list(found["bytes"].items())[:4])
        lines.append(f"stored: {size(sum(found['bytes'].values()))}, most of it in {shown}")
    lines += [] if found["spaces"] else ["spaces: none yet"]
    for space in found["spaces"]:
        daily = f"; embedded daily: {space['in_use']}" if space["in_use"] else ""
        about = f"{space['state']}, trained on data until {space['trained_until']}"
        lines.append(f"space {space['space_id']}: {about}{daily}")
        lines += [
            f"  snapshot {s['snapshot_id']}: {s['num_users']:,} users, "
            f"available at {s['available_at']:%Y-%m-%d %H:%M} UTC"
            for s in space["snapshots"]
        ]
        if space["stale"]:
            shown = ", ".join(str(day) for day in space["stale"][:10])
            more = f" and {len(space['stale']) - 10} more" if len(space["stale"]) > 10 else ""
            lines.append(f"  stale, since days of the log changed: {shown}{more}; `userrep backfill --stale` rebuilds")
    lines += [
        f"consumer {c['name']} of {c['owner']}: uses {c['pinned_space_id'] or 'the space that serves'}, "
        f"ready for {c['ready_for'] or 'none'}"
        for c in found["consumers"]
    ]
    lines += [
        f"request {of['request_id']} to forget {of['num_users']:,} users: "
        + (
            f"older versions hold rows; `userrep forget` after {of['due_at']:%Y-%m-%d %H:%M} UTC removes them"
            if of["due_at"]
            else "cut off; run it again"
        )
        for of in found["erasures"]
    ]
    lines += [
        f"last {run['stage']}: {run['outcome']} at {run['started_at']:%Y-%m-%d %H:%M} UTC in {run['seconds']:.0f} s"
        + (f" ({run['reason']})" if run["reason"] else "")
        for run in found["runs"]
    ]
    return lines
