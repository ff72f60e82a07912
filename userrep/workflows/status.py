"""``userrep status``: the state of the tables, from tiles and rejected rows to spaces, consumers and recent runs."""

from collections import Counter
from datetime import date
from typing import Any

from userrep.config import Config
from userrep.erasure.requests import DONE, newest_requests
from userrep.operations.maintenance import stored_bytes
from userrep.report.formats import size
from userrep.sources.read import UNDATED
from userrep.spaces.registry import read_registry
from userrep.spaces.snapshots import list_snapshots
from userrep.spaces.stale import stale_dates
from userrep.store import schemas
from userrep.store.tables import Tables
from userrep.tiles.ledger import tile_ledger


def status(tables: Tables, config: Config) -> dict[str, Any]:
    """Return the state of the tables, as ``userrep status --json`` prints it.

    Cost: a few ledger reads, one read of each table's log, and one count of the rejected rows. With ``root``, this
    needs no Spark.
    """
    ledger = tile_ledger(tables)
    days = sorted(ledger.days)
    tiles_by_day = [*ledger.days.items(), (None, ledger.undated)]  # None: rows without a readable time
    rejected = _rejected_by_reason(tables, {day: tiles.revision for day, tiles in tiles_by_day if tiles.num_rejected})
    by_stage = {row.stage: row for row in sorted(tables.ledger(schemas.JOB_RUNS), key=lambda row: row.started_at)}
    stale, registry = stale_dates(tables, config), read_registry(tables)
    spaces_in_use = registry.spaces_in_use()
    return {
        "tiles": {
            "first_day": days[0] if days else None,
            "last_day": days[-1] if days else None,
            "num_days": len(days),
            "num_events": sum(tiles.num_events for _, tiles in tiles_by_day),
            "num_rejected": sum(tiles.num_rejected for _, tiles in tiles_by_day),
        },
        "rejected": rejected,
        "bytes": {name: num for name, num in stored_bytes(tables).items() if num},
        "spaces": [
            vars(space)
            | {
                "snapshots": [vars(s) for s in list_snapshots(tables, space.space_id)][-5:],
                "stale": stale.get(space.space_id, []),
                "in_use": spaces_in_use.get(space.space_id),
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
    """Count the rejected rows of the newest revisions by reason, most frequent first.

    ``revisions``: the revision of each day with rejected rows; key None: of rows without a readable time.
    """
    counts: Counter[str] = Counter()
    if revisions:
        stored = tables.counts(schemas.REJECTED_EVENTS, ("reason", "event_date", "revision"))
        for (reason, day, revision), num in stored.items():
            if revisions.get(None if reason in UNDATED else day) == revision:
                counts[reason] += num
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def status_lines(state: dict[str, Any]) -> list[str]:
    """Format the state for the terminal."""
    tiles = state["tiles"]
    lines = ["tiles: none yet"]
    if tiles["num_days"]:
        lines = [
            f"tiles: {tiles['num_days']} days, {tiles['first_day']} to {tiles['last_day']}, "
            f"{tiles['num_events']:,} events, {tiles['num_rejected']:,} rows rejected"
        ]
    lines += [f"  rejected, {reason}: {count:,}" for reason, count in state["rejected"].items()]
    if state["bytes"]:
        largest = ", ".join(f"{name} {size(num)}" for name, num in list(state["bytes"].items())[:4])
        lines.append(f"stored: {size(sum(state['bytes'].values()))}, most of it in {largest}")
    lines += [] if state["spaces"] else ["spaces: none yet"]
    lines += [line for space in state["spaces"] for line in _space_lines(space)]
    lines += [
        f"consumer {c['name']} of {c['owner']}: uses {c['pinned_space_id'] or 'the serving space'}, "
        f"ready for {c['ready_for'] or 'none'}"
        for c in state["consumers"]
    ]
    lines += [
        f"erasure request {erasure['request_id']} for {erasure['num_users']:,} users: "
        + (
            f"older table versions still contain rows; run `userrep forget` after "
            f"{erasure['due_at']:%Y-%m-%d %H:%M} UTC to remove them"
            if erasure["due_at"]
            else "interrupted; run `userrep forget` again"
        )
        for erasure in state["erasures"]
    ]
    lines += [
        f"last {run['stage']}: {run['outcome']} at {run['started_at']:%Y-%m-%d %H:%M} UTC in {run['seconds']:.0f} s"
        + (f" ({run['reason']})" if run["reason"] else "")
        for run in state["runs"]
    ]
    return lines


def _space_lines(space: dict[str, Any]) -> list[str]:
    daily = f"; embedded daily: {space['in_use']}" if space["in_use"] else ""
    lines = [f"space {space['space_id']}: {space['state']}, trained on data until {space['trained_until']}{daily}"]
    lines += [
        f"  snapshot {s['snapshot_id']}: {s['num_users']:,} users, available at {s['available_at']:%Y-%m-%d %H:%M} UTC"
        for s in space["snapshots"]
    ]
    if space["stale"]:
        dates = ", ".join(str(day) for day in space["stale"][:10])
        more = f" and {len(space['stale']) - 10} more" if len(space["stale"]) > 10 else ""
        lines.append(f"  stale after changes in the log: {dates}{more}; run `userrep backfill --stale` to rebuild them")
    return lines
