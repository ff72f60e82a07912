"""``userrep forget --dry-run``: the rows that an erasure would remove, and the files and folders it would rewrite."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from userrep.config import Config
from userrep.erasure.exports import find_in_exports
from userrep.erasure.request_states import BEGUN, DELETED, newest_requests
from userrep.erasure.requests import STREAM_REMOVED, search_start, streams_after, tables_of_users
from userrep.erasure.rewrite import ErasedRows, ErasedUsers, files_to_search, id_column, rows_and_ids, search
from userrep.sources.tombstones import Tombstones, read_tombstones
from userrep.spaces.registry import read_registry
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.leases import under_way
from userrep.store.schemas import TRAINING_ROWS, TableSchema
from userrep.store.tables import Tables
from userrep.utc import utc_now

_READERS = 16  # threads that search files


def find_rows(tables: Tables, table: TableSchema, users: ErasedUsers, *, since: datetime | None = None) -> ErasedRows:
    """Return what ``erase_rows`` would remove, without a change.

    Cost: the reads of ``erase_rows``, by threads of the driver; in a catalog, scans by Spark.
    """
    if not tables.exists(table):
        return ErasedRows()
    if not isinstance(tables, FileTables):
        rows, _, hashes = rows_and_ids(tables, table, users)
        return ErasedRows(rows.count(), hashes)

    def found_in(file: TableFile) -> tuple[int, set[bytes]]:
        masks, hashes = search(file, users, id_column(table))
        return sum(int(mask.sum()) for mask in masks.values()), hashes

    found, files = ErasedRows(), files_to_search(tables, table, users, since)
    with ThreadPoolExecutor(_READERS) as readers:
        for file, (num_rows, hashes) in zip(files, readers.map(found_in, files), strict=True):
            if num_rows:
                found.add(file, num_rows, hashes)
    return found


def preview(tables: Tables, config: Config, user_ids: Sequence[str], *, now: bool) -> dict[str, Any]:
    """Return what ``Erasure.run`` would do, without user ids. Nothing is written, not even a key or a request.

    Without ``user_ids``, the files are searched that ``Erasure.run`` would search. Cost: the reads of the erasure;
    without a catalog, by threads of this process.
    """
    known = newest_requests(tables)
    requests = [row for row in known if row.state in (BEGUN, DELETED)]
    since = search_start(requests, now=now) if requests and not user_ids else None
    users = ErasedUsers.of(Tombstones.of(user_ids) if user_ids else read_tombstones(tables), user_ids)
    is_searched = bool(user_ids or requests or (now and known))
    found = {t.name: find_rows(tables, t, users, since=since) for t in tables_of_users(tables) if is_searched}
    other_runs = under_way(tables)
    streams = streams_after(tables, now=now and not other_runs) if is_searched else {}
    return {
        "num_users": len(user_ids),
        "num_with_rows": len(set[bytes]().union(*(part.users for part in found.values()))) if user_ids else None,
        "tables": {
            name: {"rows": part.rows, "files": len(part.files), "bytes": sum(file.size for file in part.files)}
            for name, part in found.items()
            if part.rows
        },
        "training_rows_dropped": is_searched and bool(tables.partitions(TRAINING_ROWS)),
        "exports": find_in_exports(tables, users.mask) if is_searched else {},
        "online_spaces": len(read_registry(tables).spaces) if is_searched and config.streaming.redis else 0,
        "checkpoints_removed": [name for name, result in streams.items() if result == STREAM_REMOVED],
        "open_requests": len(requests),
        "due_requests": sum(row.state == DELETED and (now or row.due_at <= utc_now()) for row in requests),
        "under_way": sorted(other_runs.values()),
    }
