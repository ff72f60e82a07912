"""Tables below a root whose files tasks write with pyarrow and the driver commits with delta-rs, without Spark."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from userrep.errors import UserrepError, cause_outside, in_one_line
from userrep.failpoints import around
from userrep.spark.paths import not_a_pattern
from userrep.store.data_dictionary import described
from userrep.store.data_files import TableFile, arrow_schema, dataset_of, files_of, in_folders, matches, spark_schema
from userrep.store.delta_commits import DeltaCommits, Files
from userrep.store.filesystem import folder_names, root_path, with_retries
from userrep.store.parquet_writer import Target
from userrep.store.rows import arrow_rows
from userrep.store.schemas import REGISTRY, TableSchema
from userrep.store.table_formats import check_features
from userrep.store.tables import Keys, PartitionFilter, PartitionStatistics, Rows, Session, Tables, TransactionId

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import DataFrame, Row
    from pyspark.sql.types import StructType

_MOST_PATHS = 1000
_RESTORE_SEARCH = 1000  # newest commits that are searched for a RESTORE


class FileTables(Tables):
    """Tables on a disk or in an object store that pyarrow and delta-rs support and on which commits are atomic.

    Reads and commits of ledgers take milliseconds and need no Spark session.
    """

    def __init__(self, session: Session, root: str, *, expected: bool = False) -> None:
        super().__init__(session, expected=expected)
        self._root = root_path(root)

    @property
    def artifacts_root(self) -> str:
        return self._root

    def name(self, table: TableSchema) -> str:
        return f"delta.`{self.uri(table)}`"

    def uri(self, table: TableSchema) -> str:
        """Return the path or URI of a table."""
        return f"{self._root}/tables/{table.name}"

    def stored(self) -> list[str]:
        return folder_names(f"{self._root}/tables")

    def check_before_spark(self) -> None:
        if self._expected:
            self.exists(REGISTRY)

    def _create(self, table: TableSchema, properties: Mapping[str, str]) -> None:
        self.commits(table).create(described(table).json(), table.partition_by, properties)

    def _layout(self, table: TableSchema) -> tuple[list[str], Mapping[str, str | None]] | None:
        uri = self.uri(table)
        try:
            loaded = DeltaTable(uri)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            if cause := cause_outside(error):
                raise UserrepError(cause) from None
            if isinstance(error, OSError):
                raise
            raise UserrepError(
                f"table {uri} is not readable ({in_one_line(error)}). Restore it from a backup. If another program has "
                "enabled a newer Delta feature, disable that feature or upgrade userrep."
            ) from None
        properties = loaded.metadata().configuration
        check_features(uri, loaded.protocol().reader_features or [], properties)
        return [field.name for field in loaded.schema().fields], properties

    def commits(self, table: TableSchema) -> DeltaCommits:
        """Return the commits of a table."""
        return DeltaCommits(self.uri(table))

    def _loaded(self, table: TableSchema, version: int | None = None) -> DeltaTable:
        return DeltaTable(self.uri(table), version=version)

    # Reading

    def _rows(self, table: TableSchema, keys: Keys | None, version: int | None) -> DataFrame:
        """Read up to ``_MOST_PATHS`` files as plain Parquet, without Delta's Spark jobs that find them in the log.

        These jobs take about a second. Above 32 paths, Spark runs a short job of its own, which looks at each file.
        ``DataFrame.to`` would also give the columns their order and comments, but it rebuilds every array.
        """
        loaded = self._loaded(table, version)
        is_wanted, fields = matches([{}] if keys is None else keys), spark_schema(loaded)
        files = [file for file in files_of(loaded, self.uri(table)) if is_wanted(file.values)]
        if not files:
            return self.spark.createDataFrame([], fields)
        if len(files) > _MOST_PATHS or not all(in_folders(file, table.partition_by) for file in files):
            return super()._rows(table, keys, loaded.version())
        reader = self.spark.read.schema(fields).option("basePath", self.uri(table))
        rows = reader.parquet(*(not_a_pattern(file.uri) for file in files))
        return rows.select(*(rows[field.name].alias(field.name, metadata=field.metadata) for field in fields))

    def version(self, table: TableSchema) -> int:
        return self._loaded(table).version() if self.exists(table) else 0

    def fields(self, table: TableSchema) -> StructType:
        return spark_schema(self._loaded(table))

    def num_bytes(self, table: TableSchema) -> int:
        return sum(file.size for file in files_of(self._loaded(table))) if self._is_stored(table) else 0

    def ledger(self, table: TableSchema, columns: Sequence[str] | None = None, **equal: str) -> list[Row]:
        if not self.exists(table):
            return []
        dataset = dataset_of(self.uri(table))
        matching = pq.filters_to_expression([(name, "=", value) for name, value in equal.items()]) if equal else None
        return arrow_rows(with_retries(lambda: dataset.to_table(columns=columns and list(columns), filter=matching)))

    def counts(self, table: TableSchema, columns: Sequence[str]) -> Mapping[tuple[Any, ...], int]:
        counts: Counter[tuple[Any, ...]] = Counter()
        for batch in dataset_of(self.uri(table)).to_batches(columns=list(columns)) if self.exists(table) else ():
            groups = pa.Table.from_batches([batch]).group_by(list(columns)).aggregate([([], "count_all")])
            for row in groups.to_pylist():
                counts[tuple(row[name] for name in columns)] += row["count_all"]
        return counts

    def partitions(self, table: TableSchema) -> dict[tuple[Any, ...], PartitionStatistics]:
        files: dict[tuple[Any, ...], list[TableFile]] = defaultdict(list)
        for file in self.files(table):
            files[tuple(file.values[name] for name in table.partition_by)].append(file)
        return {key: _partition(partition_files) for key, partition_files in files.items()}

    def files(
        self, table: TableSchema, keeps: PartitionFilter = lambda _: True, *, version: int | None = None
    ) -> list[TableFile]:
        """Return the files, by default of the newest version, whose partition values ``keeps`` accepts.

        Driver memory: one entry per file of the table.
        """
        if not self.exists(table):
            return []
        return [file for file in files_of(self._loaded(table, version), self.uri(table)) if keeps(file.values)]

    def has_version(self, table: TableSchema, version: int) -> bool:
        """Return whether a version can still be read; Delta cleans its log after 30 days."""
        try:
            self._loaded(table, version)
        except DeltaError:
            self._loaded(table)  # raises if it is the store that cannot be read
            return False
        return True

    def was_restored(self, table: TableSchema, since: datetime) -> bool:
        """Return whether a table was restored to an earlier version since a time (naive UTC).

        Restored files keep their old timestamps, so only the history shows it. Cost: a read of the commits since then.
        """
        loaded, since_ms, most = self._loaded(table), since.replace(tzinfo=UTC).timestamp() * 1000, _RESTORE_SEARCH
        while True:
            commits = loaded.history(most)
            recent = [commit for commit in commits if commit["timestamp"] >= since_ms]
            if any(commit["operation"] == "RESTORE" for commit in recent):
                return True
            if len(recent) < most:  # the search has reached the time, or the start of the log
                return False
            most *= 10

    def last_transaction(self, table: TableSchema, writer: str) -> int | None:
        """Return the number of a writer's last transaction, or None. Cost: one read of the log."""
        return self._loaded(table).transaction_version(writer) if self.exists(table) else None

    # Small changes, from the driver

    def add(self, table: TableSchema, rows: Rows, *, replacing: str | None = None, since: int | None = None) -> bool:
        self.create(table)
        return self.commits(table).add_rows(rows, replacing=replacing, since=since)

    def reserve(self, table: TableSchema, counter: str, *, first: int = 1) -> int:
        self.create(table)
        return self.commits(table).reserve(counter, first=first)

    # Large changes, by tasks

    def target(self, table: TableSchema) -> Target:
        """Return what tasks need to write files of a table. Creates the table unless it exists."""
        self.create(table)
        fields = [field for field in arrow_schema(self._loaded(table)) if field.name not in table.partition_by]
        return Target(self.uri(table), pa.schema(fields), table.partition_by, table.properties)

    def commit(self, table: TableSchema, written: Files, *, replacing: PartitionFilter, since: int) -> None:
        """Replace all files of some partitions by files that tasks have written, in one commit.

        ``replacing`` is a predicate on partition values. ``since`` is the table's version when the work began. Raises
        UserrepError if these partitions have changed since then.
        """
        self.commits(table).swap(written, replacing, since=since)

    def add_files(self, table: TableSchema, written: Files, *, transaction: TransactionId | None = None) -> None:
        """Add files that tasks have written, if any, in one commit. ``transaction`` is that of ``append``."""
        self.commits(table).add_files(written, transaction=transaction)

    def append(
        self, rows: DataFrame, table: TableSchema, *, transaction: TransactionId | None = None, since: int | None = None
    ) -> bool:
        from userrep.store.task_writes import write_files

        written = write_files(rows, self.target(table))
        return self.commits(table).add_files(written, since=since, transaction=transaction)

    def replace(self, rows: DataFrame, table: TableSchema, keys: Keys, *, since: int | None = None) -> None:
        from userrep.store.task_writes import write_files

        since = self.version(table) if since is None else since
        self.commit(table, write_files(rows, self.target(table)), replacing=matches(keys), since=since)

    def drop_partitions(self, table: TableSchema, keys: Keys) -> None:
        if self.exists(table):
            self.commit(table, [], replacing=matches(keys), since=self.version(table))

    # Upkeep

    def compact(self, table: TableSchema, *, at_least: int) -> int:
        num_files = len(self.files(table))
        if num_files < at_least:
            return 0
        with around(f"join:{table.name}"):
            try:
                self._loaded(table).optimize.compact()
            except CommitFailedError:
                return 0
        return num_files

    def compact_partitions(self, table: TableSchema, keys: Keys) -> bool:
        since = self.version(table)
        # Spark gives a task what makes a file of some 64 MB, so a large partition stays several files.
        rows = self.read(table, keys, version=since).hint("rebalance", *table.partition_by)
        try:
            with around(f"join:{table.name}"):
                self.replace(rows, table, keys, since=since)
        except UserrepError:
            return False
        return True

    def vacuum(self, table: TableSchema, age: timedelta, *, keep: Sequence[int] = ()) -> None:
        if self.exists(table):
            hours, kept = int(age.total_seconds() // 3600), [n for n in keep if self.has_version(table, n)]
            with around(f"vacuum:{table.name}"):
                self._loaded(table).vacuum(
                    hours, dry_run=False, enforce_retention_duration=False, full=True, keep_versions=kept
                )


def _partition(files: Sequence[TableFile]) -> PartitionStatistics:
    newest = datetime.fromtimestamp(max(file.added_at for file in files) / 1000, UTC).replace(tzinfo=None)
    return PartitionStatistics(len(files), sum(file.num_rows for file in files), newest)
