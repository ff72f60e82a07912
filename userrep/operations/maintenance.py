"""Table maintenance, to run daily or weekly: compacts small files and removes rows and files no longer needed."""

import json
import logging
from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

from pyspark.sql import Row

from userrep.config import Config
from userrep.config.training import DEFAULT_ROOM
from userrep.errors import AlreadyRunningError, UserrepError, plural
from userrep.features.ledger import features_tables
from userrep.features.sums.generations import generations
from userrep.features.sums.stream_base import base_rows
from userrep.spaces.registry import RETIRED, read_registry
from userrep.spaces.snapshots import BEGUN, PUBLISHED, REFUSED, STAGED, Snapshot, list_snapshots
from userrep.store import schemas
from userrep.store.filesystem import delete_folder, delete_partials, folder_names, newest_change
from userrep.store.leases import held
from userrep.store.schemas import TableSchema
from userrep.store.sql import sql_any, sql_in
from userrep.store.tables import RETENTION, Keys, Tables
from userrep.tiles.ledger import STREAM_REVISION
from userrep.utc import utc_now

logger = logging.getLogger(__name__)

_UNPUBLISHED = (BEGUN, STAGED, REFUSED)
_MANY = 16  # files of a ledger, or of a partition written by streams, from which on they are compacted
_SMALL = 50_000  # rows per file of a partition, below which they are compacted; some 25 MB of vectors


def maintain_tables(tables: Tables, config: Config) -> dict[str, Any]:
    """Compact small files, remove rows that are not referred to, and files not in any version of the last 7 days.

    Each run adds a file to ledgers, and each micro-batch adds one to ``embedding_updates`` and to the rejected rows of
    streams. Only these are compacted; other tables keep the layout that they were written in, because readers rely on
    it.

    Safe to run at the same time as other jobs and streams. Everything from the last 7 days is kept, and so are pinned
    snapshots (rows of the newest version) and the versions of ``user_openings`` that streams read. A table that another
    run commits to at the same time is left for the next maintenance.

    Cost: a listing of every table's folder; a read and a write of what is compacted, by tasks except for ledgers.
    Returns counts of what was done: ``joined`` has the compacted files of each ledger, or partitions of other tables.
    """
    joined = _compact(tables)
    logger.info(f"maintain_tables: compacted the files of {plural(len(joined), 'table')}")
    done = {
        "unpublished_snapshots": _drop_unpublished(tables),
        "superseded_tiles": _drop_superseded_tiles(tables),
        "features": _drop_features(tables, config),
        "updates": _drop_updates(tables, config),
        "trainings": _drop_trainings(tables),
    }
    read_by_streams = sorted({row.table_version for row in base_rows(tables).values()})
    for table in (*schemas.ALL, *features_tables(tables)):
        tables.vacuum(table, RETENTION, keep=read_by_streams if table is schemas.USER_OPENINGS else ())
    done["orphans"] = delete_partials(f"{tables.artifacts_root}/artifacts", older_than=RETENTION)
    logger.info(
        "maintain_tables: removed old files, {unpublished_snapshots} unpublished snapshots, {superseded_tiles} "
        "superseded tile revisions, {features} as-of dates of features, {updates} as-of dates of streamed updates, "
        "rows of {trainings} trainings and {orphans} partly written artifact files".format(**done)
    )
    return {"joined": joined, **done}


def _compact(tables: Tables) -> dict[str, int]:
    """Compact ledgers and partitions written by streams; return the number of files or partitions by table."""
    joined = {table.name: num for table in schemas.LEDGERS if (num := tables.compact(table, at_least=_MANY))}
    for table in (schemas.EMBEDDING_UPDATES, schemas.REJECTED_EVENTS):
        crowded = _crowded(tables, table)
        if crowded and tables.compact_partitions(table, crowded):
            joined[table.name] = len(crowded)
        elif num := sum(tables.compact_partitions(table, [key]) for key in crowded):  # a stream writes to one of them
            joined[table.name] = num
    return joined


def _crowded(tables: Tables, table: TableSchema) -> list[dict[str, Any]]:
    """Return the partitions with many small files. Where partitions are by revision, only those written by streams."""
    crowded = [
        table.partition(key)
        for key, part in tables.partitions(table).items()
        if part.num_files >= _MANY and part.num_rows < part.num_files * _SMALL
    ]
    return [values for values in crowded if values.get("revision", STREAM_REVISION) == STREAM_REVISION]


def _drop_superseded_tiles(tables: Tables) -> int:
    """Drop tile revisions that were written more than 7 days ago and are not referred to; return their number.

    Revisions that were the newest of their day at some time in the last 7 days are kept, because a run that began then
    may still read them. Tiles included in stored window sums or base sums are kept too, because a correction subtracts
    them. Rejected rows are dropped by the same rule. Those of streams are kept, and those of the newest build that
    found rows without a readable time, which are stored under the day of the build.
    """
    newest = _newest_lately(tables)
    undated = max((revision for day, revision in newest if day is None), default=STREAM_REVISION)
    lineages = {row.lineage_id for row in tables.ledger(schemas.SUM_GENERATIONS, ("lineage_id",))}
    sums = [kept.revision_by_day for lineage_id in lineages for kept in generations(tables, lineage_id)]
    bases = [row.revision_by_day for row in base_rows(tables).values()]
    summed = {day for included in (*sums, *bases) for day in (included or {}).items()}
    _drop_revisions(tables, schemas.REJECTED_EVENTS, newest, whole=(STREAM_REVISION, undated))
    return _drop_revisions(tables, schemas.USER_ITEM_DAYS, newest | summed)


def _newest_lately(tables: Tables) -> set[tuple[date | None, int]]:
    """Return the (day, revision) of tiles that were the newest of their day at some time in the last 7 days.

    The day is None for rows without a readable time.
    """
    rows = tables.ledger(schemas.TILE_DAYS, ("event_date", "revision", "built_at"))
    now, lately = utc_now(), set[tuple[date | None, int]]()
    superseded_at: dict[date | None, datetime] = {}
    for row in sorted(rows, key=lambda row: row.revision, reverse=True):
        if superseded_at.get(row.event_date, now) >= now - RETENTION:
            lately.add((row.event_date, row.revision))
        superseded_at[row.event_date] = row.built_at
    return lately


def _drop_revisions(
    tables: Tables, table: TableSchema, used: Collection[tuple[date | None, int]], *, whole: Collection[int] = ()
) -> int:
    """Drop the (day, revision) of a table that are old and not used, except of ``whole`` revisions; return the number.

    Those written in the last 7 days may belong to a build that is not finished.
    """
    kept, written, before = set(used), set(), utc_now() - RETENTION
    for (day, revision, *_), partition in tables.partitions(table).items():
        written.add((day, revision))
        if partition.written_at >= before or revision in whole:
            kept.add((day, revision))
    old: Keys = [{"event_date": day, "revision": revision} for day, revision in sorted(written - kept)]
    try:
        tables.drop_partitions(table, old)
    except UserrepError:  # another run is writing these rows; the next maintenance drops them
        return 0
    return len(old)


def _drop_features(tables: Tables, config: Config) -> int:
    """Drop features of as-of dates that are not needed; return the number of dates.

    A date is kept if it has a published snapshot, if stored window sums are of this date, if a training at the newest
    date or its self-check could use it, or if its features or a snapshot were built in the last 7 days. The rows of the
    ledger are removed before the features, so a concurrent build sees all features of a date or none.
    """
    training, registry = config.training.as_ofs, read_registry(tables)
    reach = timedelta(days=training.every_days * training.max_check_dates + config.longest_future)
    before, num_dates = utc_now() - RETENTION, 0
    for table in features_tables(tables):
        lineage_id = table.name.removeprefix(schemas.USER_FEATURES)
        ledger = tables.ledger(schemas.FEATURE_SETS, lineage_id=lineage_id)
        rows = [row for row in ledger if row.begun_by is None]
        spaces = [space for space in registry.spaces if space.lineage_id == lineage_id]
        known = [
            s for space in spaces for s in list_snapshots(tables, space.space_id, states=(PUBLISHED, *_UNPUBLISHED))
        ]
        used = {s.as_of for s in known if s.state == PUBLISHED or s.computed_at >= before}
        used |= {kept.as_of for kept in generations(tables, lineage_id)}
        newest = max((row.as_of for row in rows), default=date.max)
        since = min(training.until or date.max, newest - DEFAULT_ROOM) - reach
        old = [row for row in rows if row.as_of < since and row.as_of not in used and row.built_at < before]
        dates, dropped = [row.as_of for row in old], set[date]()
        if old and tables.change(
            schemas.FEATURE_SETS,
            partial(_kept, old, []),
            replacing=sql_any([{"lineage_id": lineage_id, "as_of": as_of} for as_of in dates]),
            lineage_id=lineage_id,
        ):
            num_dates += len(dates)
            dropped.update(dates)
        # Also those that a maintenance left that was killed between the two commits.
        left = {as_of for (as_of, *_), part in tables.partitions(table).items() if part.written_at < before}
        dropped |= left - {row.as_of for row in ledger}
        tables.drop_partitions(table, [{"as_of": as_of} for as_of in sorted(dropped)])
    return num_dates


def _kept(rows: Sequence[Row], kept: list[dict[str, Any]], current_rows: Sequence[Row]) -> list[dict[str, Any]] | None:
    """Return ``kept`` to write instead of ``rows``, or None if one of these has changed."""
    return kept if all(row in current_rows for row in rows) else None


def _drop_updates(tables: Tables, config: Config) -> int:
    """Drop streamed vectors of old as-of dates; return the number of dates.

    A date is old if it is ``snapshots.keep_daily`` or more before the space's newest snapshot, or if the space is
    retired and has none left. Dates are kept if a training set with updates may have used their vectors.
    """
    newest = {
        space.space_id: snapshots[-1].as_of if snapshots else date.max
        for space in read_registry(tables).spaces
        if (snapshots := list_snapshots(tables, space.space_id)) or space.state == RETIRED
    }
    as_ofs = {row.snapshot_id: row.as_of for row in tables.ledger(schemas.SNAPSHOTS, ("snapshot_id", "as_of"))}
    pinned = [
        (
            row.space_id,
            # a label takes an update of any date after that of its snapshot
            min([row.first_label_at.date(), *(as_ofs[name] for name in row.snapshot_ids if name in as_ofs)]),
            row.last_label_at.date() + timedelta(days=1),
        )
        for row in tables.ledger(schemas.TRAINING_SETS)
        if json.loads(row.options).get("updates")
    ]
    old: Keys = [
        {"space_id": space_id, "as_of": as_of}
        for space_id, as_of in sorted(tables.partitions(schemas.EMBEDDING_UPDATES))
        if space_id in newest and as_of <= newest[space_id] - config.snapshots.keep_daily
        if not any(pinned_id == space_id and first <= as_of <= last for pinned_id, first, last in pinned)
    ]
    tables.drop_partitions(schemas.EMBEDDING_UPDATES, old)
    return len(old)


def _drop_trainings(tables: Tables) -> int:
    """Drop rows and checkpoints of trainings that wrote nothing in the last 7 days; return the number of trainings.

    A training that was interrupted and is run again before then continues from them. Nothing else reads them. Nothing
    is dropped while a training runs.
    """
    if not any(_old_trainings(tables)):
        return 0
    try:
        with held(tables, "train_autoencoder"):
            rows, folders = _old_trainings(tables)
            tables.drop_partitions(schemas.TRAINING_ROWS, [{"space_id": space_id} for space_id in rows])
            for name in folders:
                delete_folder(f"{_trainings(tables)}/{name}")
            return len({*rows, *folders})
    except AlreadyRunningError:
        return 0


def _old_trainings(tables: Tables) -> tuple[list[str], list[str]]:
    """Return the ids of the rows and the names of the folders that ``_drop_trainings`` drops."""
    before = utc_now() - RETENTION
    written: dict[str, datetime] = {}
    for (space_id, *_), part in tables.partitions(schemas.TRAINING_ROWS).items():
        written[space_id] = max(part.written_at, written.get(space_id, part.written_at))
    newest = {name: _newest_file(f"{_trainings(tables)}/{name}") for name in folder_names(_trainings(tables))}
    rows = [name for name, at in written.items() if max(at, newest.get(name, at)) < before]
    return rows, [name for name, at in newest.items() if max(at, written.get(name, at)) < before]


def _trainings(tables: Tables) -> str:
    return f"{tables.artifacts_root}/artifacts/training"


def _newest_file(folder: str) -> datetime:
    """Return the time of the newest file in a training's folder. In an object store, folders have no time."""
    steps = [f"{folder}/checkpoints/{name}" for name in folder_names(f"{folder}/checkpoints")]
    return max(map(newest_change, [folder, f"{folder}/inputs", f"{folder}/checkpoints", *steps]))


def _drop_unpublished(tables: Tables) -> int:
    """Drop the rows of snapshots that were not published within 7 days; return their number.

    The ledger keeps refused snapshots, with the reasons, as refused even if they were staged again. It loses those that
    drift held back or whose build was interrupted, so that a later run builds the date again.
    """
    before, stored = utc_now() - RETENTION, tables.partitions(schemas.USER_EMBEDDINGS)
    rows = {(row.space_id, row.as_of, row.revision): row for row in tables.ledger(schemas.SNAPSHOTS)}
    old = {
        key: row
        for key, row in rows.items()
        if row.state in _UNPUBLISHED and row.computed_at < before and (row.state != REFUSED or key in stored)
    }
    ids = sql_in("snapshot_id", [row.snapshot_id for row in old.values()])
    values = [row.asDict() for row in old.values()]
    refused = [value | {"state": REFUSED} for value in values if Snapshot(**value).is_judged]
    if old and not tables.change(schemas.SNAPSHOTS, partial(_kept, [*old.values()], refused), replacing=ids):
        return 0  # another run stages or publishes one of them
    left = {key for key, part in stored.items() if key not in rows and part.written_at < before}  # by a killed run
    keys = sorted(left | (stored.keys() & old.keys()))
    tables.drop_partitions(schemas.USER_EMBEDDINGS, list(map(schemas.USER_EMBEDDINGS.partition, keys)))
    return len(keys)
