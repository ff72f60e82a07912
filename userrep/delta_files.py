"""Delta tables below a path, looked at and committed to without Spark, by delta-rs.

Spark takes about a second to read a table of ten rows and a third of one to commit; delta-rs does either in some
milliseconds. So the driver reads and writes ledgers here, and commits files that tasks have written themselves.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.fs
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction

from userrep.errors import UserrepError
from userrep.storage import file_system

USER_BUCKET = "user_bucket"  # the one column that there are statistics of
_ATTEMPTS = 20  # of a commit, each on the newest version
_ONLY_NOW = CommitProperties(max_commit_retries=0)  # onto the very version that was looked at, or not at all


class TableFile(NamedTuple):
    """A Parquet file of a table: its path below the table's, bytes, rows, and the values of the partition columns.

    ``buckets``: the first and the last ``user_bucket`` in it, where that is known; see events/buckets.py.
    """

    path: str
    size: int
    num_rows: int
    values: dict[str, Any]
    buckets: tuple[int, int] | None = None


class DeltaFiles:
    """The Delta table at ``uri``."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def create(self, schema: str, partition_by: Sequence[str], properties: Mapping[str, str]) -> list[str]:
        """Create the table where it is not there yet, with a schema as JSON; return the columns that it has."""
        if not DeltaTable.is_deltatable(self.uri):
            DeltaTable.create(
                self.uri,
                Schema.from_json(schema),
                mode="ignore",
                partition_by=list(partition_by),
                configuration=dict(properties),
                raise_if_key_not_exists=False,  # Parquet's settings are beside Delta's own
            )
        return [field.name for field in DeltaTable(self.uri).schema().fields]

    def version(self) -> int:
        """Return the newest version."""
        return DeltaTable(self.uri).version()

    def schema(self) -> pa.Schema:
        """Return the columns as Arrow has them."""
        return _schema(DeltaTable(self.uri))

    def rows(self, columns: Sequence[str] | None, equal: Mapping[str, str]) -> list[dict[str, Any]]:
        """Read the rows whose columns have these values. Times are naive, in UTC; maps are dicts."""
        filters = [(name, "=", value) for name, value in equal.items()]
        wanted = list(columns) if columns else None
        found = DeltaTable(self.uri).to_pyarrow_table(columns=wanted, filters=filters or None, filesystem=self._store())
        by_column = zip(*map(_values, found.columns), strict=True)
        return [dict(zip(found.column_names, row, strict=True)) for row in by_column]

    def _store(self) -> pyarrow.fs.FileSystem:
        """Read by pyarrow itself: threads that call delta-rs's files in Python abort a process that is about to end."""
        files, path = file_system(self.uri)
        return pyarrow.fs.SubTreeFileSystem(path, files)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows in one commit."""
        table = DeltaTable(self.uri)
        write_deltalake(table, _as_arrow(table, rows), mode="append")

    def replace(self, rows: Sequence[Mapping[str, Any]], where: str) -> None:
        """Put rows in the place of those that match ``where``, in one commit."""
        table = DeltaTable(self.uri)
        write_deltalake(table, _as_arrow(table, rows), mode="overwrite", predicate=where)

    def exchange(self, rows: Sequence[Mapping[str, Any]], *, since: str | None) -> bool:
        """Put rows in the place of all others if their ``change_id`` is still ``since``; say whether it was."""
        table = DeltaTable(self.uri)
        found = table.to_pyarrow_table(columns=["change_id"], filesystem=self._store())
        if set(found["change_id"].to_pylist()) != {since} - {None}:
            return False
        try:
            write_deltalake(table, _as_arrow(table, rows), mode="overwrite", commit_properties=_ONLY_NOW)
        except CommitFailedError:  # a commit came between the look and the write
            return False
        return True

    def files(self, version: int | None = None) -> list[TableFile]:
        """List the table's files, now or at a version. Driver memory: one entry a file."""
        return _files(DeltaTable(self.uri, version=version))

    def swap(self, added: Sequence[TableFile], replaces: Callable[[dict[str, Any]], bool], *, since: int) -> None:
        """Put files that are there already in the place of all files of some partitions, in one commit.

        ``replaces``: says of the values of partition columns whether files with them go. ``since``: the version that
        the new rows were made from.

        Raises
        ------
        UserrepError
            If another commit has changed these partitions since then.
        """
        before = {file.path for file in self.files(since) if replaces(file.values)}
        for _ in range(_ATTEMPTS):
            table = DeltaTable(self.uri)
            removed = [file for file in _files(table) if replaces(file.values)]
            if {file.path for file in removed} != before:
                raise UserrepError(
                    f"{self.uri}: another run has changed the same rows meanwhile. Run the command again."
                )
            if _commit(table, added, removed):
                return
        raise UserrepError(f"{self.uri}: other runs keep on committing. Run the command again.")


def _commit(table: DeltaTable, added: Sequence[TableFile], removed: Sequence[TableFile]) -> bool:
    """Commit onto the very version that ``table`` is at; say whether no other commit came first."""
    now = int(time.time() * 1000)
    actions: list[AddAction | RemoveAction] = [
        AddAction(file.path, file.size, _texts(file), now, True, json.dumps(_statistics(file))) for file in added
    ]
    actions += [RemoveAction(file.path, True, now, file.size, _texts(file)) for file in removed]
    keys = table.metadata().partition_columns
    try:
        if actions:
            table.create_write_transaction(actions, "append", table.schema(), keys, commit_properties=_ONLY_NOW)
    except CommitFailedError:
        return False
    return True


def _files(table: DeltaTable) -> list[TableFile]:
    actions = pa.table(table.get_add_actions(flatten=True))
    keys = [name for name in actions.column_names if name.startswith("partition.")]
    values = zip(*(actions.column(key).to_pylist() for key in keys), strict=True) if keys else [()] * len(actions)
    names = [key.removeprefix("partition.") for key in keys]
    facts = (actions.column(name).to_pylist() for name in ("path", "size_bytes", "num_records"))
    return [
        TableFile(path, size, num_rows or 0, dict(zip(names, row, strict=True)), buckets)
        for path, size, num_rows, row, buckets in zip(*facts, values, _buckets(actions), strict=True)
    ]


def _buckets(actions: pa.Table) -> list[tuple[int, int] | None]:
    ends = [f"{end}.{USER_BUCKET}" for end in ("min", "max")]
    if not set(ends) <= set(actions.column_names):
        return [None] * len(actions)
    found = zip(*(actions.column(end).to_pylist() for end in ends), strict=True)
    return [None if first is None or last is None else (first, last) for first, last in found]


def _statistics(file: TableFile) -> dict[str, Any]:
    if file.buckets is None:
        return {"numRecords": file.num_rows}
    first, last = ({USER_BUCKET: bucket} for bucket in file.buckets)
    return {"numRecords": file.num_rows, "minValues": first, "maxValues": last}


def _texts(file: TableFile) -> dict[str, str | None]:
    return {name: None if value is None else str(value) for name, value in file.values.items()}


def _as_arrow(table: DeltaTable, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([dict(row) for row in rows], schema=_schema(table))


def _schema(table: DeltaTable) -> pa.Schema:
    return pa.schema(table.schema().to_arrow())


def _values(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if pa.types.is_map(column.type):
        return [None if value is None else dict(value) for value in values]
    if pa.types.is_timestamp(column.type):
        return [value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else None for value in values]
    return values
