"""What all kinds of tables can do: ledgers, partitions, and changes that are one commit or none."""

import re
import uuid
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql.types import StructType

from userrep.errors import UsageError, UserrepError, in_line
from userrep.failpoints import around
from userrep.store.schemas import ALL, PROPERTIES, TableSchema
from userrep.store.storage import absolute

Keys = Sequence[Mapping[str, str | date | int]]  # partitions: each names the values of some partition columns
RETENTION = timedelta(days=7)  # Delta's default: older versions of a table can be read that long
_ATTEMPTS = 20  # to change a ledger, each time from its newest rows
FORMAT_KEY, FORMAT = "userrep.format", 1  # raised when the same columns come to mean something else


class Partition(NamedTuple):
    """What a partition of a table holds. ``written_at``: when the newest of its files was written (naive, UTC)."""

    num_files: int
    num_rows: int
    written_at: datetime


class Tables(ABC):
    """The Delta tables of one installation.

    Nothing is looked at before the first call, and reading creates nothing. The two kinds are ``FileTables``, whose
    files this package reads and commits itself, and ``SparkTables``, which leave everything to Spark. Both have the
    same rows, to the bit.
    """

    def __init__(
        self,
        spark: SparkSession | None,
        *,
        start: Callable[[], SparkSession] | None = None,
        expected: bool = False,
    ) -> None:
        """``start`` starts a session once something needs it; without ``spark`` and ``start``, nothing may.

        ``expected``: there are tables; the first look refuses a place without any.
        """
        self._spark, self._start, self._expected = spark, start, expected
        self._known: set[str] = set()  # tables that exist, in the layout of this release

    @property
    def spark(self) -> SparkSession:
        if self._spark is None and self._start is not None:
            self._spark = self._start()
        assert self._spark is not None, "these tables were opened without a session"
        return self._spark

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the tables are, for messages: the root, or the catalog's schema."""

    @property
    @abstractmethod
    def artifacts_root(self) -> str:
        """The folder of what is not in tables: models, leases, checkpoints."""

    @abstractmethod
    def name(self, table: TableSchema) -> str:
        """Return the table's name in SQL."""

    @abstractmethod
    def stored(self, prefix: str) -> list[str]:
        """List the names of the tables that begin with ``prefix``."""

    def check_any(self) -> None:
        """Refuse a place without any table. Cost: a listing.

        Raises
        ------
        UsageError
            If there is none: the place is mistyped, or nothing has been built yet.
        """
        self._own()

    def _own(self) -> list[TableSchema]:
        """Return the tables of ``ALL`` that are stored. Raises UsageError if there is none."""
        stored = set(self.stored(""))
        if own := [table for table in ALL if table.name in stored]:
            return own
        raise UsageError(
            f"no userrep tables at {self.place}: name the place where they are, or let `userrep pipeline` build them."
        )

    @abstractmethod
    def check_before_spark(self) -> None:
        """As ``check_any``, where that needs no session."""

    def exists(self, table: TableSchema) -> bool:
        """Return whether the table exists. Nothing is created.

        Raises
        ------
        UsageError
            If it exists in another format or with other columns, written by another release. If there are no tables
            at all, although some were expected.
        UserrepError
            If it exists and cannot be read.
        """
        if table.name in self._known:
            return True
        if self._is_there(table):
            self._check_layout(table)
            self._known.add(table.name)
            return True
        if self._expected:
            self.check_any()
        return False

    def create(self, table: TableSchema) -> None:
        """Create the table unless it exists. Raises what ``exists`` does."""
        if self.exists(table):
            return
        self._create(table, PROPERTIES | {FORMAT_KEY: str(FORMAT)} | dict(table.properties))
        self._check_layout(table)
        self._known.add(table.name)

    def _check_layout(self, table: TableSchema) -> None:
        """Refuse a table of another format, or with other columns."""
        found, properties = self._layout(table)
        if (other := properties.get(FORMAT_KEY) or "none") != str(FORMAT):
            raise UsageError(
                f"table {self.name(table)} is of format {in_line(other)}, this release reads {FORMAT}: another "
                "release has written it. Use that release, or choose another root."
            )
        wanted = table.fields().names
        if set(wanted) != set(found):
            raise UsageError(
                f"table {self.name(table)} has the columns {', '.join(found)}; this release wants "
                f"{', '.join(wanted)}. Another release wrote it: choose another root, or use that release."
            )

    @abstractmethod
    def _is_there(self, table: TableSchema) -> bool: ...

    @abstractmethod
    def _create(self, table: TableSchema, properties: Mapping[str, str]) -> None:
        """Create a table, unless another run does so first."""

    @abstractmethod
    def _layout(self, table: TableSchema) -> tuple[list[str], Mapping[str, str | None]]:
        """Return the columns and properties of a table that exists."""

    # Reading

    def read(self, table: TableSchema, *, version: int | None = None) -> DataFrame:
        """Read a table, at a version if one is given; an empty frame if it does not exist."""
        if not self.exists(table):
            return self.spark.createDataFrame([], table.fields())
        at = f" VERSION AS OF {version}" if version is not None else ""
        return self.spark.sql(f"SELECT * FROM {self.name(table)}{at}")

    @abstractmethod
    def version(self, table: TableSchema) -> int:
        """Return the newest version of the table. Cost: one look at the log.

        Of a table that does not exist it is 0, which is empty in every table: a commit since 0 is the first one.
        """

    @abstractmethod
    def fields(self, table: TableSchema) -> StructType:
        """Return the columns of a table that exists, whatever this release wants."""

    @abstractmethod
    def num_bytes(self, table: TableSchema) -> int:
        """Return the size of the files that the table now consists of. Cost: one look at the log."""

    @abstractmethod
    def ledger(self, table: TableSchema, columns: Sequence[str] | None = None, **equal: str) -> list[Row]:
        """Read a small table to the driver: the rows whose columns have the values of ``equal``.

        Times are naive, in UTC. Driver memory: the rows.
        """

    @abstractmethod
    def counts(self, table: TableSchema, columns: Sequence[str]) -> Mapping[tuple[Any, ...], int]:
        """Count the rows by the values of some columns. Cost: one read of these columns."""

    @abstractmethod
    def partitions(self, table: TableSchema) -> dict[tuple[Any, ...], Partition]:
        """Describe each partition, by the values of the table's partition columns.

        Cost: one look at the log, or a count by Spark. Driver memory: one entry for each file or partition.
        """

    # Small changes, from the driver

    @abstractmethod
    def add(
        self,
        table: TableSchema,
        rows: Sequence[Mapping[str, Any]],
        *,
        replacing: str | None = None,
        since: int | None = None,
    ) -> bool:
        """Add rows to a ledger in one commit. Times are UTC.

        ``replacing``: a condition on the rows to remove in the same commit; the new rows must match it too. ``since``:
        the version that the rows are based on; if another run has added rows since then, these are not added
        (compare-and-swap). Returns whether the rows were added.
        """

    def change(
        self,
        table: TableSchema,
        rows: Sequence[Mapping[str, Any]],
        *,
        replacing: str,
        only_if: Callable[[list[Row]], bool],
        **equal: str,
    ) -> bool:
        """Replace rows of a ledger in one commit, if ``only_if`` still holds of its rows whose columns are ``equal``.

        Commits of other rows in between are no obstacle. Returns whether the rows were replaced.

        Raises
        ------
        UserrepError
            If other commits always come first.
        """
        for _ in range(_ATTEMPTS):
            since = self.version(table)
            if not only_if(self.ledger(table, **equal)):
                return False
            if self.add(table, rows, replacing=replacing, since=since):
                return True
        raise UserrepError(f"{table.name}: other runs keep on committing. Run the command again.")

    @abstractmethod
    def reserve(self, table: TableSchema, counter: str, *, first: int = 1) -> int:
        """Reserve the next number of a counter in the table's log, at least ``first``. Each number is given out once.

        A killed run leaves a gap. Cost: one commit.
        """

    def exchange(self, table: TableSchema, rows: Sequence[Mapping[str, Any]], *, since: str | None) -> bool:
        """Replace all rows of a small table in one commit, unless it has changed (compare-and-swap).

        ``table`` has a column ``change_id``, which this method fills: a new id at each change, the same in all rows.
        ``since``: the one that ``rows`` are based on; None for an empty table. Returns False, and changes nothing, if
        it is not the newest any more.
        """
        self.create(table)
        change_id = uuid.uuid4().hex
        return self._exchange(table, [{**row, "change_id": change_id} for row in rows], since)

    @abstractmethod
    def _exchange(self, table: TableSchema, rows: Sequence[dict[str, Any]], since: str | None) -> bool:
        """Replace all rows of a table that exists if ``since`` is still its ``change_id``."""

    # Large changes, by tasks

    @abstractmethod
    def append(
        self,
        rows: DataFrame,
        table: TableSchema,
        *,
        transaction: tuple[str, int] | None = None,
        since: int | None = None,
    ) -> bool:
        """Add rows in one commit.

        ``transaction``: the writer's name and the number of its transaction. A number that is not above the writer's
        last one was already written and is skipped. ``since``: as for ``add``. Returns whether the rows were added; a
        skipped transaction counts as added.
        """

    @abstractmethod
    def replace(self, rows: DataFrame, table: TableSchema, keys: Keys, *, since: int | None = None) -> None:
        """Replace all rows of some partitions in one commit. Rows of other partitions must not be among ``rows``.

        ``since``: the version of the table that ``rows`` were made from; by default the newest.

        Raises
        ------
        UserrepError
            If another run has changed these partitions since then: ``rows`` may depend on what it has changed.
        """

    @abstractmethod
    def drop_partitions(self, table: TableSchema, keys: Keys) -> None:
        """Delete all rows of some partitions in one commit; no keys, no commit. Files stay until ``vacuum``."""

    # Upkeep

    @abstractmethod
    def compact(self, table: TableSchema, *, at_least: int) -> int:
        """Join the files of a ledger into one if there are ``at_least`` so many; return how many there were.

        Returns 0 if nothing was done, also because another run has committed at the same time. Cost: one read and
        write of the ledger.
        """

    @abstractmethod
    def compact_partitions(self, table: TableSchema, keys: Keys) -> bool:
        """Join the small files of some partitions; return False if another run has come first.

        Cost: one read and write of these partitions, by tasks.
        """

    @abstractmethod
    def vacuum(self, table: TableSchema, age: timedelta, *, keep: Sequence[int] = ()) -> None:
        """Delete the files that no version of the last ``age`` has. Cost: a listing of the table's folder.

        ``keep``: versions that stay readable. An ``age`` shorter than the longest run deletes files that the run is
        about to commit, or is reading.
        """


def committing(table: TableSchema) -> AbstractContextManager[None]:
    """Pass the failpoints around a commit to a table."""
    return around(f"commit:{table.name}")


def matches(keys: Keys) -> Callable[[dict[str, Any]], bool]:
    """Return the predicate of partition values that match one of ``keys``. Its cost does not grow with their number."""
    wanted: dict[tuple[str, ...], set[tuple[Any, ...]]] = defaultdict(set)  # values, by the columns that keys name
    for key in keys:
        wanted[tuple(key)].add(tuple(key.values()))
    return lambda of: any(tuple(of[name] for name in names) in values for names, values in wanted.items())


def root_path(root: str) -> str:
    """Return a root as an absolute path or a URI, without a slash at its end."""
    return absolute(re.sub(r"^file:/+", "/", root.rstrip("/")))
