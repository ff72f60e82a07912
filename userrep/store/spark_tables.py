"""Tables that only Spark reads and writes: in a catalog, or below a root without safe commits outside Spark."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from userrep.errors import UsageError, UserrepError, changed_meanwhile, first_line
from userrep.failpoints import around
from userrep.store.data_dictionary import described
from userrep.store.filesystem import folder_names, root_path
from userrep.store.rows import arrow_rows
from userrep.store.schemas import TableSchema
from userrep.store.spark_commits import SparkCommits, conflicts
from userrep.store.sql import sql_any, sql_name
from userrep.store.tables import Keys, PartitionStatistics, Rows, Session, Tables, TransactionId

_ATTEMPTS = 20  # to create a table, or to reserve a number
_ARTIFACTS_KEY = "userrep.artifacts"  # table property with the artifacts folder, for consumers without it


class SparkTables(Tables):
    """Tables in a schema of a catalog (Unity Catalog, a Hive metastore), or on DBFS, in a volume or on HDFS."""

    def __init__(
        self, session: Session, *, artifacts: str | None = None, schema: str | None = None, expected: bool = False
    ) -> None:
        """Open tables in a SQL ``schema`` (with its catalog) or, without one, below the root ``artifacts``.

        Without ``artifacts``, the folder is read from the tables' properties. A run that creates tables must pass it.
        """
        assert artifacts or schema
        super().__init__(session, expected=expected)
        self._artifacts, self._schema = root_path(artifacts) if artifacts else None, schema

    @property
    def location(self) -> str:
        return super().location if self._schema is None else self._schema.replace("`", "")

    @property
    def artifacts_root(self) -> str:
        if self._artifacts is None:
            any_name = self.name(self.check_any()[0])
            self._artifacts = self._properties(any_name)[_ARTIFACTS_KEY]
        return self._artifacts

    def name(self, table: TableSchema) -> str:
        return f"delta.`{self._path(table)}`" if self._schema is None else f"{self._schema}.`{table.name}`"

    def _path(self, table: TableSchema) -> str:
        return f"{self.artifacts_root}/tables/{table.name}"

    def stored(self) -> list[str]:
        if self._schema is None:
            return folder_names(f"{self.artifacts_root}/tables")
        if not self.spark.catalog.databaseExists(self._schema):
            return []
        rows = self.spark.sql(f"SHOW TABLES IN {self._schema}").collect()
        return [row.tableName for row in rows if not row.isTemporary]  # temporary views are in every schema

    def _create(self, table: TableSchema, properties: Mapping[str, str]) -> None:
        partitions = f"PARTITIONED BY ({', '.join(table.partition_by)})" if table.partition_by else ""
        if self._schema is not None and not self.spark.catalog.databaseExists(self._schema):
            self._create_schema()
        properties = {**properties, _ARTIFACTS_KEY: self.artifacts_root}
        settings = ", ".join(f"'{key}' = {_literal(value)}" for key, value in properties.items())
        columns = ", ".join(map(_column_ddl, described(table)))
        create = f"CREATE TABLE IF NOT EXISTS {self.name(table)} ({columns}) USING delta {partitions}"
        for attempt in range(_ATTEMPTS):
            try:
                self.spark.sql(f"{create} TBLPROPERTIES ({settings})")
                return
            except Exception as error:  # another run may be creating it, which fails in many ways
                if "[DELTA_" not in str(error) or attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.5)

    def _create_schema(self) -> None:
        try:
            self.spark.sql(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
        except AnalysisException as error:
            raise UsageError(
                f"{self.location}: the schema cannot be created ({first_line(error)}). Check catalog and schema, and "
                "the permissions of this user."
            ) from None

    def keep_view(self, name: str, query: str) -> None:
        if self._schema is not None:
            self.spark.sql(f"CREATE VIEW IF NOT EXISTS {self._schema}.{sql_name(name)} AS {query}")

    def _layout(self, table: TableSchema) -> tuple[list[str], Mapping[str, str | None]] | None:
        if self._schema is None:
            is_there = DeltaTable.isDeltaTable(self.spark, self._path(table))
        else:
            catalog = self.spark.catalog  # which raises an error for a table of a catalog that does not exist
            is_there = catalog.databaseExists(self._schema) and catalog.tableExists(self.name(table))
        if not is_there:
            return None
        return self.fields(table).names, self._properties(self.name(table))

    def _properties(self, name: str) -> dict[str, str]:
        return {row.key: row.value for row in self.spark.sql(f"SHOW TBLPROPERTIES {name}").collect()}

    # Reading

    def version(self, table: TableSchema) -> int:
        if not self.exists(table):
            return 0
        return int(self._first(f"DESCRIBE HISTORY {self.name(table)} LIMIT 1").version)

    def fields(self, table: TableSchema) -> StructType:
        return self.spark.sql(f"SELECT * FROM {self.name(table)}").schema

    def num_bytes(self, table: TableSchema) -> int:
        return int(self._first(f"DESCRIBE DETAIL {self.name(table)}").sizeInBytes) if self._is_stored(table) else 0

    def ledger(self, table: TableSchema, columns: Sequence[str] | None = None, **equal: str) -> list[Row]:
        rows = self.read(table)
        for name, value in equal.items():
            rows = rows.where(F.col(name) == value)
        return arrow_rows((rows.select(*columns) if columns else rows).toArrow())

    def counts(self, table: TableSchema, columns: Sequence[str]) -> Mapping[tuple[Any, ...], int]:
        rows = self.read(table).groupBy(*columns).count().collect()
        return {tuple(row[name] for name in columns): row["count"] for row in rows}

    def partitions(self, table: TableSchema) -> dict[tuple[Any, ...], PartitionStatistics]:
        if not self.exists(table):
            return {}
        statistics = (
            F.count_distinct("_metadata.file_path").alias("num_files"),
            F.count("*").alias("num_rows"),
            F.max("_metadata.file_modification_time").alias("written_at"),
        )
        rows, num_keys = self.read(table).groupBy(*table.partition_by).agg(*statistics), len(table.partition_by)
        return {row[:num_keys]: PartitionStatistics(*row[num_keys:]) for row in arrow_rows(rows.toArrow())}

    def _commits(self, table: TableSchema) -> SparkCommits:
        path = self._path(table) if self._schema is None else None
        return SparkCommits(self.spark, table, self.name(table), path)

    def _first(self, query: str) -> Any:
        return self.spark.sql(query).first()

    # Small changes, from the driver

    def add(self, table: TableSchema, rows: Rows, *, replacing: str | None = None, since: int | None = None) -> bool:
        self.create(table)
        frame = self.spark.createDataFrame([_in_utc(row) for row in rows], self.read(table).schema)
        frame = frame.coalesce(1)  # one file, which keeps the order of the rows
        if since is not None:
            return self._commits(table).add_onto(since, frame, replacing or "false")
        self._commits(table).write(frame, where=replacing)
        return True

    def reserve(self, table: TableSchema, counter: str, *, first: int = 1) -> int:
        self.create(table)
        no_rows = self.spark.createDataFrame([], self.read(table).schema)
        commits, number = self._commits(table), first
        for attempt in range(_ATTEMPTS):
            if commits.write_once(no_rows, (counter, number)):
                return number
            last = commits.last_number(counter)  # of failed builds, too, which no ledger has
            number = last + 1 if last >= number else number + 2**attempt  # the history may no longer have it
        raise UserrepError(f"{self.name(table)}: other runs keep committing. Run the command again.")

    # Large changes, by tasks

    def append(
        self, rows: DataFrame, table: TableSchema, *, transaction: TransactionId | None = None, since: int | None = None
    ) -> bool:
        self.create(table)
        if since is not None:
            return self._commits(table).write_onto(since, rows)
        self._commits(table).write(rows, transaction=transaction)
        return True

    def replace(self, rows: DataFrame, table: TableSchema, keys: Keys, *, since: int | None = None) -> None:
        self.create(table)
        if since is None:
            self._commits(table).write(rows, where=sql_any(keys))
        elif not self._commits(table).write_onto(since, rows, where=sql_any(keys)):
            raise changed_meanwhile(self.name(table))

    def drop_partitions(self, table: TableSchema, keys: Keys) -> None:
        if keys and self.exists(table):
            with conflicts(self.name(table)):
                self.spark.sql(f"DELETE FROM {self.name(table)} WHERE {sql_any(keys)}")

    # Upkeep

    def compact(self, table: TableSchema, *, at_least: int) -> int:
        if not self.exists(table):
            return 0
        num = int(self._first(f"DESCRIBE DETAIL {self.name(table)}").numFiles)
        return num if num >= at_least and self.compact_partitions(table, [{}]) else 0

    def compact_partitions(self, table: TableSchema, keys: Keys) -> bool:
        try:
            with around(f"join:{table.name}"), conflicts(self.name(table)):
                self.spark.sql(f"OPTIMIZE {self.name(table)} WHERE {sql_any(keys)}")
        except UserrepError:
            return False
        return True

    def vacuum(self, table: TableSchema, age: timedelta, *, keep: Sequence[int] = ()) -> None:
        """As ``Tables.vacuum``; ``keep`` must be empty, because no stream reads these tables."""
        assert not keep
        if not self.exists(table):
            return
        check, conf = "spark.databricks.delta.retentionDurationCheck.enabled", self.spark.conf
        before = conf.get(check, "true") or "true"
        conf.set(check, "false")
        try:
            self.spark.sql(f"VACUUM {self.name(table)} RETAIN {int(age.total_seconds() // 3600)} HOURS")
        finally:
            conf.set(check, before)


def _in_utc(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose naive times are marked as UTC. PySpark takes naive times to be in the process's time zone."""
    return {
        name: value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value
        for name, value in row.items()
    }


def _column_ddl(field: StructField) -> str:
    comment = f" COMMENT {_literal(field.metadata['comment'])}" if field.metadata else ""
    return f"{sql_name(field.name)} {field.dataType.simpleString()}{comment}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", r"\'") + "'"
