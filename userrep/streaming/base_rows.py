"""Look-up of single users in files sorted by user bucket: stream bases and snapshots.

Only the row groups that may contain the requested users are read. The row groups of a stream base have about fifty
users each. Each process reads the bucket ranges from the file footers once; after that, the cost of a look-up depends
only on the number of requested users.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from userrep.features.sums.chunk import KINDS, names_of
from userrep.store.arrow import combined
from userrep.store.bucket_reader import read_row_groups, row_group_ranges
from userrep.store.buckets import ALL_BUCKETS
from userrep.store.file_tables import FileTables
from userrep.store.schemas import TableSchema
from userrep.store.xxhash import bucket_of


class OpeningFile(NamedTuple):
    """A file sorted by user bucket, and its first and last bucket."""

    uri: str
    first: int
    last: int


def opening_rows(files: Sequence[OpeningFile], user_ids: pa.Array, *, context: bool) -> tuple[pa.Table, pa.Table]:
    """Read the base sums and the profiles of users, with the columns of ``Chunk``.

    ``user_ids`` are distinct strings without nulls. A user without sums or profile has no row in that table. ``day`` of
    the sums is 0. Cost and memory: one or two row groups of about 50 rows per user.
    """
    names = [name for kind in ("sums", "profiles") for name in names_of(kind, context=context) if name != "day"]
    rows = rows_of_users(files, user_ids, list(dict.fromkeys(names)))
    if rows is None:
        return KINDS["sums"].empty_table(), KINDS["profiles"].empty_table()
    has_sums = pc.greater(pc.binary_length(rows.column("sums")), 0)
    has_profile = pc.or_(
        pc.is_valid(rows.column("attributes")),
        pc.or_(pc.is_valid(rows.column("pick_items")), pc.is_valid(rows.column("registered_at"))),
    )
    return _as_kind(rows.filter(has_sums), "sums", context), _as_kind(rows.filter(has_profile), "profiles", context)


def rows_of_users(files: Sequence[OpeningFile], user_ids: pa.Array, columns: list[str]) -> pa.Table | None:
    """Read the rows of users (strings without nulls), or None if no row group can contain any of them.

    ``columns`` must include user_id. Cost: one or two row groups per user.
    """
    buckets = np.unique(bucket_of(user_ids))
    tables = []
    for file in files:
        in_file = buckets[(buckets >= file.first) & (buckets <= file.last)]
        groups = row_group_ranges(file.uri).containing(in_file) if len(in_file) else in_file
        if len(groups):
            table = read_row_groups(file.uri, groups, columns)
            tables.append(table.filter(pc.is_in(table.column("user_id"), value_set=user_ids)))
    return pa.concat_tables(tables) if tables else None


def user_files(
    tables: FileTables, table: TableSchema, keeps: Callable[[dict[str, Any]], bool], *, version: int | None = None
) -> tuple[OpeningFile, ...]:
    """List files of a table sorted by user bucket, at its newest or at a given version.

    ``keeps`` selects partitions by the values of their columns.
    """
    uri, all_buckets = tables.uri(table), (ALL_BUCKETS.start, ALL_BUCKETS.stop - 1)
    files = tables.files(table, keeps, version=version)
    return tuple(OpeningFile(f"{uri}/{file.path}", *(file.buckets or all_buckets)) for file in files)


def _as_kind(rows: pa.Table, kind: str, context: bool) -> pa.Table:
    schema, columns = KINDS[kind], []
    names = names_of(kind, context=context)
    for name in names:
        if name == "day":
            columns.append(pa.chunked_array([pa.array(np.zeros(rows.num_rows, np.int32))]))
        else:
            column = rows.column(name)
            columns.append(combined(column.cast(pa.timestamp("us")).cast(pa.int64()) if _is_time(column) else column))
    return pa.Table.from_arrays(
        [c.cast(schema.field(n).type) for c, n in zip(columns, names, strict=True)], names=names
    )


def _is_time(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_timestamp(column.type))
