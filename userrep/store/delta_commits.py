"""Commits to a Delta table below a path without Spark, through delta-rs.

Spark takes a third of a second to commit, delta-rs a few milliseconds. The driver therefore writes ledgers here, and
commits the files that tasks have written.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from userrep.errors import UserrepError, changed_meanwhile
from userrep.failpoints import around
from userrep.store.data_files import TableFile, adding, arrow_schema, files_of, removing
from userrep.store.tables import PartitionFilter, Rows, TransactionId

_ATTEMPTS = 20  # per commit, each on the newest version
_MARK = "userMetadata"  # key of a commit's metadata under which the writer stores a unique mark
_MARK_SEARCH = 100  # newest commits that are searched for a mark

Files = Sequence[TableFile]


class DeltaCommits:
    """The commits to the Delta table at ``uri``.

    They are optimistic: a commit that another writer has overtaken is repeated on the newest version, 20 times at most.
    With ``since``, a commit is a compare-and-swap on that version and is not repeated.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._name = uri.rpartition("/")[2]  # in failpoints

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

    def add_rows(self, rows: Rows, *, replacing: str | None = None, since: int | None = None) -> bool:
        """Append rows in one commit; with ``since``, only if that version is still the newest.

        ``replacing``: a SQL predicate on the rows to delete in the same commit; the new rows must match it too. Returns
        whether the rows were added. Raises UserrepError if every attempt was overtaken.
        """
        how: dict[str, Any] = {"mode": "append"} if replacing is None else {"mode": "overwrite", "predicate": replacing}

        def attempt(table: DeltaTable) -> bool:
            data = pa.Table.from_pylist([dict(row) for row in rows], schema=arrow_schema(table))
            return self._try_commit(lambda made: write_deltalake(table, data, commit_properties=made, **how))

        return self._commit(attempt, since)

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
        before = {file.path for file in files_of(DeltaTable(self.uri, version=since)) if replaces(file.values)}

        def attempt(table: DeltaTable) -> bool:
            removed = [file for file in files_of(table) if replaces(file.values)]
            if {file.path for file in removed} != before:
                raise changed_meanwhile(self.uri)
            return not (added or removed) or self._commit_files(table, added, removed)

        self._commit(attempt)

    def rewrite(self, pairs: Sequence[tuple[TableFile, TableFile | None]]) -> set[str]:
        """Replace each old file by its new file, or by none, in one commit. Return the paths of the old files.

        Pairs whose old file another commit has already removed are skipped, and their paths left out. Raises
        UserrepError if every attempt was overtaken.
        """
        replaced: set[str] = set()

        def attempt(table: DeltaTable) -> bool:
            nonlocal replaced
            paths = {file.path for file in files_of(table)}
            current = [(old, new) for old, new in pairs if old.path in paths]
            replaced = {old.path for old, _ in current}
            added = [new for _, new in current if new is not None]
            return not current or self._commit_files(table, added, [old for old, _ in current])

        self._commit(attempt)
        return replaced

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
