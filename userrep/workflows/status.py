"""``userrep status``: the state of the tables, from tiles and rejected rows to spaces, consumers and recent runs."""

from typing import Any

from userrep.config import Config
from userrep.erasure.request_states import ASKED
from userrep.errors import plural, shortened
from userrep.report.formats import size
from userrep.report.state import read_state
from userrep.spaces.verdicts import newest_verdicts
from userrep.store.tables import Tables


def status(tables: Tables, config: Config) -> dict[str, Any]:
    """Return the state of the tables, as ``userrep status --json`` prints it. Its cost is that of ``read_state``."""
    state = read_state(tables, config)
    days, tiles = sorted(state.ledger.days), [*state.ledger.days.values(), state.ledger.undated]
    in_use, last_runs = state.registry.spaces_in_use(), {row.stage: row for row in state.runs}
    return {
        "tiles": {
            "first_day": days[0] if days else None,
            "last_day": days[-1] if days else None,
            "num_days": len(days),
            "num_events": sum(day.num_events for day in tiles),
            "num_rejected": sum(state.rejected.values()),
        },
        "rejected": state.rejected,
        "bytes": {name: num for name, num in state.num_bytes.items() if num},
        "spaces": [
            vars(space)
            | {
                "snapshots": [vars(snapshot) for snapshot in state.snapshots[space.space_id][-5:]],
                "stale": state.stale.get(space.space_id, []),
                "in_use": in_use.get(space.space_id),
            }
            for space in state.registry.spaces
        ],
        "consumers": [vars(consumer) for consumer in state.registry.consumers],
        "verdicts": list({verdict.consumer: verdict for verdict in newest_verdicts(tables)}.values()),
        "erasures": [
            {name: row[name] for name in ("request_id", "state", "num_users", "requested_at", "due_at")}
            for row in state.requests
        ],
        "runs": [row.asDict() for row in sorted(last_runs.values(), key=lambda row: row.started_at)],
    }


def status_lines(state: dict[str, Any]) -> list[str]:
    """Format the state for the terminal."""
    tiles = state["tiles"]
    lines = ["tiles: none yet"]
    if tiles["num_days"]:
        lines = [
            f"tiles: {plural(tiles['num_days'], 'day')}, {tiles['first_day']} to {tiles['last_day']}, "
            f"{plural(tiles['num_events'], 'event')}, {plural(tiles['num_rejected'], 'row')} rejected"
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
        f"verdict of {verdict.consumer} on {verdict.new_space_id} next to {verdict.old_space_id}: {verdict}"
        for verdict in state["verdicts"]
    ]
    lines += [
        f"erasure request {erasure['request_id']} for {plural(erasure['num_users'], 'user')}: "
        + (
            f"older table versions still contain rows; run `userrep forget` after "
            f"{erasure['due_at']:%Y-%m-%d %H:%M} UTC to remove them"
            if erasure["due_at"]
            else "interrupted; run `userrep forget` again"
            + (" with its file of users" if erasure["state"] == ASKED else "")
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
        f"  snapshot {s['snapshot_id']}: {plural(s['num_users'], 'user')}, available at "
        f"{s['available_at']:%Y-%m-%d %H:%M} UTC"
        for s in space["snapshots"]
    ]
    if space["stale"]:
        dates = shortened(space["stale"])
        lines.append(f"  stale after changes in the log: {dates}; run `userrep backfill --stale` to rebuild them")
    return lines
