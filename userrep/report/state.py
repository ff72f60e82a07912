"""The state of a root, read once from its ledgers: what `userrep status` prints, and the basis of a report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from userrep.config import Config
from userrep.erasure.request_states import DONE, newest_requests
from userrep.spaces.registry import read_registry
from userrep.spaces.registry_state import Registry
from userrep.spaces.snapshots import Snapshot, list_snapshots
from userrep.spaces.stale import stale_dates
from userrep.store import schemas
from userrep.store.tables import Tables
from userrep.tiles.ledger import UNDATED, TileLedger, tile_ledger

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import Row


@dataclass(frozen=True)
class RootState:
    """Tiles, spaces, consumers, runs and storage of a root.

    ``rejected``: number of rejected rows by reason, most frequent first. ``snapshots``: the published ones by space.
    ``stale``: dates by space whose days of the log changed after publication. ``requests``: the newest state of each
    erasure request that is not done. ``runs``: the stages in ``job_runs``, ordered by start. ``successes``: the end of
    the last successful run of each command. ``num_bytes``: by table.
    """

    ledger: TileLedger
    rejected: Mapping[str, int]
    registry: Registry
    snapshots: Mapping[str, Sequence[Snapshot]]
    stale: Mapping[str, Sequence[date]]
    requests: Sequence[Row]
    runs: Sequence[Row]
    successes: Mapping[str, datetime]
    num_bytes: Mapping[str, int]


def begins_attempt(stage: str, command: str) -> bool:
    """Return whether a stage is the first or only one of a command, which schedulers repeat under its run id."""
    return stage in ("take_inventory", command)


def read_state(tables: Tables, config: Config) -> RootState:
    """Read the state of a root.

    Cost: a few ledger reads, one read of each table's log, and one count of the rejected rows. With ``root``, this
    needs no Spark.
    """
    ledger, registry = tile_ledger(tables), read_registry(tables)
    runs = sorted(tables.ledger(schemas.JOB_RUNS), key=lambda row: row.started_at)
    return RootState(
        ledger=ledger,
        rejected=_rejected_by_reason(tables, ledger),
        registry=registry,
        snapshots={space.space_id: list_snapshots(tables, space.space_id) for space in registry.spaces},
        stale=stale_dates(tables, config),
        requests=[row for row in newest_requests(tables) if row.state != DONE],
        runs=[row for row in runs if row.stage != schemas.COMMAND_END],
        successes=_successes(runs),
        num_bytes=_stored_bytes(tables),
    )


def _successes(runs: Iterable[Row]) -> dict[str, datetime]:
    """Return the end of the last successful run of each command, and of maintenance, which may be part of another."""
    ends: dict[str, datetime] = {}
    for row in runs:
        if row.stage == schemas.COMMAND_END or (row.stage == "maintain_tables" and row.outcome == "done"):
            command = json.loads(row.outputs).get("command", row.stage)
            ended_at = row.started_at + timedelta(seconds=row.seconds)
            ends[command] = max(ends.get(command, ended_at), ended_at)
    return ends


def _rejected_by_reason(tables: Tables, ledger: TileLedger) -> dict[str, int]:
    """Count the rejected rows of the newest revision of each day, and those without a readable time, by reason."""
    entries = [*ledger.days.items(), (None, ledger.undated)]
    revisions = {day: tiles.revision for day, tiles in entries if tiles.num_rejected}
    counts: Counter[str] = Counter()
    if revisions:
        stored = tables.counts(schemas.REJECTED_EVENTS, ("reason", "event_date", "revision"))
        for (reason, day, revision), num in stored.items():
            if revision in (revisions.get(day), revisions.get(None) if reason in UNDATED else None):
                counts[reason] += num
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _stored_bytes(tables: Tables) -> dict[str, int]:
    """Return the size of each existing table in bytes, the largest first. Cost: a look at each table's log."""
    stored, prefix = tables.stored(), schemas.USER_FEATURES
    features = [schemas.user_features(name.removeprefix(prefix), "") for name in stored if name.startswith(prefix)]
    own = [table for table in schemas.ALL if table.name in stored]
    bytes_by_table = {table.name: tables.num_bytes(table) for table in (*own, *features)}
    return dict(sorted(bytes_by_table.items(), key=lambda item: -item[1]))
