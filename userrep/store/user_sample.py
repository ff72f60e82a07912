"""The rows of a sample of users: those in the lowest hash buckets, the same users in every table and at every date."""

from collections.abc import Sequence

import pyarrow as pa

from userrep.store.buckets import range_of_slice, user_bucket
from userrep.store.data_files import TableFile, matches
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import open_parquet
from userrep.store.schemas import TableSchema
from userrep.store.sql import sql_any
from userrep.store.tables import Keys, Tables
from userrep.store.xxhash import bucket_of

_BATCH_ROWS = 8_192


def rows_below(limit: int, tables: Tables, table: TableSchema, keys: Keys, columns: Sequence[str]) -> pa.Table:
    """Read the rows of some partitions whose users are in buckets below ``limit``. ``columns`` must include user_id.

    Cost: the row groups up to the last of these users in each file that may have one, without Spark below a root; a
    Spark job in a catalog. Memory: the rows, and one row group.
    """
    if not isinstance(tables, FileTables):
        return tables.read(table).where(sql_any(keys)).where(user_bucket() < limit).select(*columns).toArrow()
    parts = [pa.table({name: pa.nulls(0) for name in columns})]
    for file in tables.files(table, matches(keys)):
        if _first_bucket(file) >= limit:
            continue
        for rows in open_parquet(file.uri).iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            is_sampled_N = bucket_of(rows.column("user_id")) < limit
            parts.append(pa.Table.from_batches([rows.filter(pa.array(is_sampled_N))]))
            if not is_sampled_N.all():  # rows are sorted by bucket within a file
                break
    return pa.concat_tables(parts, promote_options="permissive")


def _first_bucket(file: TableFile) -> int:
    """Return the first bucket that a file can have, as far as the table's log shows it."""
    if file.buckets is not None:
        return file.buckets[0]
    return range_of_slice(file.values["user_slice"]).start if "user_slice" in file.values else 0
