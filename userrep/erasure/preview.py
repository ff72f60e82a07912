"""``userrep forget --dry-run``: the rows that an erasure would remove, and the files and folders it would rewrite."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from userrep.config import Config
from userrep.erasure.requests import BEGUN, CLOCKS, DELETED, newest_requests, tables_of_users
from userrep.erasure.rewrite import ErasedUsers, id_column, may_hold, rows_and_ids, search
from userrep.errors import in_one_line
from userrep.sources.tombstones import Tombstones, read_tombstones
from userrep.spaces.registry import read_registry
from userrep.store.data_files import TableFile
from userrep.store.export_files import find_in_parts
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import exists, folder_names, open_parquet, parquet_footer
from userrep.store.leases import under_way
from userrep.store.schemas import EXPORTS, TRAINING_ROWS, TableSchema
from userrep.store.tables import Tables
from userrep.utc import utc_now

_READERS = 16  # threads that search files


@dataclass(frozen=True)
class FoundRows:
    """The rows of users in a table: their number, the hashes of their users, and the files to rewrite."""

    rows: int
    users: set[bytes]
    files: int
    num_bytes: int


def find_rows(tables: Tables, table: TableSchema, users: ErasedUsers, *, since: datetime | None = None) -> FoundRows:
    """Return what ``erase_rows`` would remove, without a change.

    Cost: the reads of ``erase_rows``, by threads of the driver. In a catalog, scans by Spark; the number of files is 0.
    """
    if not tables.exists(table):
        return FoundRows(0, set(), 0, 0)
    column, hashed = id_column(table), users.tombstones.hash
    if not isinstance(tables, FileTables):
        rows, ids = rows_and_ids(tables, table, users)
        return FoundRows(
            rows.count(), {hashed(row[0]) for row in ids.collect()} if column == "user_id" else set(), 0, 0
        )
    if since is not None and tables.was_restored(table, since):
        since = None

    def found_in(file: TableFile) -> tuple[int, set[bytes]]:
        masks, ids = search(file, open_parquet(file.uri, parquet_footer(file.uri)), users, column)
        return sum(int(mask.sum()) for mask in masks.values()), set(map(hashed, ids))

    files = [file for file in tables.files(table) if may_hold(file, users, since)]
    with ThreadPoolExecutor(_READERS) as readers:
        found = [(file, *part) for file, part in zip(files, readers.map(found_in, files), strict=True) if part[0]]
    all_users = set[bytes]().union(*(hashes for _, _, hashes in found))
    num_rows = sum(num for _, num, _ in found)
    return FoundRows(num_rows, all_users, len(found), sum(file.size for file, _, _ in found))


def preview(tables: Tables, config: Config, user_ids: Sequence[str], *, now: bool) -> dict[str, Any]:
    """Return what ``Erasure.run`` would do, without user ids. Nothing is written, not even a key or a request.

    Without ``user_ids``, rows of open requests are searched in the files added since the oldest of them; with ``now``,
    in all files. Cost: the reads of the erasure; without a catalog, by threads of this process.
    """
    known = newest_requests(tables)
    requests = [row for row in known if row.state in (BEGUN, DELETED)]
    since: datetime | None = None
    if not user_ids and requests and not now:
        since = min(row.requested_at for row in requests) - CLOCKS
    users = ErasedUsers.of(Tombstones.of(user_ids) if user_ids else read_tombstones(tables), user_ids)
    is_searched = bool(user_ids or requests or (now and known))
    found = {t.name: find_rows(tables, t, users, since=since) for t in tables_of_users(tables) if is_searched}
    streams = f"{tables.artifacts_root}/streams"
    return {
        "num_users": len(user_ids),
        "num_with_rows": len(set[bytes]().union(*(part.users for part in found.values()))) if user_ids else None,
        "tables": {
            name: {"rows": part.rows, "files": part.files, "bytes": part.num_bytes}
            for name, part in found.items()
            if part.rows
        },
        "training_rows_dropped": is_searched and bool(tables.partitions(TRAINING_ROWS)),
        "exports": _exports(tables, users) if is_searched else {},
        "online_spaces": len(read_registry(tables).spaces) if is_searched and config.streaming.redis else 0,
        "checkpoints_removed": folder_names(streams) if now and exists(streams) else [],
        "open_requests": len(requests),
        "due_requests": sum(row.state == DELETED and (now or row.due_at <= utc_now()) for row in requests),
        "under_way": sorted(under_way(tables, but="forget").values()),
    }


def _exports(tables: Tables, users: ErasedUsers) -> dict[str, str]:
    """Return what would be done to each export that has rows of the users or cannot be read, by path."""
    results = {}
    for path in sorted({row.path for row in tables.ledger(EXPORTS, ("path",))}):
        try:
            found = find_in_parts(path, users.mask)
        except (OSError, ValueError) as error:
            results[path] = f"not readable ({in_one_line(error)[:200]})"
            continue
        if found is not None and found[0]:
            results[path] = f"{found[1]:,} rows in {found[0]:,} files"
    return results
