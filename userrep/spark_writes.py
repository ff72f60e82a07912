"""Writes and commits by Spark itself, where tables have no files that userrep commits: in catalogs, DBFS and HDFS."""

import uuid
from contextlib import AbstractContextManager

from pyspark.sql import DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F

from userrep.delta_files import changed_meanwhile
from userrep.errors import UserrepError
from userrep.failpoints import around
from userrep.schemas import TableSchema

_ATTEMPTS = 20  # to take a number
_NEWEST = 100  # commits that are looked through for a mark


def write_by_spark(
    rows: DataFrame,
    table: TableSchema,
    *,
    name: str,
    path: str | None,
    where: str | None = None,
    transaction: tuple[str, int] | None = None,
) -> None:
    """Write rows, in the place of those that match ``where`` if it is given, in one commit of Spark's.

    ``name``: in SQL; without a ``path``, in a catalog. ``transaction``: as ``Tables.append`` has it.

    Raises UserrepError if another run has changed the rows that are replaced.
    """
    writer = _write(rows, table, where)
    if transaction is not None:
        writer = writer.option("txnAppId", transaction[0]).option("txnVersion", transaction[1])
    try:
        _commit(writer, table, name, path)
    except Exception as error:
        if not was_overtaken(error):
            raise
        raise changed_meanwhile(name) from error


def write_since(
    rows: DataFrame, table: TableSchema, *, name: str, path: str | None, where: str | None = None, since: int
) -> bool:
    """Write rows as ``write_by_spark`` does, unless another run has written since a version; return whether it wrote.

    Of several writers that start from the same version, Delta lets one take the next number of a transaction. It
    refuses the others, or passes over them without an error; so the commit has a mark. Commits that are no such
    writes, such as those of OPTIMIZE, do not matter. Cost: besides the write, one look at the table's history.
    """
    return _takes(_write(rows, table, where), table, name=name, path=path, counter="ledger", number=since + 1)


def reserve(rows: DataFrame, table: TableSchema, *, name: str, path: str | None, counter: str, first: int) -> int:
    """Take a number of a counter that the table's log keeps, at least ``first``; ``rows`` is an empty frame."""
    for number in range(first, first + _ATTEMPTS):
        if _takes(_write(rows, table, None), table, name=name, path=path, counter=counter, number=number):
            return number
    raise UserrepError(f"{name}: other runs keep on committing. Run the command again.")


def _takes(
    writer: DataFrameWriter, table: TableSchema, *, name: str, path: str | None, counter: str, number: int
) -> bool:
    """Write under a transaction; return whether this very call was the one that Delta wrote."""
    mark = uuid.uuid4().hex
    options = {"txnAppId": counter, "txnVersion": str(number), "userMetadata": mark}
    try:
        _commit(writer.options(**options), table, name, path)
    except Exception as error:
        if not was_overtaken(error):
            raise
        return False
    spark = SparkSession.active()
    newest = spark.sql(f"DESCRIBE HISTORY {name} LIMIT {_NEWEST}")
    return not newest.where(F.col("userMetadata") == mark).isEmpty()


def _commit(writer: DataFrameWriter, table: TableSchema, name: str, path: str | None) -> None:
    with committing(table):
        if path is not None:
            writer.save(path)
        else:
            writer.saveAsTable(name)


def committing(table: TableSchema) -> AbstractContextManager[None]:
    """Pass the failpoints around a commit to a table."""
    return around(f"commit:{table.name}")


def was_overtaken(error: Exception) -> bool:
    """Say whether Delta refused a commit of Spark's because of another one.

    Its classes for Python have no base in common, and none over Spark Connect.
    """
    return "[DELTA_CONCURRENT_" in str(error)


def _write(rows: DataFrame, table: TableSchema, where: str | None) -> DataFrameWriter:
    writer = rows.select(*table.fields().names).write.format("delta")
    if codec := dict(table.properties).get("parquet.compression"):  # of the table's, Spark heeds all but this
        writer = writer.option("compression", codec)
    return writer.mode("append") if where is None else writer.mode("overwrite").option("replaceWhere", where)
