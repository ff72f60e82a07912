"""Writes and commits by Spark itself, where tables have no files that userrep commits: in catalogs, DBFS and HDFS."""

from contextlib import AbstractContextManager

from pyspark.sql import DataFrame, DataFrameWriter

from userrep.delta_files import changed_meanwhile
from userrep.failpoints import around
from userrep.schemas import TableSchema


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
    writer = _writer(rows, table)
    if transaction is not None:
        writer = writer.option("txnAppId", transaction[0]).option("txnVersion", transaction[1])
    writer = writer.mode("append") if where is None else writer.mode("overwrite").option("replaceWhere", where)
    try:
        with committing(table):
            if path is not None:
                writer.save(path)
            else:
                writer.saveAsTable(name)
    except Exception as error:
        if not was_overtaken(error):
            raise
        raise changed_meanwhile(name) from error


def committing(table: TableSchema) -> AbstractContextManager[None]:
    """Pass the failpoints around a commit to a table."""
    return around(f"commit:{table.name}")


def was_overtaken(error: Exception) -> bool:
    """Say whether Delta refused a commit of Spark's because of another one.

    Its classes for Python have no base in common, and none over Spark Connect.
    """
    return "[DELTA_CONCURRENT_" in str(error)


def _writer(rows: DataFrame, table: TableSchema) -> DataFrameWriter:
    writer = rows.select(*table.fields().names).write.format("delta")
    codec = dict(table.properties).get("parquet.compression")  # of the table's, Spark heeds all but this
    return writer.option("compression", codec) if codec else writer
