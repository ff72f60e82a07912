"""What keeps tables quick and small, once a night or a week: small files joined, and old ones removed."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

from pyspark.sql import Row

from userrep.config import Config
from userrep.errors import UserrepError
from userrep.features.build import features_tables
from userrep.features.sums.openings import newest_openings
from userrep.features.sums.refresh import generations
from userrep.spaces.registry import read_registry
from userrep.spaces.snapshots import BEGUN, PUBLISHED, REFUSED, STAGED, list_snapshots
from userrep.store import schemas
from userrep.store.schemas import (
    EMBEDDING_UPDATES,
    FEATURE_SETS,
    REJECTED_EVENTS,
    SNAPSHOTS,
    USER_EMBEDDINGS,
    USER_FEATURES,
    USER_ITEM_DAYS,
    USER_OPENINGS,
    TableSchema,
)
from userrep.store.sql import sql_in
from userrep.store.storage import delete_partials
from userrep.store.tables import RETENTION, Keys, Tables
from userrep.tiles.tiles import STREAM_REVISION, latest_tile_days
from userrep.utc import utc_now

LEDGERS = (
    schemas.SOURCE_FILES, schemas.SOURCE_SCHEMAS, schemas.TILE_DAYS, schemas.ITEM_VECTOR_VERSIONS,
    schemas.SUM_GENERATIONS, schemas.OPENINGS, schemas.FEATURE_SETS, SNAPSHOTS, schemas.TRAINING_SETS,
    schemas.JOB_RUNS, schemas.CONSUMER_RESULTS, schemas.SPACE_METRICS, schemas.TOMBSTONES, schemas.ERASURES,
    schemas.EXPORTS, schemas.SNAPSHOT_DRIFT,
)  # fmt: skip
_NOT_EXPIRED = (BEGUN, STAGED, PUBLISHED, REFUSED)
_MANY = 16  # files of a ledger, or of a partition that a stream writes, from which on they are joined


def maintain_tables(tables: Tables, config: Config, *, report: Callable[[str], None]) -> dict[str, Any]:
    """Join small files, remove rows that nothing refers to any more, and files that no version of the last 7 days has.

    Ledgers get a file with each run, ``embedding_updates`` and the stream's rejected rows one with each micro-batch;
    the other tables are written in the layout that they are read in, and are left alone. Safe beside running jobs and
    streams: nothing is removed that was there in the last 7 days, pinned snapshots are rows of the newest version, and
    of ``user_openings`` the versions stay that streams read. A table that another run commits to at the same time is
    left for the next time. Cost: a listing of every table's folder; what is joined is read and written once, by tasks
    but for ledgers. Returns what was done, by table.
    """
    joined = {table.name: num for table in LEDGERS if (num := tables.compact(table, at_least=_MANY))}
    for table in (EMBEDDING_UPDATES, REJECTED_EVENTS):
        crowded = _crowded(tables, table)
        if crowded and tables.compact_partitions(table, crowded):
            joined[table.name] = len(crowded)
    report(f"maintain_tables: files joined of {len(joined)} tables")
    dropped, superseded = _drop_refused(tables), _drop_superseded_tiles(tables)
    features, updates = _drop_features(tables, config), _drop_updates(tables, config)
    pinned = sorted({row.table_version for row in newest_openings(tables).values()})
    for table in (*schemas.ALL, *features_tables(tables)):
        tables.vacuum(table, RETENTION, keep=pinned if table is USER_OPENINGS else ())
    orphans = delete_partials(f"{tables.artifacts_root}/artifacts", older_than=RETENTION)
    report(
        f"maintain_tables: old files removed; {dropped} refused snapshots, {superseded} superseded revisions of tiles, "
        f"{features} as-of dates of features, {updates} of streamed updates, {orphans} files of artifacts cut off"
    )
    return {
        "joined": joined,
        "refused_snapshots": dropped,
        "superseded_tiles": superseded,
        "features": features,
        "updates": updates,
        "orphans": orphans,
    }


def stored_bytes(tables: Tables) -> dict[str, int]:
    """Return how many bytes each table holds that is there, the largest first. Cost: a look at each table's log."""
    stored = set(tables.stored(""))
    all_tables = (*schemas.ALL, *features_tables(tables))
    found = {table.name: tables.num_bytes(table) for table in all_tables if table.name in stored}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _crowded(tables: Tables, table: TableSchema) -> list[dict[str, Any]]:
    """Return the partitions, of those that streams write to, that have many files."""
    found = tables.partitions(table).items()
    crowded = [dict(zip(table.partition_by, key, strict=True)) for key, held in found if held.num_files >= _MANY]
    if table is REJECTED_EVENTS:
        crowded = [values for values in crowded if values["revision"] == STREAM_REVISION]
    return crowded


def _drop_superseded_tiles(tables: Tables) -> int:
    """Drop revisions of tiles that were written more than 7 days ago and that nothing refers to; return how many.

    The newest revision of a day stays, and so do those that stored window sums and opening sums include: a correction
    subtracts them.
    """
    used = {(day, revision) for day, (_, revision) in latest_tile_days(tables).items()}
    lineages = {row.lineage_id for row in tables.ledger(schemas.SUM_GENERATIONS, ("lineage_id",))}
    sums = [kept.revision_by_day for lineage_id in lineages for kept in generations(tables, lineage_id)]
    for included in (*sums, *(row.revision_by_day for row in newest_openings(tables).values())):
        used |= set((included or {}).items())
    written_at: dict[tuple[date, int], list[datetime]] = defaultdict(list)
    for key, partition in tables.partitions(USER_ITEM_DAYS).items():
        values = dict(zip(USER_ITEM_DAYS.partition_by, key, strict=True))
        day = values["event_date"], values["revision"]
        if day not in used:
            written_at[day].append(partition.written_at)
    before = utc_now() - RETENTION
    old: Keys = [
        {"event_date": day, "revision": number} for (day, number), at in written_at.items() if max(at) < before
    ]
    try:
        tables.drop_partitions(USER_ITEM_DAYS, old)
    except UserrepError:  # another run writes tiles; the next maintenance drops them
        return 0
    return len(old)


def _drop_features(tables: Tables, config: Config) -> int:
    """Drop features of as-of dates that nothing refers to; return how many dates.

    Kept are the dates of snapshots that have not expired; those that a training at the newest date could take; and
    what was built in the last 7 days. First the ledger's rows go, then the features: a build sees none, or all.
    """
    training, registry, num = config.training.as_ofs, read_registry(tables), 0
    reach = timedelta(days=training.every_days * training.max_dates + 2 * max(config.future_days, default=0))
    for table in features_tables(tables):
        lineage_id = table.name.removeprefix(USER_FEATURES)
        rows = [row for row in tables.ledger(FEATURE_SETS, lineage_id=lineage_id) if row.begun_by is None]
        spaces = [space for space in registry.spaces if space.lineage_id == lineage_id]
        used = {of.as_of for space in spaces for of in list_snapshots(tables, space.space_id, states=_NOT_EXPIRED)}
        since = max((row.as_of for row in rows), default=date.min + reach) - reach
        old = [r for r in rows if r.as_of < since and r.as_of not in used and r.built_at < utc_now() - RETENTION]
        dates = [row.as_of for row in old]
        if old and tables.change(
            FEATURE_SETS,
            [],
            replacing=f"lineage_id = '{lineage_id}' AND {sql_in('as_of', dates)}",
            only_if=partial(_holds, old),
            lineage_id=lineage_id,
        ):
            tables.drop_partitions(table, [{"as_of": as_of} for as_of in dates])
            num += len(dates)
    return num


def _holds(rows: Sequence[Row], now: Sequence[Row]) -> bool:
    return all(row in now for row in rows)


def _drop_updates(tables: Tables, config: Config) -> int:
    """Drop streamed vectors of as-of dates before those whose snapshots are kept daily; return how many dates.

    That is ``snapshots.keep_daily`` back from the space's newest snapshot. Those stay that a training set which took
    updates may have taken.
    """
    newest = {
        space.space_id: of[-1].as_of
        for space in read_registry(tables).spaces
        if (of := list_snapshots(tables, space.space_id))
    }
    pinned = [
        (row.space_id, row.first_label_at.date(), row.last_label_at.date() + timedelta(days=1))
        for row in tables.ledger(schemas.TRAINING_SETS)
        if json.loads(row.options).get("updates")
    ]
    old: Keys = [
        {"space_id": space_id, "as_of": as_of}
        for space_id, as_of in sorted(tables.partitions(EMBEDDING_UPDATES))
        if space_id in newest and as_of <= newest[space_id] - config.snapshots.keep_daily
        if not any(of == space_id and first <= as_of <= last for of, first, last in pinned)
    ]
    tables.drop_partitions(EMBEDDING_UPDATES, old)
    return len(old)


def _drop_refused(tables: Tables) -> int:
    """Drop the rows of snapshots that were refused more than 7 days ago; the ledger keeps what was wrong with them."""
    rows = [row for row in tables.ledger(SNAPSHOTS) if row.state == REFUSED and row.computed_at < utc_now() - RETENTION]
    keys = [{"space_id": row.space_id, "as_of": row.as_of, "revision": row.revision} for row in rows]
    if not rows:
        return 0
    stored = tables.partitions(USER_EMBEDDINGS)
    keys = [key for key in keys if tuple(key[name] for name in USER_EMBEDDINGS.partition_by) in stored]
    tables.drop_partitions(USER_EMBEDDINGS, keys)
    return len(keys)
