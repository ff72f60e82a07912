"""The interface of all table backends: ledgers, partitions, and changes in one atomic commit."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from userrep.errors import UsageError, UserrepError
from userrep.store.schemas import ALL, PROPERTIES, TableSchema
from userrep.store.sql import sql_any
from userrep.store.table_formats import FORMAT, FORMAT_KEY, check_layout

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import DataFrame, Row, SparkSession
    from pyspark.sql.types import StructType

Session: TypeAlias = "SparkSession | Callable[[], SparkSession] | None"
Rows = Sequence[Mapping[str, Any]]
TransactionId = tuple[str, int]  # name of a writer, and the number of its transaction
Keys = Sequence[Mapping[str, str | date | int]]  # partitions: each key has the values of some partition columns
PartitionFilter = Callable[[dict[str, Any]], bool]  # a predicate on partition values
RETENTION = timedelta(days=7)  # Delta's default: time for which older versions of a table can be read
_ATTEMPTS = 50  # to change a ledger, each from its newest rows; of concurrent changes one succeeds in each round
_LONGEST_PAUSE = 0.05  # seconds between two attempts; random, so that concurrent changes do not stay in step


class PartitionStatistics(NamedTuple):
    """Statistics of a table partition. ``written_at``: time of its newest file (naive UTC)."""

    num_files: int
    num_rows: int
    written_at: datetime


class Tables(ABC):
    """The Delta tables of one installation. Opening them does no I/O, and reading creates nothing.

    ``FileTables`` read and commit files themselves, ``SparkTables`` leave everything to Spark. Both give the same bits.
    """

    def __init__(self, session: Session, *, expected: bool = False) -> None:
        """``session``: a session, a function that starts one when it is first needed, or None if none may be needed.

        With ``expected``, the first access raises UsageError if there are no tables at all.
        """
        self._session, self._expected = session, expected
        self._known: set[str] = set()  # tables that exist with the layout of this release

    @property
    def spark(self) -> SparkSession:
        if callable(self._session):
            self._session = self._session()
        assert self._session is not None, "these tables were opened without a session"
        return self._session

    @property
    @abstractmethod
    def artifacts_root(self) -> str:
        """Folder or URI of everything that is not a table: models, leases, checkpoints."""

    @property
    def location(self) -> str:
        """Root, or catalog and schema of the tables, for messages."""
        return self.artifacts_root

    @abstractmethod
    def name(self, table: TableSchema) -> str:
        """Return the table's name in SQL."""

    @abstractmethod
    def stored(self) -> list[str]:
        """Return the names of the stored tables."""

    def check_any(self) -> list[TableSchema]:
        """Return the stored tables of ``ALL``. Raises UsageError if there is none. Cost: a listing."""
        stored = set(self.stored())
        if own := [table for table in ALL if table.name in stored]:
            return own
        raise UsageError(
            f"no userrep tables at {self.location}: check the location, or build them with "
            "`userrep pipeline --as-of DATE`."
        )

    def check_before_spark(self) -> None:  # noqa: B027  # by default, nothing
        """Raise the errors of ``exists`` if tables are expected and that needs no Spark session."""

    def exists(self, table: TableSchema) -> bool:
        """Return whether the table exists. Nothing is created.

        Raises UsageError if another release wrote it, with another format or other columns, or if tables are expected
        and there are none at all; UserrepError if it cannot be read.
        """
        if table.name in self._known:
            return True
        layout = self._layout(table)
        if layout is not None:
            check_layout(self.name(table), table, *layout)
            self._known.add(table.name)
        elif self._expected and not self._known:  # a consumer may have access to single tables only
            self.check_any()
        return layout is not None

    def _is_stored(self, table: TableSchema) -> bool:
        """Return whether the table exists, without a check of its columns."""
        return table.name in self._known or self._layout(table) is not None

    def create(self, table: TableSchema) -> None:
        """Create the table unless it exists. Raises the errors of ``exists``."""
        if not self.exists(table):
            self._create(table, PROPERTIES | {FORMAT_KEY: str(FORMAT)} | dict(table.properties))
            self.exists(table)

    @abstractmethod
    def _create(self, table: TableSchema, properties: Mapping[str, str]) -> None:
        """Create a table, unless another run creates it first."""

    @abstractmethod
    def _layout(self, table: TableSchema) -> tuple[list[str], Mapping[str, str | None]] | None:
        """Return the names of the columns, and the properties, of a table; None if it does not exist."""

    def keep_view(self, name: str, query: str) -> None:  # noqa: B027  # by default, nothing
        """Create a view of the tables if it is missing. Only a catalog has views; elsewhere this does nothing."""

    # Reading

    def read(self, table: TableSchema, keys: Keys | None = None, *, version: int | None = None) -> DataFrame:
        """Read some partitions of a table, by default all, at a version, by default the newest.

        ``keys`` have values of partition columns: ``[{}]`` reads everything, ``[]`` nothing. A table that does not
        exist gives an empty frame. Below a root, the frame has the rows of this moment, even if the table changes
        before it is computed. Cost: a read of the log. Driver memory: one entry per file of the table.
        """
        assert all(set(key) <= set(table.partition_by) for key in keys or ())
        if not self.exists(table):
            return self.spark.createDataFrame([], table.fields())
        return self._rows(table, keys, version)

    def _rows(self, table: TableSchema, keys: Keys | None, version: int | None) -> DataFrame:
        at = f" VERSION AS OF {version}" if version is not None else ""
        rows = self.spark.sql(f"SELECT * FROM {self.name(table)}{at}")
        return rows if keys is None else rows.where(sql_any(keys))

    @abstractmethod
    def version(self, table: TableSchema) -> int:
        """Return the newest version of the table, 0 if it does not exist; version 0 is empty. Cost: a log read."""

    @abstractmethod
    def fields(self, table: TableSchema) -> StructType:
        """Return the schema of an existing table as stored, without a check of its layout."""

    @abstractmethod
    def num_bytes(self, table: TableSchema) -> int:
        """Return the bytes of the newest version's files, 0 without a table. No check of columns. Cost: a log read."""

    @abstractmethod
    def ledger(self, table: TableSchema, columns: Sequence[str] | None = None, **equal: str) -> list[Row]:
        """Return the rows of a small table with these values. Times are naive UTC. Driver memory: the rows."""

    @abstractmethod
    def counts(self, table: TableSchema, columns: Sequence[str]) -> Mapping[tuple[Any, ...], int]:
        """Count the rows by the values of some columns. Cost: one read of these columns."""

    @abstractmethod
    def partitions(self, table: TableSchema) -> dict[tuple[Any, ...], PartitionStatistics]:
        """Return statistics of each partition, by its values. Cost: one read of the log, or a count by Spark."""

    # Small changes, from the driver

    @abstractmethod
    def add(self, table: TableSchema, rows: Rows, *, replacing: str | None = None, since: int | None = None) -> bool:
        """Add rows to a ledger in one commit. Times are UTC.

        ``replacing`` is a SQL condition on the rows to delete in the same commit; the new rows must match it too. With
        ``since`` (compare-and-swap), nothing is added if another run has added rows since that version. Returns whether
        the rows were added.

        Without ``since``, changes that another run has made to the deleted rows are lost. So callers without it only
        append, replace measures of the same snapshot or evaluation, or take back the features of earlier builds.
        """

    def change(
        self,
        table: TableSchema,
        changed: Callable[[list[Row]], Rows | None],
        *,
        replacing: str = "true",
        subject: str | None = None,
        check: str | None = None,
        **equal: str,
    ) -> bool:
        """Replace rows of a ledger in one commit by a function of them.

        ``changed`` returns the rows to write, given the ledger's rows that match ``equal``, or None to change nothing.
        It is called again with the newest rows until no other commit comes in between. ``replacing`` is a SQL condition
        on the rows to replace, by default all. Returns whether the rows were replaced. Raises UserrepError if every
        attempt was overtaken; the message names the ``subject``, by default the table, and commands to ``check`` it.
        """
        for _ in range(_ATTEMPTS):
            since = self.version(table)
            rows = changed(self.ledger(table, **equal))
            if rows is None:
                return False
            if self.add(table, rows, replacing=replacing, since=since):
                return True
            time.sleep(random.uniform(0, _LONGEST_PAUSE))
        advice = f"Check with {check}, and run the command again." if check else "Run the command again."
        raise UserrepError(f"{subject or table.name}: not changed, because other runs keep committing. {advice}")

    @abstractmethod
    def reserve(self, table: TableSchema, counter: str, *, first: int = 1) -> int:
        """Reserve the next number of a counter in the table's log, at least ``first``. A killed run leaves a gap."""

    @abstractmethod
    def append(
        self, rows: DataFrame, table: TableSchema, *, transaction: TransactionId | None = None, since: int | None = None
    ) -> bool:
        """Add rows as ``add`` does. A ``transaction`` that is not above its writer's last one is skipped, with True."""

    @abstractmethod
    def replace(self, rows: DataFrame, table: TableSchema, keys: Keys, *, since: int | None = None) -> None:
        """Replace all rows of some partitions in one commit. ``rows`` must not have rows of other partitions.

        Raises UserrepError if another run has changed these partitions since version ``since``, by default the newest.
        """

    @abstractmethod
    def drop_partitions(self, table: TableSchema, keys: Keys) -> None:
        """Delete all rows of some partitions in one commit, none without keys. Files stay until ``vacuum``."""

    # Upkeep

    @abstractmethod
    def compact(self, table: TableSchema, *, at_least: int) -> int:
        """Compact a ledger that has ``at_least`` files into one; return their number, or 0 if nothing was done."""

    @abstractmethod
    def compact_partitions(self, table: TableSchema, keys: Keys) -> bool:
        """Compact the small files of some partitions, by tasks; return False if another run was first.

        A partition ends as one file per 64 MB or more, so that neither a task nor a reader gets a file of any size.
        """

    @abstractmethod
    def vacuum(self, table: TableSchema, age: timedelta, *, keep: Sequence[int] = ()) -> None:
        """Delete the files that belong to no version of the last ``age``, nor to those in ``keep``. Cost: a listing.

        A run that is longer than ``age`` would lose files that it reads or is about to commit.
        """
