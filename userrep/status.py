"""What there is: spaces, snapshots, days of tiles, rejected rows, last runs."""

from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep import schemas
from userrep.config import Config
from userrep.daily import stale_dates
from userrep.spaces.registry import list_spaces
from userrep.spaces.snapshots import list_snapshots
from userrep.tables import Tables

UNDATED = ("unparsable_row", "unreadable_event_at", "implausible_event_at")


def status(tables: Tables, config: Config) -> dict[str, Any]:
    """Gather the state of the tables. Cost: a few reads of ledgers, and one count of the rejected rows that count."""
    latest = tables.read(schemas.TILE_DAYS).groupBy("event_date").agg(F.max_by(F.struct("*"), "revision").alias("d"))
    days = latest.select("d.*")
    tiles = days.agg(
        F.min("event_date").alias("first_day"),
        F.max("event_date").alias("last_day"),
        F.count("event_date").alias("num_days"),
        F.sum("num_events").alias("num_events"),
        F.sum("num_rejected").alias("num_rejected"),
    ).first()
    assert tiles is not None
    reasons = _rejected_that_count(tables, days).groupBy("reason").count().orderBy(F.desc("count"), "reason").collect()
    runs = tables.read(schemas.JOB_RUNS).groupBy("stage").agg(F.max_by(F.struct("*"), "started_at").alias("r"))
    rows = runs.select("r.*").orderBy("started_at").collect()
    stale = stale_dates(tables, config)
    return {
        "tiles": tiles.asDict(),
        "rejected": {row.reason: row["count"] for row in reasons},
        "spaces": [
            vars(space)
            | {
                "snapshots": [vars(s) for s in list_snapshots(tables, space.space_id)][-5:],
                "stale": stale.get(space.space_id, []),
            }
            for space in list_spaces(tables)
        ],
        "runs": [row.asDict() for row in rows],
    }


def _rejected_that_count(tables: Tables, days: DataFrame) -> DataFrame:
    """Leave out rejected rows of earlier revisions; rows without a readable time have revisions of their own."""
    rejected = tables.read(schemas.REJECTED_EVENTS)
    undated = F.col("reason").isin(*UNDATED)
    dated = rejected.where(~undated).join(days, on=["event_date", "revision"], how="left_semi")
    newest = F.broadcast(days.where("event_date IS NULL"))
    return dated.unionByName(rejected.where(undated).join(newest, on="revision", how="left_semi"))


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
    lines += [] if found["spaces"] else ["spaces: none yet"]
    for space in found["spaces"]:
        lines.append(f"space {space['space_id']}: {space['state']}, trained on data until {space['trained_until']}")
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
        f"last {run['stage']}: {run['outcome']} at {run['started_at']:%Y-%m-%d %H:%M} UTC in {run['seconds']:.0f} s"
        + (f" ({run['reason']})" if run["reason"] else "")
        for run in found["runs"]
    ]
    return lines
