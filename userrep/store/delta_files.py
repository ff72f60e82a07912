"""Delta tables below a path, looked at and committed to without Spark, by delta-rs.

Spark takes about a second to read a table of ten rows and a third of one to commit; delta-rs does either in some
milliseconds. So the driver reads and writes ledgers here, and commits files that tasks have written themselves.
"""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.fs
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction
from pyspark.sql.types import StructType

from userrep.errors import UserrepError, in_one_line
from userrep.failpoints import around
from userrep.store.storage import file_system
from userrep.store.table_files import TableFile, adding, files_of, removing

_ATTEMPTS = 20  # of a commit, each on the newest version
_MARK = "userMetadata"  # of a commit, by which whoever made it knows it again
_LOOKED_AT = 1000  # commits, for one that put the table back
_NEWEST = 100  # commits that are looked through for a mark


class DeltaFiles:
    """The Delta table at ``uri``."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def exists(self) -> bool:
        """Return whether the table exists."""
        return bool(DeltaTable.is_deltatable(self.uri))

    def create(self, schema: str, partition_by: Sequence[str], properties: Mapping[str, str]) -> None:
        """Create the table, with a schema as JSON, unless another run does so first."""
        with around(f"create:{self.uri.rpartition('/')[2]}"), suppress(CommitFailedError):  # another run was first
            DeltaTable.create(
                self.uri,
                Schema.from_json(schema),
                mode="ignore",
                partition_by=list(partition_by),
                configuration=dict(properties),
                commit_properties=CommitProperties(max_commit_retries=0),  # else a second run's comes as version 1
                raise_if_key_not_exists=False,  # Parquet's settings are beside Delta's own
            )

    def layout(self) -> tuple[list[str], dict[str, str | None]]:
        """Return the table's columns and properties.

        Raises
        ------
        UserrepError
            If it cannot be read: its log is torn, or asks for what delta-rs does not know.
        """
        try:
            table = DeltaTable(self.uri)
        except DeltaError as error:
            raise UserrepError(
                f"table {self.uri} is not readable ({in_one_line(error)}). Restore it from a copy; if a newer program "
                "has changed it, take back what that has set, or upgrade userrep."
            ) from None
        return [field.name for field in table.schema().fields], dict(table.metadata().configuration)

    def version(self) -> int:
        """Return the newest version."""
        return DeltaTable(self.uri).version()

    def last_transaction(self, writer: str) -> int | None:
        """Return the number of a writer's last transaction; None: it has none."""
        return DeltaTable(self.uri).transaction_version(writer)

    def schema(self) -> pa.Schema:
        """Return the columns as Arrow has them."""
        return _schema(DeltaTable(self.uri))

    def fields(self) -> StructType:
        """Return the columns as Spark has them."""
        return StructType.fromJson(json.loads(DeltaTable(self.uri).schema().to_json()))

    def counts(self, columns: Sequence[str]) -> Counter[tuple[Any, ...]]:
        """Count the rows by the values of some columns. Memory: one batch, and one entry per combination."""
        found: Counter[tuple[Any, ...]] = Counter()
        dataset = DeltaTable(self.uri).to_pyarrow_dataset(filesystem=self._store())
        for batch in dataset.to_batches(columns=list(columns)):
            counted = pa.Table.from_batches([batch]).group_by(list(columns)).aggregate([([], "count_all")])
            for row in counted.to_pylist():
                found[tuple(row[name] for name in columns)] += row["count_all"]
        return found

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

    def append(self, rows: Sequence[Mapping[str, Any]], *, since: int | None = None) -> bool:
        """Add rows in one commit; with ``since``, only if that version is still the newest. Return whether it was.

        Raises UserrepError if other commits always come first.
        """
        return self._write(rows, since, mode="append")

    def replace(self, rows: Sequence[Mapping[str, Any]], where: str, *, since: int | None = None) -> bool:
        """Replace the rows that match ``where``, in one commit; the new rows must match it too.

        ``since`` and the return value are those of ``append``. Raises UserrepError if other commits always come first,
        such as those that join files.
        """
        return self._write(rows, since, mode="overwrite", predicate=where)

    def exchange(self, rows: Sequence[Mapping[str, Any]], *, since: str | None) -> bool:
        """Put rows in the place of all others if their ``change_id`` is still ``since``; say whether it was."""
        table = DeltaTable(self.uri)
        found = table.to_pyarrow_table(columns=["change_id"], filesystem=self._store())
        if set(found["change_id"].to_pylist()) != {since} - {None}:
            return False
        return self._written(table, rows, mode="overwrite")

    def files(self, version: int | None = None) -> list[TableFile]:
        """List the table's files, now or at a version. Driver memory: one entry a file."""
        return files_of(DeltaTable(self.uri, version=version))

    def add_files(self, added: Sequence[TableFile], *, since: int | None = None) -> bool:
        """Add files in one commit; with ``since``, only if that version is still the newest. Return whether it was.

        No file, no commit. Raises UserrepError if other commits always come first.
        """
        if since is not None:
            return self._swap(DeltaTable(self.uri, version=since), added, [])
        for _ in range(_ATTEMPTS):
            if self._swap(DeltaTable(self.uri), added, []):
                return True
        raise self._too_busy()

    def reserve(self, counter: str, *, first: int) -> int:
        """Reserve the next number of a counter in the table's log, at least ``first``; each is given out once."""
        for _ in range(_ATTEMPTS):
            table = DeltaTable(self.uri)
            number = max(first, 1 + (table.transaction_version(counter) or 0))
            if self._committed(table, [], [], Transaction(counter, number)):
                return number
        raise self._too_busy()

    def add_transaction(self, added: Sequence[TableFile], transaction: tuple[str, int]) -> None:
        """Add files in one commit that records a writer's transaction; no file, no commit.

        A transaction that is not above the writer's last is not written again.
        """
        writer, number = transaction
        for _ in range(_ATTEMPTS):
            table = DeltaTable(self.uri)
            last = table.transaction_version(writer)
            if not added or (last is not None and last >= number):
                return
            if self._committed(table, added, [], Transaction(writer, number)):
                return
        raise self._too_busy()

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
            removed = [file for file in files_of(table) if replaces(file.values)]
            if {file.path for file in removed} != before:
                raise changed_meanwhile(self.uri)
            if self._swap(table, added, removed):
                return
        raise self._too_busy()

    def rewrite(self, pairs: Sequence[tuple[TableFile, TableFile | None]]) -> bool:
        """Put a new file, or none, in the place of each of some files, in one commit.

        Files that another commit has removed meanwhile are passed over, with what was to take their place; False says
        so. Raises UserrepError if other commits always come first.
        """
        for _ in range(_ATTEMPTS):
            table = DeltaTable(self.uri)
            there = {file.path for file in files_of(table)}
            mine = [(old, new) for old, new in pairs if old.path in there]
            if self._swap(table, [new for _, new in mine if new is not None], [old for old, _ in mine]):
                return len(mine) == len(pairs)
        raise self._too_busy()

    def has_commit(self, mark: str) -> bool:
        """Say whether one of the newest commits bears a mark.

        A store may do what it is asked and lose its answer on the way; asked again, it says that somebody was first.
        """
        return any(commit.get(_MARK) == mark for commit in DeltaTable(self.uri).history(_NEWEST))

    def was_restored(self, since_ms: int) -> bool:
        """Say whether the table was put back to an earlier version since a time (milliseconds since 1970).

        Files that came back so are as old as they were. Cost: a look at each of up to 1,000 commits.
        """
        newest = DeltaTable(self.uri).history(_LOOKED_AT)
        return any(of["operation"] == "RESTORE" and of["timestamp"] >= since_ms for of in newest)

    def _swap(self, table: DeltaTable, added: Sequence[TableFile], removed: Sequence[TableFile]) -> bool:
        """Commit onto the very version that ``table`` is at; say whether no other commit came first."""
        return not (added or removed) or self._committed(table, added, removed)

    def _write(self, rows: Sequence[Mapping[str, Any]], since: int | None, **how: Any) -> bool:
        """Write rows onto a version, or onto the newest one; return whether no other commit came first."""
        if since is not None:
            return self._written(DeltaTable(self.uri, version=since), rows, **how)
        for _ in range(_ATTEMPTS):
            if self._written(DeltaTable(self.uri), rows, **how):
                return True
        raise self._too_busy()

    def _written(self, table: DeltaTable, rows: Sequence[Mapping[str, Any]], **how: Any) -> bool:
        """Write rows onto the very version that ``table`` is at; say whether no other commit came first."""
        written = _as_arrow(table, rows)
        return self._first(lambda properties: write_deltalake(table, written, commit_properties=properties, **how))

    def _committed(
        self, table: DeltaTable, added: Sequence[TableFile], removed: Sequence[TableFile], *of: Transaction
    ) -> bool:
        """Commit files onto the very version that ``table`` is at; say whether no other commit came first."""
        actions: list[AddAction | RemoveAction] = [*adding(added), *removing(removed)]
        schema, keys = table.schema(), table.metadata().partition_columns
        return self._first(
            lambda properties: table.create_write_transaction(
                actions, "append", schema, keys, commit_properties=properties
            ),
            *of,
        )

    def _first(self, commit: Callable[[CommitProperties], None], *of: Transaction) -> bool:
        mark = uuid.uuid4().hex
        try:
            commit(CommitProperties(custom_metadata={_MARK: mark}, max_commit_retries=0, app_transactions=list(of)))
        except CommitFailedError:  # another commit came between the look and the write, or this one has
            return self.has_commit(mark)
        return True

    def _too_busy(self) -> UserrepError:
        return UserrepError(f"{self.uri}: other runs keep on committing. Run the command again.")

    def join_files(self, at_least: int) -> int:
        """Put all files into one if they are so many; return how many they were, 0 if another commit came first."""
        table = DeltaTable(self.uri)
        if (num := len(table.file_uris())) < at_least:
            return 0
        try:
            table.optimize.compact()
        except CommitFailedError:
            return 0
        return num

    def vacuum(self, hours: int, keep: Sequence[int] = ()) -> None:
        """Delete the files that no version of the last ``hours`` has, and none of ``keep``."""
        table = DeltaTable(self.uri)
        kept = [version for version in keep if self.has_version(version)]
        table.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True, keep_versions=kept)

    def has_version(self, version: int) -> bool:
        """Say whether a version can still be read: Delta's log is cleaned after 30 days."""
        try:
            DeltaTable(self.uri, version=version)
        except DeltaError:
            return False
        return True


def changed_meanwhile(table: str) -> UserrepError:
    """Return what a commit fails with that was made from rows which are no longer those."""
    return UserrepError(f"{table}: another run has changed the same rows meanwhile. Run the command again.")


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
