"""Where the tables live and how they are written: Delta, by path or by catalog, whole commits only."""

import json
import re
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow as pa
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from userrep.config import Config
from userrep.delta_files import DeltaFiles
from userrep.errors import UsageError, UserrepError, in_line
from userrep.failpoints import around
from userrep.schemas import PROPERTIES, TableSchema
from userrep.spark_writes import committing, reserve, was_overtaken, write_by_spark, write_since
from userrep.sql import sql_any
from userrep.storage import absolute, folder_names
from userrep.table_files import TableFile
from userrep.table_writer import Target
from userrep.task_writes import write_files

Keys = Sequence[Mapping[str, str | date | int]]  # partitions: each names the values of some partition columns
_ATTEMPTS = 20  # of a change, each on the newest rows
_FORMAT_KEY, FORMAT = "userrep.format", 1  # counted on where rows of the same columns come to mean something else
_BESIDE_SPARK = re.compile(r"s3a?://|abfss?://|gs://|(?!/dbfs/|/Volumes/|[a-z0-9+.-]+:/)")


class Tables:
    """The Delta tables below one root path, or in one schema of a catalog."""

    def __init__(
        self,
        spark: SparkSession | None,
        *,
        root: str | None = None,
        schema: str | None = None,
        start: Callable[[], SparkSession] | None = None,
        expected: bool = False,
    ) -> None:
        """Name the place of tables; nothing is looked at yet, and reading never creates any.

        ``start``: starts a session where there is none, as soon as something needs it; without it only what goes beside
        Spark can be done, and only with ``has_files``. ``expected``: there are tables; a place without any is refused
        by the first look.
        """
        if (root is None) == (schema is None):
            raise UsageError("say where tables live: root or schema, not both.")
        self._spark, self._start = spark, start
        self._root = absolute(re.sub(r"^file:/+", "/", root.rstrip("/"))) if root else None
        self._schema = schema
        self._known: set[str] = set()  # tables that are there, and as this release wants them
        self._expected = expected

    @classmethod
    def of(
        cls,
        config: Config,
        spark: SparkSession | None,
        *,
        start: Callable[[], SparkSession] | None = None,
        expected: bool = False,
    ) -> "Tables":
        """Name the tables of a configuration; ``start`` and ``expected`` as above."""
        if config.root is not None:
            return cls(spark, root=config.root, start=start, expected=expected)
        schema = f"`{config.catalog}`.`{config.schema_}`"
        return cls(spark, schema=schema, start=start, expected=expected)

    @property
    def spark(self) -> SparkSession:
        if self._spark is None and self._start is not None:
            self._spark = self._start()
        assert self._spark is not None, "these tables were opened without a session"
        return self._spark

    @property
    def artifacts_root(self) -> str:
        """The folder of artifacts beside the tables, as ``storage.artifacts_root`` has it of a configuration."""
        if self._root is not None:
            return self._root
        catalog, _, schema = (self._schema or "").replace("`", "").partition(".")
        return f"/Volumes/{catalog}/{schema}/userrep"

    @property
    def has_files(self) -> bool:
        """Say whether files may be read and committed beside Spark: below a root path where commits are atomic there.

        That is on disks and in the stores that pyarrow and delta-rs both know. What is in a catalog, on DBFS, in a
        volume or on HDFS is left to Spark.
        """
        return self._root is not None and bool(_BESIDE_SPARK.match(self._root))

    def shuffle_partitions(self) -> int:
        """Return how many tasks the session gives a shuffle."""
        wanted = self.spark.conf.get("spark.sql.shuffle.partitions", "200") or ""
        return int(wanted) if wanted.isdigit() else 200  # Databricks has "auto"

    def name(self, table: TableSchema) -> str:
        """Return the table's name in SQL."""
        if self._root is not None:
            return f"delta.`{self._root}/tables/{table.name}`"
        return f"{self._schema}.`{table.name}`"

    def uri(self, table: TableSchema) -> str:
        """Return the path of a table below the root."""
        return f"{self._root}/tables/{table.name}"

    def check_any(self) -> None:
        """Refuse a root or schema without any table. Cost: a listing.

        Raises
        ------
        UsageError
            If there is none: the place is mistyped, or nothing has been built yet.
        """
        if not (self._root or self.spark.catalog.databaseExists(self._schema or "")) or not self.stored(""):
            where = self._root or (self._schema or "").replace("`", "")
            raise UsageError(
                f"no userrep tables at {where}: name the place where they are, or let `userrep pipeline` build them."
            )

    def exists(self, table: TableSchema) -> bool:
        """Say whether the table is there. Nothing is created.

        Raises
        ------
        UsageError
            If it is there in another format, or with other columns: another release has written it. If there are no
            tables at all, but some were expected.
        UserrepError
            If it is there and cannot be read.
        """
        if table.name in self._known:
            return True
        if self.has_files:
            is_there = DeltaFiles(self.uri(table)).exists()
        elif self._root is not None:
            is_there = DeltaTable.isDeltaTable(self.spark, self.uri(table))
        else:
            is_there = self.spark.catalog.tableExists(self.name(table))
        if is_there:
            self._check_layout(table)
            self._known.add(table.name)
        elif self._expected:
            self.check_any()
        return is_there

    def create(self, table: TableSchema) -> None:
        """Create the table where it is not there yet. Raises what ``exists`` does."""
        if self.exists(table):
            return
        properties = PROPERTIES | {_FORMAT_KEY: str(FORMAT)} | dict(table.properties)
        if self.has_files:
            as_json = json.dumps(table.fields().jsonValue())
            DeltaFiles(self.uri(table)).create(as_json, table.partition_by, properties)
        else:
            self._create_by_spark(table, properties)
        self._check_layout(table)
        self._known.add(table.name)

    def _create_by_spark(self, table: TableSchema, properties: Mapping[str, str]) -> None:
        """Create a table, unless another run does so first: that takes a moment, and ends in errors of many kinds."""
        partitions = f"PARTITIONED BY ({', '.join(table.partition_by)})" if table.partition_by else ""
        listed = ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())
        create = f"CREATE TABLE IF NOT EXISTS {self.name(table)} ({table.columns}) USING delta {partitions}"
        for attempt in range(_ATTEMPTS):
            try:
                self.spark.sql(f"{create} TBLPROPERTIES ({listed})")
                return
            except Exception as error:
                if "[DELTA_" not in str(error) or attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.5)

    def _check_layout(self, table: TableSchema) -> None:
        """Refuse a table of another format, or with other columns."""
        if self.has_files:
            found, properties = DeltaFiles(self.uri(table)).layout()
        else:
            found = self.spark.sql(f"SELECT * FROM {self.name(table)}").columns
            shown = self.spark.sql(f"SHOW TBLPROPERTIES {self.name(table)}").collect()
            properties = {row.key: row.value for row in shown}
        if (other := properties.get(_FORMAT_KEY) or "1") != str(FORMAT):  # tables of an earlier state don't say
            raise UsageError(
                f"table {self.name(table)} is of format {in_line(other)}, this release reads {FORMAT}: a newer userrep "
                "has written it. Upgrade userrep, or choose another root."
            )
        wanted = table.fields().names
        if set(wanted) != set(found):
            raise UsageError(
                f"table {self.name(table)} has the columns {', '.join(found)}; this release wants "
                f"{', '.join(wanted)}. Another release wrote it: choose another root, or use that release."
            )

    def read(self, table: TableSchema, *, version: int | None = None) -> DataFrame:
        """Read a table, at a pinned version if one is given; an empty frame where it is not there."""
        if not self.exists(table):
            return self.spark.createDataFrame([], table.fields())
        at = f" VERSION AS OF {version}" if version is not None else ""
        return self.spark.sql(f"SELECT * FROM {self.name(table)}{at}")

    def version(self, table: TableSchema) -> int:
        """Return the newest version of the table. Cost: one look at the log.

        Of a table that is not there it is 0, which is empty in every table: a commit since 0 is the first one.
        """
        if not self.exists(table):
            return 0
        if self.has_files:
            return DeltaFiles(self.uri(table)).version()
        history = self.spark.sql(f"DESCRIBE HISTORY {self.name(table)} LIMIT 1")
        return int(history.select("version").first()[0])  # type: ignore[index]

    def num_bytes(self, table: TableSchema) -> int:
        """Return how many bytes the files have that the table consists of now. Cost: one look at the log."""
        if not self.exists(table):
            return 0
        if self.has_files:
            return sum(file.size for file in DeltaFiles(self.uri(table)).files())
        detail = self.spark.sql(f"DESCRIBE DETAIL {self.name(table)}")
        return int(detail.select("sizeInBytes").first()[0])  # type: ignore[index]

    def ledger(self, table: TableSchema, columns: Sequence[str] | None = None, **equal: str) -> list[Row]:
        """Read a table that is a ledger to the driver: the rows whose columns have the values of ``equal``.

        Times are naive, in UTC. Cost: milliseconds where files may be read beside Spark; driver memory: the rows.
        """
        if not self.exists(table):
            return []
        if self.has_files:
            return [Row(**row) for row in DeltaFiles(self.uri(table)).rows(columns, equal)]
        rows = self.read(table)
        for name, value in equal.items():
            rows = rows.where(F.col(name) == value)
        return rows.select(*columns).collect() if columns else rows.collect()

    def counts(self, table: TableSchema, columns: Sequence[str]) -> Mapping[tuple[Any, ...], int]:
        """Count the rows by the values of some columns. Cost: one read of these columns, without Spark below a root."""
        if not self.exists(table):
            return {}
        if self.has_files:
            return DeltaFiles(self.uri(table)).counts(columns)
        rows = self.read(table).groupBy(*columns).count().collect()
        return {tuple(row[name] for name in columns): row["count"] for row in rows}

    def stored_fields(self, table: TableSchema) -> StructType:
        """Return the columns that a table has, whatever this release wants."""
        if self.has_files:
            return DeltaFiles(self.uri(table)).fields()
        return self.spark.sql(f"SELECT * FROM {self.name(table)}").schema

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
        self.create(table)
        if self.has_files:
            files = DeltaFiles(self.uri(table))
            with committing(table):
                if replacing is None:
                    return files.append(rows, since=since)
                return files.replace(rows, replacing, since=since)
        frame = self.spark.createDataFrame([dict(row) for row in rows], self.read(table).schema)
        name, path = self.name(table), self._path(table)
        if since is not None:
            return write_since(frame, table, name=name, path=path, where=replacing, since=since)
        write_by_spark(frame, table, name=name, path=path, where=replacing)
        return True

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

    def reserve(self, table: TableSchema, counter: str, *, first: int = 1) -> int:
        """Reserve the next number of a counter in the table's log, at least ``first``. Each number is given out once.

        A killed run leaves a gap. Cost: one commit.
        """
        self.create(table)
        if self.has_files:
            with around(f"reserve:{table.name}"):
                return DeltaFiles(self.uri(table)).reserve(counter, first=first)
        nothing = self.spark.createDataFrame([], self.read(table).schema)
        return reserve(nothing, table, name=self.name(table), path=self._path(table), counter=counter, first=first)

    def exchange(self, table: TableSchema, rows: Sequence[Mapping[str, Any]], *, since: str | None) -> bool:
        """Put rows in the place of all that a small table holds, unless it has changed: compare and swap, one commit.

        ``table`` has a column ``change_id``, which this method fills: a new id at each change, the same in all rows.
        ``since``: the one that ``rows`` were made from, None of an empty table. Returns False, and has changed nothing,
        if it is not the newest any more. Cost: milliseconds where the table has files of its own.
        """
        self.create(table)
        change_id = uuid.uuid4().hex
        changed = [{**row, "change_id": change_id} for row in rows]
        if self.has_files:
            with committing(table):
                return DeltaFiles(self.uri(table)).exchange(changed, since=since)
        name, was = self.name(table), "NULL" if since is None else f"'{since}'"
        # Delta reads source and target at one version, and refuses the commit if another one has come since then.
        try:
            done = self.spark.sql(
                f"MERGE INTO {name} AS t "
                f"USING (SELECT * FROM {{new}} WHERE (SELECT max(change_id) FROM {name}) <=> {was}) AS s ON false "
                f"WHEN NOT MATCHED THEN INSERT * WHEN NOT MATCHED BY SOURCE AND t.change_id = {was} THEN DELETE",
                new=self.spark.createDataFrame(changed, self.read(table).schema),
            ).first()
        except Exception as error:
            if not was_overtaken(error):
                raise
            return False
        return bool(done and done.num_affected_rows)

    def files(
        self, table: TableSchema, keeps: Callable[[dict[str, Any]], bool], *, version: int | None = None
    ) -> list[TableFile]:
        """List the files of the partitions that ``keeps`` says yes to, given the values of their columns.

        Only where the tables have files of their own. Driver memory: one entry for each file of the table.
        """
        if not self.exists(table):
            return []
        return [file for file in DeltaFiles(self.uri(table)).files(version) if keeps(file.values)]

    def target(self, table: TableSchema) -> Target:
        """Say how tasks write files of a table. Only where the tables have files of their own."""
        self.create(table)
        whole = DeltaFiles(self.uri(table)).schema()
        fields = [field for field in whole if field.name not in table.partition_by]
        return Target(self.uri(table), pa.schema(fields), table.partition_by, table.properties)

    def commit(
        self,
        table: TableSchema,
        written: Sequence[TableFile],
        *,
        replacing: Callable[[dict[str, Any]], bool],
        since: int,
    ) -> None:
        """Put files that tasks have written in the place of all files of some partitions, in one commit.

        ``since``: the table's version when the work began. Raises UserrepError if these partitions have changed since.
        """
        with committing(table):
            DeltaFiles(self.uri(table)).swap(written, replacing, since=since)

    def add_files(
        self, table: TableSchema, written: Sequence[TableFile], *, transaction: tuple[str, int] | None = None
    ) -> None:
        """Add files that tasks have written, in one commit.

        ``transaction``: of whom, and the number of it, which ``last_transaction`` tells from then on. Only where the
        tables have files of their own. No file, no commit.
        """
        files = DeltaFiles(self.uri(table))
        with committing(table):
            if transaction is None:
                files.add_files(written)
            else:
                files.add_transaction(written, transaction)

    def rewrite(self, table: TableSchema, pairs: Sequence[tuple[TableFile, TableFile | None]]) -> bool:
        """Put a new file, or none, in the place of each of some files, in one commit; False: some had gone meanwhile.

        What another run did to those stays. Only where the tables have files of their own.
        """
        with committing(table):
            return DeltaFiles(self.uri(table)).rewrite(pairs)

    def stored(self, prefix: str) -> list[str]:
        """List the names of the tables that begin with ``prefix``."""
        if self._root is not None:
            names = folder_names(f"{self._root}/tables")
        else:
            names = [row.tableName for row in self.spark.sql(f"SHOW TABLES IN {self._schema}").collect()]
        return [name for name in names if name.startswith(prefix)]

    def drop_partitions(self, table: TableSchema, keys: Keys) -> None:
        """Delete all rows of some partitions in one commit; none, no commit. Files stay until VACUUM."""
        if not self.exists(table):
            return
        if self.has_files:
            self.commit(table, [], replacing=matches(keys), since=self.version(table))
        elif keys:
            self.spark.sql(f"DELETE FROM {self.name(table)} WHERE {sql_any(keys)}")

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
        self.create(table)
        name, path = self.name(table), self._path(table)
        if self.has_files:
            files = DeltaFiles(self.uri(table))
            with committing(table):
                written = write_files(rows, self.target(table))
                if transaction is None:
                    return files.add_files(written, since=since)
                files.add_transaction(written, transaction)
        elif since is not None:
            return write_since(rows, table, name=name, path=path, since=since)
        else:
            write_by_spark(rows, table, name=name, path=path, transaction=transaction)
        return True

    def last_transaction(self, table: TableSchema, writer: str) -> int | None:
        """Return the number of a writer's last transaction; None: it has none. Cost: one look at the log.

        Only where the tables have files of their own.
        """
        return DeltaFiles(self.uri(table)).last_transaction(writer) if self.exists(table) else None

    def replace(self, rows: DataFrame, table: TableSchema, keys: Keys, *, since: int | None = None) -> None:
        """Replace all rows of some partitions in one commit. Rows of other partitions must not be among ``rows``.

        ``since``: the version of the table that ``rows`` were made from; by default the newest.

        Raises
        ------
        UserrepError
            If another run has changed these partitions since then: ``rows`` may depend on what it has changed.
        """
        self.create(table)
        if self.has_files:
            with committing(table):
                since = self.version(table) if since is None else since
                written = write_files(rows, self.target(table))
                return DeltaFiles(self.uri(table)).swap(written, matches(keys), since=since)
        return write_by_spark(rows, table, name=self.name(table), path=self._path(table), where=sql_any(keys))

    def _path(self, table: TableSchema) -> str | None:
        return None if self._root is None else self.uri(table)


def matches(keys: Keys) -> Callable[[dict[str, Any]], bool]:
    """Return the predicate of partition values that match one of ``keys``. Its cost does not grow with their number."""
    wanted: dict[tuple[str, ...], set[tuple[Any, ...]]] = defaultdict(set)  # values, by the columns that keys name
    for key in keys:
        wanted[tuple(key)].add(tuple(key.values()))
    return lambda of: any(tuple(of[name] for name in names) in values for names, values in wanted.items())
