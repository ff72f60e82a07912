"""Where the tables live and how they are written: Delta, by path or by catalog, whole commits only."""

import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, DataFrameWriter, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import Config
from userrep.delta_files import DeltaFiles, TableFile, changed_meanwhile
from userrep.errors import UsageError, UserrepError, in_line
from userrep.failpoints import around
from userrep.schemas import TableSchema
from userrep.storage import absolute, delete_folder, folder_names
from userrep.table_writer import Target

_PROPERTIES = {
    # Readers of plain Parquet (training) don't see deletion vectors, and user ids stay out of the log's statistics.
    "delta.enableDeletionVectors": "false",
    "delta.dataSkippingNumIndexedCols": "0",
}
_FORMAT_KEY, FORMAT = "userrep.format", 1  # counted on where rows of the same columns come to mean something else
_STAGED = "staged-"  # begins the names of folders of files that Spark has written for another's commit
RETENTION = timedelta(days=7)  # Delta's own, in which older versions of a table can be read
_BESIDE_SPARK = re.compile(r"s3a?://|abfss?://|gs://|(?!/dbfs/|/Volumes/|[a-z0-9+.-]+:/)")


def sql_date(day: date) -> str:
    """Write a date as a SQL literal."""
    return f"DATE'{day:%Y-%m-%d}'"


def sql_in(column: str, values: list[str] | list[date]) -> str:
    """Write ``column IN (...)`` for checked names or dates; false where there is no value."""
    if not values:
        return "false"
    return f"{column} IN ({', '.join(map(_sql, values))})"


def sql_key(key: Mapping[str, str | date | int]) -> str:
    """Write the condition that columns have these values, checked names, dates or numbers."""
    return " AND ".join(f"{name} = {_sql(value)}" for name, value in key.items())


def _sql(value: str | date | int) -> str:
    if isinstance(value, date):
        return sql_date(value)
    return str(value) if isinstance(value, int) else f"'{value}'"


class Tables:
    """The Delta tables below one root path, or in one schema of a catalog."""

    def __init__(self, spark: SparkSession | None, *, root: str | None = None, schema: str | None = None) -> None:
        """Open the tables. Without a session only what goes beside Spark can be done, and only with ``has_files``."""
        if (root is None) == (schema is None):
            raise UsageError("say where tables live: root or schema, not both.")
        self._spark = spark
        self._root = absolute(re.sub(r"^file:/+", "/", root.rstrip("/"))) if root else None
        self._schema = schema
        self._known: set[str] = set()

    @classmethod
    def of(cls, config: Config, spark: SparkSession | None) -> "Tables":
        """Open the tables that a configuration names."""
        if config.root is not None:
            return cls(spark, root=config.root)
        return cls(spark, schema=f"`{config.catalog}`.`{config.schema_}`")

    @property
    def spark(self) -> SparkSession:
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

    @property
    def _is_in_s3(self) -> bool:
        return self._root is not None and self._root.startswith(("s3://", "s3a://"))

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

    def create(self, table: TableSchema) -> None:
        """Create the table where it is not there yet.

        Raises
        ------
        UsageError
            If it is there in another format, or with other columns: another release has written it.
        UserrepError
            If it is there and cannot be read.
        """
        if table.name in self._known:
            return
        schema = table.fields()
        properties = _PROPERTIES | {_FORMAT_KEY: str(FORMAT)} | dict(table.properties)
        if self.has_files:
            as_json = json.dumps(schema.jsonValue())
            found, of_table = DeltaFiles(self.uri(table)).create(as_json, table.partition_by, properties)
        else:
            partitions = f"PARTITIONED BY ({', '.join(table.partition_by)})" if table.partition_by else ""
            listed = ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())
            self.spark.sql(
                f"CREATE TABLE IF NOT EXISTS {self.name(table)} ({table.columns}) USING delta {partitions} "
                f"TBLPROPERTIES ({listed})"
            )
            found = self.spark.sql(f"SELECT * FROM {self.name(table)}").columns
            shown = self.spark.sql(f"SHOW TBLPROPERTIES {self.name(table)}").collect()
            of_table = {row.key: row.value for row in shown}
        if (other := of_table.get(_FORMAT_KEY) or "1") != str(FORMAT):  # tables of an earlier state don't say
            raise UsageError(
                f"table {self.name(table)} is of format {in_line(other)}, this release reads {FORMAT}: a newer userrep "
                "has written it. Upgrade userrep, or choose another root."
            )
        if set(schema.names) != set(found):
            raise UsageError(
                f"table {self.name(table)} has the columns {', '.join(found)}; this release wants "
                f"{', '.join(schema.names)}. Another release wrote it: choose another root, or use that release."
            )
        self._known.add(table.name)

    def read(self, table: TableSchema, *, version: int | None = None) -> DataFrame:
        """Read a table, at a pinned version if one is given; an empty frame where it is not there yet."""
        self.create(table)
        at = f" VERSION AS OF {version}" if version is not None else ""
        return self.spark.sql(f"SELECT * FROM {self.name(table)}{at}")

    def version(self, table: TableSchema) -> int:
        """Return the newest version of the table. Cost: one look at the log."""
        self.create(table)
        if self.has_files:
            return DeltaFiles(self.uri(table)).version()
        history = self.spark.sql(f"DESCRIBE HISTORY {self.name(table)} LIMIT 1")
        return int(history.select("version").first()[0])  # type: ignore[index]

    def num_bytes(self, table: TableSchema) -> int:
        """Return how many bytes the files have that the table consists of now. Cost: one look at the log."""
        self.create(table)
        if self.has_files:
            return sum(file.size for file in DeltaFiles(self.uri(table)).files())
        detail = self.spark.sql(f"DESCRIBE DETAIL {self.name(table)}")
        return int(detail.select("sizeInBytes").first()[0])  # type: ignore[index]

    def ledger(self, table: TableSchema, columns: Sequence[str] | None = None, **equal: str) -> list[Row]:
        """Read a table that is a ledger to the driver: the rows whose columns have the values of ``equal``.

        Times are naive, in UTC. Cost: milliseconds where files may be read beside Spark; driver memory: the rows.
        """
        self.create(table)
        if self.has_files:
            return [Row(**row) for row in DeltaFiles(self.uri(table)).rows(columns, equal)]
        rows = self.read(table)
        for name, value in equal.items():
            rows = rows.where(F.col(name) == value)
        return rows.select(*columns).collect() if columns else rows.collect()

    def add(self, table: TableSchema, rows: Sequence[Mapping[str, Any]], *, replacing: str | None = None) -> None:
        """Add rows to a ledger, in the place of those that match ``replacing``, in one commit. Times are UTC."""
        self.create(table)
        if not self.has_files:
            frame = self.spark.createDataFrame([dict(row) for row in rows], self.read(table).schema)
            return self._write(frame, table, replacing)
        files = DeltaFiles(self.uri(table))
        with _committing(table):
            return files.append(rows) if replacing is None else files.replace(rows, replacing)

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
            with _committing(table):
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
            if not _was_overtaken(error):
                raise
            return False
        return bool(done and done.num_affected_rows)

    def files(
        self, table: TableSchema, keeps: Callable[[dict[str, Any]], bool], *, version: int | None = None
    ) -> list[TableFile]:
        """List the files of the partitions that ``keeps`` says yes to, given the values of their columns.

        Only where the tables have files of their own. Driver memory: one entry for each file of the table.
        """
        self.create(table)
        return [file for file in DeltaFiles(self.uri(table)).files(version) if keeps(file.values)]

    def was_restored(self, table: TableSchema, since: datetime) -> bool:
        """Say whether a table was put back to an earlier version since a time (UTC).

        Only where the tables have files of their own. Cost: a look at each of up to 1,000 commits.
        """
        return DeltaFiles(self.uri(table)).was_restored(int(since.replace(tzinfo=UTC).timestamp() * 1000))

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
        with _committing(table):
            DeltaFiles(self.uri(table)).swap(written, replacing, since=since)

    def add_files(self, table: TableSchema, written: Sequence[TableFile], *, transaction: tuple[str, int]) -> None:
        """Add files that tasks have written, in one commit.

        ``transaction``: of whom, and the number of it, which ``last_transaction`` tells from then on. Only where the
        tables have files of their own. No file, no commit.
        """
        with _committing(table):
            DeltaFiles(self.uri(table)).add_files(written, transaction=transaction)

    def rewrite(self, table: TableSchema, pairs: Sequence[tuple[TableFile, TableFile | None]]) -> bool:
        """Put a new file, or none, in the place of each of some files, in one commit; False: some had gone meanwhile.

        What another run did to those stays. Only where the tables have files of their own.
        """
        with _committing(table):
            return DeltaFiles(self.uri(table)).rewrite(pairs)

    def join_files(self, table: TableSchema, *, at_least: int) -> int:
        """Put all files of a ledger into one, if they are so many; return how many they were, 0 if nothing was done.

        Nothing is done either if another run commits at the same time. Cost: one read and write of the ledger.
        """
        self.create(table)
        if self.has_files:
            with around(f"join:{table.name}"):
                return DeltaFiles(self.uri(table)).join_files(at_least)
        num = int(self.spark.sql(f"DESCRIBE DETAIL {self.name(table)}").select("numFiles").first()[0])  # type: ignore[index]
        return num if num >= at_least and self.optimize(table, ["true"]) else 0

    def optimize(self, table: TableSchema, where: Sequence[str]) -> bool:
        """Let Spark join the small files of some partitions; say whether it did, or another run came first.

        ``where``: a condition on partition columns for each. Cost: one read and write of these partitions, by tasks.
        """
        condition = " OR ".join(f"({one})" for one in where)
        if self._is_in_s3:
            return self._joined_beside(table, condition)
        try:
            with around(f"join:{table.name}"):
                self.spark.sql(f"OPTIMIZE {self.name(table)} WHERE {condition}")
        except Exception as error:
            if not _was_overtaken(error):
                raise
            return False
        return True

    def _joined_beside(self, table: TableSchema, condition: str) -> bool:
        since = self.version(table)
        rows = self.read(table, version=since).where(condition).repartition(*table.partition_by)
        try:
            self._write_beside(rows, table, condition, None, since)
        except UserrepError:
            return False
        return True

    def vacuum(self, table: TableSchema, age: timedelta, *, keep: Sequence[int] = ()) -> None:
        """Delete the files that no version of the last ``age`` has. Cost: a listing of the table's folder.

        ``keep``: versions that stay readable. With less than the time that the longest run takes, files go that a run
        is about to commit, or reads.
        """
        self.create(table)
        hours = int(age.total_seconds() // 3600)
        if self.has_files:
            with around(f"vacuum:{table.name}"):
                DeltaFiles(self.uri(table)).vacuum(hours, keep)
            return
        check = "spark.databricks.delta.retentionDurationCheck.enabled"
        before = self.spark.conf.get(check, "true") or "true"
        self.spark.conf.set(check, "false")
        try:
            self.spark.sql(f"VACUUM {self.name(table)} RETAIN {hours} HOURS")
        finally:
            self.spark.conf.set(check, before)

    def has_version(self, table: TableSchema, version: int) -> bool:
        """Say whether a version can still be read. Only where the tables have files of their own."""
        return DeltaFiles(self.uri(table)).has_version(version)

    def stored(self, prefix: str) -> list[str]:
        """List the names of the tables that begin with ``prefix``."""
        if self._root is not None:
            names = folder_names(f"{self._root}/tables")
        else:
            names = [row.tableName for row in self.spark.sql(f"SHOW TABLES IN {self._schema}").collect()]
        return [name for name in names if name.startswith(prefix)]

    def drop_partitions(self, table: TableSchema, keys: Sequence[Mapping[str, Any]]) -> None:
        """Delete all rows of some partitions, each named by the values of its columns, in one commit; none, no commit.

        Names and dates among the values are checked ones. Files stay until VACUUM.
        """
        self.create(table)
        if self.has_files:
            names = table.partition_by
            gone = {tuple(key[name] for name in names) for key in keys}
            since = self.version(table)
            self.commit(table, [], replacing=lambda of: tuple(of[name] for name in names) in gone, since=since)
        elif keys:
            where = " OR ".join(f"({sql_key(key)})" for key in keys)
            self.spark.sql(f"DELETE FROM {self.name(table)} WHERE {where}")

    def append(self, rows: DataFrame, table: TableSchema, *, transaction: tuple[str, int] | None = None) -> None:
        """Add rows in one commit.

        ``transaction``: of whom, and the number of it; one that is not above the writer's last is not written again.
        """
        self._write(rows, table, None, transaction)

    def last_transaction(self, table: TableSchema, writer: str) -> int | None:
        """Return the number of a writer's last transaction; None: it has none. Cost: one look at the log.

        Only where the tables have files of their own.
        """
        self.create(table)
        return DeltaFiles(self.uri(table)).last_transaction(writer)

    def replace(self, rows: DataFrame, table: TableSchema, where: str) -> None:
        """Put ``rows`` in the place of those that match ``where``, in one commit.

        Raises UserrepError if another run has changed these rows meanwhile: they may be made from what it has changed.
        """
        self._write(rows, table, where)

    def _write(
        self, rows: DataFrame, table: TableSchema, where: str | None, transaction: tuple[str, int] | None = None
    ) -> None:
        self.create(table)
        if self._is_in_s3:
            with _committing(table):
                self._write_beside(rows, table, where, transaction, self.version(table))
            return
        writer = self._writer(rows, table)
        if transaction is not None:
            writer = writer.option("txnAppId", transaction[0]).option("txnVersion", transaction[1])
        writer = writer.mode("append") if where is None else writer.mode("overwrite").option("replaceWhere", where)
        try:
            with _committing(table):
                if self._root is not None:
                    writer.save(self.uri(table))
                else:
                    writer.saveAsTable(self.name(table))
        except Exception as error:
            if not _was_overtaken(error):
                raise
            raise changed_meanwhile(self.name(table)) from error

    def _write_beside(
        self, rows: DataFrame, table: TableSchema, where: str | None, transaction: tuple[str, int] | None, since: int
    ) -> None:
        """Let Spark write to a table of its own within the table's folder, and commit its files to the table.

        In S3 Delta's commits by Spark do not see whether another driver was first, and could undo what that one did;
        those of delta-rs do. See docs/decisions/0015. ``since``: the version that ``rows`` were made from.
        """
        name = f"{_STAGED}{uuid.uuid4().hex}"
        staged, target = DeltaFiles(f"{self.uri(table)}/{name}"), DeltaFiles(self.uri(table))
        staged.create(json.dumps(table.fields().jsonValue()), table.partition_by, _PROPERTIES | dict(table.properties))
        self._writer(rows, table).mode("append").save(staged.uri)
        written = [file._replace(path=f"{name}/{file.path}") for file in staged.files()]
        if transaction is not None:
            target.add_files(written, transaction=transaction)
        else:
            replaced = (lambda _: False) if where is None else self._matching(table, where)
            target.swap(written, replaced, since=since)
        delete_folder(f"{staged.uri}/_delta_log")

    def _writer(self, rows: DataFrame, table: TableSchema) -> DataFrameWriter:
        writer = rows.select(*table.fields().names).write.format("delta")
        codec = dict(table.properties).get("parquet.compression")  # of the table's, Spark heeds all but this
        return writer.option("compression", codec) if codec else writer

    def _matching(self, table: TableSchema, where: str) -> Callable[[dict[str, Any]], bool]:
        """Say of values of partition columns whether a condition on these columns holds; asked of those there are."""
        names = table.partition_by
        if where == "true":
            return lambda _: True
        there = {tuple(file.values[name] for name in names) for file in DeltaFiles(self.uri(table)).files()}
        columns = T.StructType([field for field in table.fields().fields if field.name in names])
        in_order = [tuple(of[names.index(name)] for name in columns.names) for of in there]
        found = self.spark.createDataFrame(in_order, columns).where(where).collect()
        matching = {tuple(row[name] for name in names) for row in found}
        return lambda values: tuple(values[name] for name in names) in matching


def _committing(table: TableSchema) -> AbstractContextManager[None]:
    return around(f"commit:{table.name}")


def _was_overtaken(error: Exception) -> bool:
    """Say whether Delta refused a commit of Spark's because of another one.

    Its classes for Python have no base in common, and none over Spark Connect.
    """
    return "[DELTA_CONCURRENT_" in str(error)
