"""How Spark writes rows to a table: in one commit, its own or, in S3, one of delta-rs."""

import json
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from pyspark.sql import DataFrame, DataFrameWriter
from pyspark.sql import types as T

from userrep.delta_files import DeltaFiles, changed_meanwhile
from userrep.failpoints import around
from userrep.schemas import PROPERTIES, TableSchema
from userrep.storage import delete_folder

_STAGED = "staged-"  # begins the names of folders of files that Spark has written for another's commit


def write_by_spark(
    rows: DataFrame,
    table: TableSchema,
    *,
    name: str,
    path: str | None,
    where: str | None,
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


def write_beside(
    rows: DataFrame,
    table: TableSchema,
    *,
    uri: str,
    where: str | None,
    since: int,
    transaction: tuple[str, int] | None = None,
) -> None:
    """Let Spark write to a table of its own within the table's folder, and commit its files to the table.

    In S3 Delta's commits by Spark do not see whether another driver was first, and could undo what that one did;
    those of delta-rs do. See docs/decisions/0015. ``since``: the version that ``rows`` were made from.
    """
    name = f"{_STAGED}{uuid.uuid4().hex}"
    staged, target = DeltaFiles(f"{uri}/{name}"), DeltaFiles(uri)
    with committing(table):
        staged.create(json.dumps(table.fields().jsonValue()), table.partition_by, PROPERTIES | dict(table.properties))
        _writer(rows, table).mode("append").save(staged.uri)
        written = [file._replace(path=f"{name}/{file.path}") for file in staged.files()]
        if transaction is not None:
            target.add_files(written, transaction=transaction)
        else:
            replaced = (lambda _: False) if where is None else _matching(rows, table, target, where)
            target.swap(written, replaced, since=since)
        delete_folder(f"{staged.uri}/_delta_log")


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


def _matching(rows: DataFrame, table: TableSchema, target: DeltaFiles, where: str) -> Callable[[dict[str, Any]], bool]:
    """Say of values of partition columns whether a condition on these columns holds; asked of those there are."""
    names = table.partition_by
    if where == "true":
        return lambda _: True
    there = {tuple(file.values[name] for name in names) for file in target.files()}
    columns = T.StructType([field for field in table.fields().fields if field.name in names])
    in_order = [tuple(of[names.index(name)] for name in columns.names) for of in there]
    found = rows.sparkSession.createDataFrame(in_order, columns).where(where).collect()
    matching = {tuple(row[name] for name in names) for row in found}
    return lambda values: tuple(values[name] for name in names) in matching
