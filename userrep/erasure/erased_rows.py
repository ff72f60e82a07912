"""Rows of erased users taken out of tables: files that hold some are written anew without them, the others stay."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import functions as F

from userrep.errors import UserrepError
from userrep.sources.tombstones import Tombstones, condition
from userrep.spark.session import shuffle_partitions
from userrep.store.arrow import combined
from userrep.store.buckets import range_of_slice, ranges_of_groups
from userrep.store.file_tables import FileTables
from userrep.store.hashing import bucket_of
from userrep.store.schemas import REJECTED_EVENTS, TableSchema
from userrep.store.storage import open_parquet
from userrep.store.table_files import TableFile
from userrep.store.table_writer import TableWriter, Target
from userrep.store.tables import Tables

_PASSES = 5  # over a table that other runs write to meanwhile
_FILES_PER_TASK = 16  # on average; a file without erased users takes some milliseconds
_REWRITTEN = (
    "place INT, num_gone BIGINT, hashes ARRAY<BINARY>, path STRING, size BIGINT, num_rows BIGINT, ends ARRAY<INT>"
)

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Gone:
    """Who is looked for: all erased users, or those of them whose ids are known to fall into some ``buckets``."""

    tombstones: Tombstones
    buckets: NDArray[np.int32] | None = None  # sorted

    @classmethod
    def of(cls, tombstones: Tombstones, user_ids: Sequence[str]) -> "Gone":
        """Look for some erased users by their ids: only what lies where these would is read."""
        return cls(tombstones, np.unique(bucket_of(pa.array(user_ids, pa.string()))) if user_ids else None)

    def may_be_within(self, first: int, last: int) -> bool:
        """Say whether any of them may have a bucket from ``first`` to ``last``."""
        if self.buckets is None:
            return True
        return bool(np.searchsorted(self.buckets, first) < np.searchsorted(self.buckets, last, side="right"))

    def hold(self, user_ids: pa.Array) -> Flags:
        """Say which of some ids are theirs; a null is not."""
        if self.buckets is None:
            return self.tombstones.hold(user_ids)
        found = np.isin(bucket_of(user_ids.fill_null("")), self.buckets)
        found[found] = self.tombstones.hold(user_ids.filter(pa.array(found)))
        return found

    def check_of(self, column: str) -> Callable[[pa.Array], Flags]:
        """Return what says of a column's texts which rows go: of ids, or of rejected rows as text."""
        return self.tombstones.named_in if column == "row" else self.hold


def _column_of(table: TableSchema) -> str:
    return "row" if table is REJECTED_EVENTS else "user_id"


@dataclass
class ErasedRows:
    """What was taken out of a table: rows, files that held them, the users they were of (keyed hashes), and the values
    of the partition columns of these files.
    """

    rows: int = 0
    files: int = 0
    users: set[bytes] = field(default_factory=set)
    partitions: list[dict[str, Any]] = field(default_factory=list)


def erase_rows(tables: Tables, table: TableSchema, gone: Gone, *, since: datetime | None = None) -> ErasedRows:
    """Take the rows of erased users out of a table, in a commit for each pass.

    ``since``: only files that were added from this time (UTC) on are looked at; all if None, or if the table was put
    back to an earlier version since then.

    Order and layout of the files stay, so that what is read by their order still is. Cost: of a table that is laid out
    by user bucket, the footers of the files that may hold these users and the ids in a row group or two; of others the
    ids of all rows; and each file that holds some is written anew. Driver memory: an entry a file, and the hashes of
    the users in it. Killed, it is simply done again. In a catalog Spark's MERGE does it, at three scans of the ids.

    Raises
    ------
    UserrepError
        If other runs change the same files again and again.
    """
    if not tables.exists(table):
        return ErasedRows()
    if not isinstance(tables, FileTables):
        return _merged_away(tables, table, gone)
    if since is not None and tables.was_restored(table, since):
        since = None
    done = ErasedRows()
    for _ in range(_PASSES):
        files = [file for file in tables.files(table) if _may_hold(file, gone, since)]
        if not files:
            return done
        found = _rewritten(tables, table, gone, files)
        for file, _, num_gone, hashes in found:
            done.rows, done.files, done.users = done.rows + num_gone, done.files + 1, done.users | hashes
            done.partitions.append(file.values)
        if tables.rewrite(table, [(file, new) for file, new, _, _ in found]):
            return done
    raise UserrepError(f"forget: other runs keep on writing to {tables.name(table)}; run the command again.")


def _may_hold(file: TableFile, gone: Gone, since: datetime | None) -> bool:
    if since is not None and file.added_at < since.replace(tzinfo=UTC).timestamp() * 1000:
        return False
    if file.buckets is not None:
        return gone.may_be_within(*file.buckets)
    if user_slice := file.values.get("user_slice"):
        held = range_of_slice(user_slice)
        return gone.may_be_within(held.start, held.stop - 1)
    return True


def _rewritten(
    tables: FileTables, table: TableSchema, gone: Gone, files: Sequence[TableFile]
) -> list[tuple[TableFile, TableFile | None, int, set[bytes]]]:
    """Write those files anew that hold erased users: of each the new one, if any row is left, and what is gone."""
    work = _Rewriting(gone, tables.target(table), _column_of(table))
    listed = [(place, file.path, json.dumps(file.values, default=str)) for place, file in enumerate(files)]
    num_tasks = max(1, min(len(files), max(shuffle_partitions(tables.spark), len(files) // _FILES_PER_TASK)))
    rows = tables.spark.createDataFrame(listed, "place INT, path STRING, partition_values STRING")
    found = rows.repartition(num_tasks).mapInArrow(work, _REWRITTEN).collect()
    return [
        (files[row.place], _written_file(row, files[row.place]), row.num_gone, set(map(bytes, row.hashes)))
        for row in found
    ]


def _written_file(row: Any, old: TableFile) -> TableFile | None:
    if row.path is None:
        return None
    return TableFile(row.path, row.size, row.num_rows, old.values, tuple(row.ends) if row.ends else None)


@dataclass(frozen=True)
class _Rewriting:
    """What tasks do with a table's files. ``column``: that ids stand in, or texts that name them."""

    gone: Gone
    target: Target
    column: str

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in batch.to_pylist():
                found = self._file(row["path"], json.loads(row["partition_values"]))
                if found is not None:
                    yield pa.RecordBatch.from_pylist([{"place": row["place"], **found}], _AS_ARROW)

    def _file(self, path: str, values: dict[str, Any]) -> dict[str, Any] | None:
        """Write a file anew if it holds erased users. Memory: two row groups."""
        file = open_parquet(f"{self.target.uri}/{path}")
        masks = {k: mask for k in self._groups(file) if (mask := self._mask(file, k)).any()}
        if not masks:
            return None
        writer, hashes = TableWriter(self.target), set()
        for k in range(file.num_row_groups):
            rows = file.read_row_group(k, use_threads=False)
            if k in masks:
                hashes |= self._hashes(rows.filter(pa.array(masks[k])))
                rows = rows.filter(pa.array(~masks[k]))
            writer.write(rows, values)
        written = {"num_gone": sum(int(mask.sum()) for mask in masks.values()), "hashes": sorted(hashes)}
        for new in writer.close():
            written |= {"path": new.path, "size": new.size, "num_rows": new.num_rows, "ends": new.buckets}
        return written

    def _groups(self, file: pq.ParquetFile) -> list[int]:
        """Return the row groups that may hold erased users."""
        if self.gone.buckets is None or "user_bucket" not in file.schema_arrow.names:
            return list(range(file.num_row_groups))
        held = enumerate(ranges_of_groups(file.metadata))
        return [k for k, buckets in held if self.gone.may_be_within(buckets.start, buckets.stop - 1)]

    def _mask(self, file: pq.ParquetFile, group: int) -> Flags:
        texts = combined(file.read_row_group(group, columns=[self.column], use_threads=False).column(0))
        return self.gone.check_of(self.column)(texts.cast(pa.string()))

    def _hashes(self, rows: pa.Table) -> set[bytes]:
        """Return the hashes of users whose rows these are; of rejected rows nobody asks."""
        if self.column == "row":
            return set()
        return {self.gone.tombstones.hash(user_id) for user_id in set(rows.column("user_id").to_pylist())}


_AS_ARROW = pa.schema(
    [("place", pa.int32()), ("num_gone", pa.int64()), ("hashes", pa.list_(pa.binary())), ("path", pa.string()),
     ("size", pa.int64()), ("num_rows", pa.int64()), ("ends", pa.list_(pa.int32()))]
)  # fmt: skip


def _merged_away(tables: Tables, table: TableSchema, gone: Gone) -> ErasedRows:
    """Let Spark take the rows out of a table in a catalog."""
    column = _column_of(table)
    rows = tables.read(table).where(condition(gone.check_of(column), F.col(column)))
    found = rows.select(column).distinct()
    users = {gone.tombstones.hash(row[0]) for row in found.collect()} if column == "user_id" else set()
    partitions = [row.asDict() for row in rows.select(*table.partition_by).distinct().collect()]
    done = tables.spark.sql(
        f"MERGE INTO {tables.name(table)} AS t USING {{found}} AS s ON t.`{column}` = s.`{column}` "
        "WHEN MATCHED THEN DELETE",
        found=found,
    ).first()
    return ErasedRows(int(done.num_deleted_rows) if done else 0, 0, users, partitions)
