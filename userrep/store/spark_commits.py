"""Commits of Spark to a Delta table: each is atomic, and may depend on a version or on a transaction of its writer."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pyspark.sql import DataFrame, DataFrameWriter, Row, SparkSession
from pyspark.sql import functions as F

from userrep.errors import UserrepError, changed_meanwhile
from userrep.failpoints import around
from userrep.ids import short_hash
from userrep.store.schemas import TableSchema
from userrep.store.sql import sql_name
from userrep.store.tables import TransactionId

_NEWEST = 100  # commits that are searched for a mark
_CHANGES = "changes"  # the counter of changes that are based on a version; replacements have one per predicate
_NEUTRAL = ("OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "CHANGE COLUMN")  # change no rows


@dataclass(frozen=True)
class SparkCommits:
    """The commits to an existing table. ``name``: in SQL. ``path``: of a table below a root; None in a catalog."""

    spark: SparkSession
    table: TableSchema
    name: str
    path: str | None

    def write(
        self, rows: DataFrame, *, where: str | None = None, transaction: TransactionId | None = None, mark: str = ""
    ) -> None:
        """Write rows in one commit, replacing those that match ``where``.

        Delta before 4.4 also refuses a commit whose own response was lost; the mark in its metadata shows that it was
        made.

        Raises UserrepError if another run has changed the rows that are replaced, or has used the ``transaction``.
        """
        mark = mark or uuid.uuid4().hex
        writer = self._writer(rows, where).option("userMetadata", mark)
        if transaction is not None:
            writer = writer.options(txnAppId=transaction[0], txnVersion=transaction[1])
        try:
            with around(f"commit:{self.table.name}"), conflicts(self.name):
                if self.path is not None:
                    writer.save(self.path)
                else:
                    writer.saveAsTable(self.name)
        except UserrepError:
            if not self._is_committed(mark):
                raise

    def write_once(self, rows: DataFrame, transaction: TransactionId, *, where: str | None = None) -> bool:
        """Write rows unless another run has used the ``transaction``; return whether they were written.

        Of several writers Delta accepts one. It refuses the others or skips their writes without an error, so a mark
        identifies this commit.
        """
        mark = f"{transaction[0]} {transaction[1]} {uuid.uuid4().hex}"
        try:
            self.write(rows, where=where, transaction=transaction, mark=mark)
        except UserrepError:
            return False
        return self._is_committed(mark)

    def write_onto(self, since: int, rows: DataFrame, *, where: str | None = None) -> bool:
        """Write rows unless others have changed rows since version ``since``; return whether they were written.

        With ``where``, a predicate on partitions that the rows replace, only changes of files in these count.

        Changes of this kind are numbered in the order of the table's versions, by ``where``, whatever neutral commits,
        such as those of OPTIMIZE, lie between them, so two changes of the same rows have the same number and one of
        them wins. Other commits are seen if they come before the write; while it runs, Delta refuses it if it replaces
        rows that they have changed.
        """
        history, counter = self._history(), _CHANGES if where is None else f"{_CHANGES}-{short_hash(where)}"
        if where is not None:
            is_overtaken = self._file_names(since, where) != self._file_names(history[0].version, where)
        else:
            is_overtaken = history[-1].version > since + 1 or any(
                row.version > since and row.operation not in _NEUTRAL for row in history
            )
        if is_overtaken:
            return False
        return self.write_once(rows, (counter, 1 + (_last_number(history, counter) or since)), where=where)

    def last_number(self, counter: str) -> int:
        """Return the number of a counter's last ``write_once``, 0 if it is not among the newest commits."""
        return _last_number(self._history(), counter)

    def _file_names(self, version: int, where: str) -> set[str]:
        """Return the files of some partitions at a version. Cost: the footers of these files."""
        rows = self.spark.sql(f"SELECT * FROM {self.name} VERSION AS OF {version}").where(where)
        return {row.file_path for row in rows.select("_metadata.file_path").distinct().collect()}

    def _is_committed(self, mark: str) -> bool:
        return any(row.userMetadata == mark for row in self._history())

    def _history(self) -> list[Row]:
        """Return the newest commits, the last one first."""
        history = self.spark.sql(f"DESCRIBE HISTORY {self.name} LIMIT {_NEWEST}")
        return history.select("version", "operation", "userMetadata").collect()

    def _writer(self, rows: DataFrame, where: str | None) -> DataFrameWriter:
        writer = rows.select(*self.table.names).write.format("delta")
        if codec := dict(self.table.properties).get("parquet.compression"):  # Spark's writer ignores this property
            writer = writer.option("compression", codec)
        return writer.mode("append") if where is None else writer.mode("overwrite").option("replaceWhere", where)

    def add_onto(self, since: int, rows: DataFrame, replacing: str) -> bool:
        """Add rows, and delete those that match ``replacing``, if the table has the same files as at version ``since``.

        The check is part of the write: MERGE reads its source and its target at one version, and Delta refuses the
        commit if another one has changed files since that version. So the check is exact for all kinds of commits.
        """
        columns = list(map(sql_name, self.table.names))
        values = [f"source.added.{column}" for column in columns]
        file_names = F.sort_array(F.collect_set("_metadata.file_path")).alias("names")
        try:
            with around(f"commit:{self.table.name}"), conflicts(self.name):
                merged = self.spark.sql(  # the row of the source that adds nothing matches the rows to delete
                    f"MERGE INTO {self.name} USING ("
                    "SELECT * FROM (SELECT struct(*) AS added FROM {rows} UNION ALL SELECT NULL) "
                    "WHERE (SELECT names FROM {before}) = (SELECT names FROM {now})"
                    f") AS source ON source.added IS NULL AND ({replacing}) WHEN MATCHED THEN DELETE "
                    "WHEN NOT MATCHED AND source.added IS NOT NULL "
                    f"THEN INSERT ({', '.join(columns)}) VALUES ({', '.join(values)})",
                    rows=rows,
                    before=self.spark.sql(f"SELECT * FROM {self.name} VERSION AS OF {since}").agg(file_names),
                    now=self.spark.sql(f"SELECT * FROM {self.name}").agg(file_names),
                ).first()
        except UserrepError:
            return False
        return bool(merged and merged.num_affected_rows)


def _last_number(history: Sequence[Row], counter: str) -> int:
    marks = (row.userMetadata or "" for row in history)
    return next((int(mark.split()[1]) for mark in marks if mark.startswith(f"{counter} ")), 0)


@contextmanager
def conflicts(name: str) -> Iterator[None]:
    """Raise UserrepError if Delta refuses a commit of the block because of a concurrent one. ``name``: the table.

    Delta's Python exceptions have no common base class, and do not exist under Spark Connect.
    """
    try:
        yield
    except Exception as error:
        if "[DELTA_CONCURRENT_" not in str(error):
            raise
        raise changed_meanwhile(name) from error
