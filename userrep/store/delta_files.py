"""Access to Delta tables below a path without Spark, through delta-rs.

Spark takes about a second to read a table of ten rows and a third of a second to commit; delta-rs does either in a few
milliseconds. The driver therefore reads and writes ledgers here, and commits the files that tasks have written.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.fs
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from userrep.errors import UserrepError, changed_meanwhile, in_one_line
from userrep.failpoints import around
from userrep.store.data_files import PartitionFilter, TableFile, adding, files_of, removing
from userrep.store.filesystem import file_system
from userrep.store.table_formats import check_features
from userrep.store.tables import Rows, TransactionId

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql.types import StructType

_ATTEMPTS = 20  # per commit, each on the newest version
_MARK = "userMetadata"  # key of a commit's metadata under which the writer stores a unique mark
_MARK_SEARCH = 100  # newest commits that are searched for a mark

Files = Sequence[TableFile]


class DeltaFiles:
    """The Delta table at ``uri``.

    Commits are optimistic: a commit that another writer has overtaken is repeated on the newest version, 20 times at
    most. With ``since``, a commit is a compare-and-swap on that version and is not repeated.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._name = uri.rpartition("/")[2]  # in failpoints

    def exists(self) -> bool:
        """Return whether the table exists."""
        return bool(DeltaTable.is_deltatable(self.uri))

    def create(self, schema: str, partition_by: Sequence[str], properties: Mapping[str, str]) -> None:
        """Create the table unless it exists. ``schema`` is a Spark schema as JSON."""
        with around(f"create:{self._name}"), suppress(CommitFailedError):  # another run was first
            DeltaTable.create(
                self.uri,
                Schema.from_json(schema),
                mode="ignore",
                partition_by=list(partition_by),
                configuration=dict(properties),
                commit_properties=CommitProperties(max_commit_retries=0),  # a retry would commit a second version
                raise_if_key_not_exists=False,  # the properties include Parquet settings
            )

    def layout(self) -> tuple[list[str], dict[str, str | None]] | None:
        """Return the names of the columns, and the properties; None if the table does not exist.

        Raises
        ------
        UserrepError
            If the table cannot be read: its log is damaged, or it uses a Delta feature that delta-rs does not support.
        """
        try:
            table = DeltaTable(self.uri)
        except TableNotFoundError:
            return None
        except DeltaError as error:
            raise UserrepError(
                f"table {self.uri} is not readable ({in_one_line(error)}). Restore it from a backup. If another "
                "program has enabled a newer Delta feature, disable that feature or upgrade userrep."
            ) from None
        properties: dict[str, str | None] = dict(table.metadata().configuration)
        check_features(self.uri, table.protocol().reader_features or [], properties)
        return [field.name for field in table.schema().fields], properties

    def schema(self) -> pa.Schema:
        """Return the Arrow schema."""
        return _schema(DeltaTable(self.uri))

    def fields(self) -> StructType:
        """Return the Spark schema."""
        return _fields(DeltaTable(self.uri))

    def contents(self, version: int | None) -> tuple[int, StructType, list[TableFile]]:
        """Return version, Spark schema and files of a version, by default the newest. Cost: one read of the log."""
        table = DeltaTable(self.uri, version=version)
        return table.version(), _fields(table), files_of(table, self.uri)

    def dataset(self) -> Any:
        """Return the rows of the newest version as a dataset of pyarrow, to be read in batches.

        Raises DeltaError if the table needs a newer reader, for example for deletion vectors.
        """
        files, path = file_system(self.uri)
        # With delta-rs's Python file system, reader threads can abort the process while it is exiting.
        return DeltaTable(self.uri).to_pyarrow_dataset(filesystem=pyarrow.fs.SubTreeFileSystem(path, files))

    def add_rows(self, rows: Rows, *, replacing: str | None = None, since: int | None = None) -> bool:
        """Append rows in one commit; with ``since``, only if that version is still the newest.

        ``replacing``: a SQL predicate on the rows to delete in the same commit; the new rows must match it too. Returns
        whether the rows were added. Raises UserrepError if every attempt was overtaken.
        """
        how: dict[str, Any] = {"mode": "append"} if replacing is None else {"mode": "overwrite", "predicate": replacing}

        def attempt(table: DeltaTable) -> bool:
            data = pa.Table.from_pylist([dict(row) for row in rows], schema=_schema(table))
            return self._try_commit(lambda made: write_deltalake(table, data, commit_properties=made, **how))

        return self._commit(attempt, since)

    def files(self, version: int | None = None) -> list[TableFile]:
        """Return the table's files, at a version or at the newest one. Driver memory: one entry per file."""
        return files_of(DeltaTable(self.uri, version=version), self.uri)

    def add_files(self, added: Files, *, since: int | None = None, transaction: TransactionId | None = None) -> bool:
        """Add files in one commit; with ``since``, only if that version is still the newest.

        ``transaction`` is recorded in the same commit. Without files, or if its number is not above the writer's last
        one, nothing is committed. Returns False if overtaken since ``since``. Raises UserrepError if every attempt was
        overtaken.
        """

        def attempt(table: DeltaTable) -> bool:
            last = table.transaction_version(transaction[0]) if transaction else None
            if not added or (transaction and last is not None and last >= transaction[1]):
                return True
            return self._commit_files(table, added, [], *([Transaction(*transaction)] if transaction else []))

        return self._commit(attempt, since)

    def reserve(self, counter: str, *, first: int) -> int:
        """Reserve the next number of a counter in the table's log, at least ``first``; no number is reserved twice."""
        number = first

        def attempt(table: DeltaTable) -> bool:
            nonlocal number
            number = max(first, 1 + (table.transaction_version(counter) or 0))
            return self._commit_files(table, [], [], Transaction(counter, number))

        self._commit(attempt, point="reserve")
        return number

    def swap(self, added: Files, replaces: PartitionFilter, *, since: int) -> None:
        """Replace all files of some partitions by files that are already written, in one commit.

        ``replaces`` is a predicate on partition values that selects the partitions to replace. ``since`` is the version
        that the new rows are based on.

        Raises
        ------
        UserrepError
            If another commit has changed these partitions since that version, or if every attempt was overtaken.
        """
        before = {file.path for file in self.files(since) if replaces(file.values)}

        def attempt(table: DeltaTable) -> bool:
            removed = [file for file in files_of(table) if replaces(file.values)]
            if {file.path for file in removed} != before:
                raise changed_meanwhile(self.uri)
            return not (added or removed) or self._commit_files(table, added, removed)

        self._commit(attempt)

    def rewrite(self, pairs: Sequence[tuple[TableFile, TableFile | None]]) -> bool:
        """Replace each old file by its new file, or by none, in one commit.

        Pairs whose old file another commit has already removed are skipped; the method then returns False. Raises
        UserrepError if every attempt was overtaken.
        """
        num_skipped = 0

        def attempt(table: DeltaTable) -> bool:
            nonlocal num_skipped
            paths = {file.path for file in files_of(table)}
            current = [(old, new) for old, new in pairs if old.path in paths]
            num_skipped = len(pairs) - len(current)
            added = [new for _, new in current if new is not None]
            return not current or self._commit_files(table, added, [old for old, _ in current])

        self._commit(attempt)
        return not num_skipped

    def _commit(
        self, attempt: Callable[[DeltaTable], bool], since: int | None = None, *, point: str = "commit"
    ) -> bool:
        """Attempt a commit onto version ``since``, or repeatedly onto the newest version; return False if overtaken.

        ``point``: the failpoints before and after it. Raises UserrepError if every attempt was overtaken.
        """
        with around(f"{point}:{self._name}"):
            if since is not None:
                return attempt(DeltaTable(self.uri, version=since))
            for _ in range(_ATTEMPTS):
                if attempt(DeltaTable(self.uri)):
                    return True
            raise UserrepError(f"{self.uri}: other runs keep committing. Run the command again.")

    def _commit_files(self, table: DeltaTable, added: Files, removed: Files, *transactions: Transaction) -> bool:
        """Try to commit files onto the loaded version of ``table``; return False if overtaken."""
        actions: list[AddAction | RemoveAction] = [*adding(added), *removing(removed)]
        schema, keys = table.schema(), table.metadata().partition_columns
        return self._try_commit(
            lambda made: table.create_write_transaction(actions, "append", schema, keys, commit_properties=made),
            *transactions,
        )

    def _try_commit(self, commit: Callable[[CommitProperties], None], *transactions: Transaction) -> bool:
        """Try a commit once; return False if another commit has taken its version."""
        mark = uuid.uuid4().hex
        properties = CommitProperties(
            custom_metadata={_MARK: mark}, max_commit_retries=0, app_transactions=list(transactions)
        )
        try:
            commit(properties)
        except CommitFailedError:
            # An object store may complete a write but lose the response. The client's retry then fails as if another
            # writer had been first, although this one was.
            return any(commit.get(_MARK) == mark for commit in DeltaTable(self.uri).history(_MARK_SEARCH))
        return True

    def has_version(self, version: int) -> bool:
        """Return whether a version can still be read; Delta cleans its log after 30 days."""
        try:
            DeltaTable(self.uri, version=version)
        except DeltaError:
            return False
        return True


def _fields(table: DeltaTable) -> StructType:
    from pyspark.sql.types import StructType

    return StructType.fromJson(json.loads(table.schema().to_json()))


def _schema(table: DeltaTable) -> pa.Schema:
    """Return a table's Arrow schema, without the comments on columns."""
    return pa.schema([field.remove_metadata() for field in pa.schema(table.schema().to_arrow())])
