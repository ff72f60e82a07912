"""Removes the rows of erased users from tables. Files with such rows are rewritten; other files are not touched."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.errors import UserrepError
from userrep.sources.tombstones import Tombstones, condition
from userrep.spark.tasks import map_in_tasks
from userrep.store.arrow import combined
from userrep.store.bucket_reader import BucketRanges, row_group_ranges
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import open_parquet, parquet_footer
from userrep.store.parquet_writer import TableWriter, Target
from userrep.store.schemas import REJECTED_EVENTS, TableSchema
from userrep.store.spark_commits import conflicts
from userrep.store.tables import Tables
from userrep.store.xxhash import bucket_of

_PASSES = 5  # over a table, if other runs write to it at the same time
# One row per rewritten file: its number, what was removed, and the new file as JSON, null if no row is left.
_REWRITTEN = pa.schema(
    [("number", pa.int32()), ("num_erased", pa.int64()), ("hashes", pa.list_(pa.binary())), ("file", pa.string())]
)

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class ErasedUsers:
    """The users whose rows are removed: all erased users, or only those in ``buckets``.

    ``buckets``: sorted hash buckets that rows are limited to, or None for all buckets.
    """

    tombstones: Tombstones
    buckets: NDArray[np.int32] | None = None

    @classmethod
    def of(cls, tombstones: Tombstones, user_ids: Sequence[str]) -> "ErasedUsers":
        """Limit the erased users to the buckets of ``user_ids``, so that less is read. Without ids, take all users."""
        return cls(tombstones, np.unique(bucket_of(pa.array(user_ids, pa.string()))) if user_ids else None)

    def mask(self, user_ids: pa.Array) -> Flags:
        """Return the mask of the ids that belong to these users. Nulls do not."""
        if self.buckets is None:
            return self.tombstones.mask(user_ids)
        mask = np.isin(bucket_of(user_ids.fill_null("")), self.buckets)
        mask[mask] = self.tombstones.mask(user_ids.filter(pa.array(mask)))
        return mask

    def predicate(self, column: str) -> Callable[[pa.Array], Flags]:
        """Return the predicate on ``id_column`` that marks the rows to erase."""
        return self.tombstones.named_in if column == "row" else self.mask


def id_column(table: TableSchema) -> str:
    """Return the column by which a table's rows are erased: the user id, or a rejected row's text that may name it."""
    return "row" if table is REJECTED_EVENTS else "user_id"


@dataclass
class ErasedRows:
    """Rows of erased users in a table.

    ``rows``: their number. ``users``: keyed hashes of their users, for rejected rows none. ``files``: the files that
    have them; in a catalog none. ``partitions``: the partition values of these files.
    """

    rows: int = 0
    users: set[bytes] = field(default_factory=set)
    files: list[TableFile] = field(default_factory=list)
    partitions: list[dict[str, Any]] = field(default_factory=list)

    def add(self, file: TableFile, num_rows: int, users: Iterable[bytes]) -> None:
        """Add the rows of a file."""
        self.rows += num_rows
        self.users.update(users)
        self.files.append(file)
        self.partitions.append(file.values)


def erase_rows(tables: Tables, table: TableSchema, users: ErasedUsers, *, since: datetime | None = None) -> ErasedRows:
    """Remove the rows of erased users from a table, in one commit per pass. Safe to kill and repeat.

    ``since``: search only files added from this time (UTC) on. All files are searched if it is None, or if the table
    was restored to an earlier version since then.

    The order of rows and the layout of files are kept, because readers rely on them.

    Cost: in a table laid out by user bucket, the footers of the files that may contain these users and the ids of one
    or two row groups in each; in other tables, the ids of all rows; and a rewrite of each file with erased rows. Driver
    memory: one entry per file, and the hashes of its erased users. In a catalog, Spark's MERGE and three scans of the
    ids.

    Raises
    ------
    UserrepError
        If other runs keep changing the same files; in a catalog, if one changes them during the MERGE.
    """
    if not tables.exists(table):
        return ErasedRows()
    if not isinstance(tables, FileTables):
        return _erase_by_merge(tables, table, users)
    erased = ErasedRows()
    for _ in range(_PASSES):
        files = files_to_search(tables, table, users, since)
        if not files:
            return erased
        rewritten = _rewrite(tables, table, users, files)
        replaced = tables.commits(table).rewrite([(file, new) for file, new, _, _ in rewritten])
        for file, _, num_rows, hashes in rewritten:
            if file.path in replaced:  # another run may have moved its rows to a file of the next pass
                erased.add(file, num_rows, hashes)
        if len(replaced) == len(rewritten):
            return erased
    raise UserrepError(f"forget: other runs keep writing to {tables.name(table)}. Run the command again.")


def files_to_search(
    tables: FileTables, table: TableSchema, users: ErasedUsers, since: datetime | None
) -> list[TableFile]:
    """Return the files that may have rows of these users. ``since`` is that of ``erase_rows``."""
    files = tables.files(table)
    if since is not None and not tables.was_restored(table, since):
        files = [file for file in files if file.added_at >= since.replace(tzinfo=UTC).timestamp() * 1000]
    if users.buckets is None:
        return files
    return [files[k] for k in BucketRanges.of([file.possible_buckets for file in files]).containing(users.buckets)]


def _rewrite(
    tables: FileTables, table: TableSchema, users: ErasedUsers, files: Sequence[TableFile]
) -> list[tuple[TableFile, TableFile | None, int, set[bytes]]]:
    """Rewrite the files with rows of erased users.

    Returns for each of them: the old file, the new file (None if no row is left), the number of removed rows, and the
    hashes of the removed users.
    """
    target, column = tables.target(table), id_column(table)

    def rewrite(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            if rewritten := _rewrite_file(TableFile.from_json(row["file"]), target, users, column):
                yield {"number": row["number"], **rewritten}

    listed = [(k, file.to_json()) for k, file in enumerate(files)]
    return [
        (files[row.number], row.file and TableFile.from_json(row.file), row.num_erased, set(map(bytes, row.hashes)))
        for row in map_in_tasks(tables.spark, listed, "number INT, file STRING", rewrite, _REWRITTEN)
    ]


def _rewrite_file(old: TableFile, target: Target, users: ErasedUsers, column: str) -> dict[str, Any] | None:
    """Rewrite a file if it has rows of erased users; return None otherwise. Memory: two row groups."""
    masks, hashes = search(old, users, column)
    if not masks:
        return None
    file, writer = open_parquet(old.uri, parquet_footer(old.uri)), TableWriter(target)
    for k in range(file.num_row_groups):
        rows = file.read_row_group(k, use_threads=False)
        writer.write(rows.filter(pa.array(~masks[k])) if k in masks else rows, old.values)
    new = next((file.to_json() for file in writer.close()), None)
    return {"num_erased": sum(int(mask.sum()) for mask in masks.values()), "hashes": sorted(hashes), "file": new}


def search(listed: TableFile, users: ErasedUsers, column: str) -> tuple[dict[int, Flags], set[bytes]]:
    """Return which rows of a file are of erased users, by row group, and these users' hashes if rows have user ids.

    ``column``: see ``id_column``.
    """
    file = open_parquet(listed.uri, parquet_footer(listed.uri))
    is_erased, masks, ids = users.predicate(column), {}, set()
    if users.buckets is None or "user_bucket" not in file.schema_arrow.names:
        groups = range(file.num_row_groups)
    else:
        groups = row_group_ranges(listed.uri).containing(users.buckets).tolist()
    for k in groups:
        texts = combined(file.read_row_group(k, columns=[column], use_threads=False).column(0).cast(pa.string()))
        mask = is_erased(texts)
        if mask.any():
            masks[k] = mask
            if column == "user_id":
                ids |= set(texts.filter(pa.array(mask)).to_pylist())
    return masks, set(map(users.tombstones.hash, ids))


def _erase_by_merge(tables: Tables, table: TableSchema, users: ErasedUsers) -> ErasedRows:
    """Remove the rows of erased users from a table in a catalog."""
    column = id_column(table)
    rows, ids, hashes = rows_and_ids(tables, table, users)
    partitions = [row.asDict() for row in rows.select(*table.partition_by).distinct().collect()]
    with conflicts(tables.name(table)):
        merged = tables.spark.sql(
            f"MERGE INTO {tables.name(table)} AS t USING {{ids}} AS s ON t.`{column}` = s.`{column}` "
            "WHEN MATCHED THEN DELETE",
            ids=ids,
        ).first()
    return ErasedRows(int(merged.num_deleted_rows) if merged else 0, hashes, partitions=partitions)


def rows_and_ids(tables: Tables, table: TableSchema, users: ErasedUsers) -> tuple[DataFrame, DataFrame, set[bytes]]:
    """Return the rows of users in a table, read by Spark, their distinct ids or texts, and the hashes of the ids."""
    column = id_column(table)
    rows = tables.read(table).where(condition(users.predicate(column), F.col(column)))
    ids = rows.select(column).distinct()
    return rows, ids, {users.tombstones.hash(row[0]) for row in ids.collect()} if column == "user_id" else set()
