"""The rows of a data frame as Parquet files of a Delta table, written by Spark's tasks, for the driver to commit."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import from_arrow_schema

from userrep.store.table_files import TableFile
from userrep.store.table_writer import TableWriter, Target

_FILES = pa.schema(
    [("path", pa.string()), ("size", pa.int64()), ("num_rows", pa.int64()), ("partition_values", pa.string()),
     ("first_bucket", pa.int32()), ("last_bucket", pa.int32())]
)  # fmt: skip


def write_files(rows: DataFrame, target: Target) -> list[TableFile]:
    """Have tasks write the rows of a frame: a file for each task and partition of the table that the task meets.

    Rows keep the order that they have within a task. A task holds one row group of each partition that it meets.
    Nobody reads the files before they are committed. Cost: rows pass through Python once, in Arrow; no shuffle. Driver
    memory: one entry for each file.
    """

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        writer = TableWriter(target)
        for batch in batches:
            for values, part in _partitions(pa.Table.from_batches([batch]), target.partition_by):
                writer.write(part, values)
        files = [_row_of(file) for file in writer.close()]
        if files:
            yield pa.RecordBatch.from_pylist(files, _FILES)

    names = [*target.partition_by, *target.schema.names]
    written = rows.select(*names).mapInArrow(write, from_arrow_schema(_FILES)).collect()
    return [_file_of(row.asDict()) for row in written]


def _partitions(rows: pa.Table, partition_by: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    """Split rows by the values of partition columns."""
    if not partition_by:
        yield {}, rows
        return
    keys = rows.select(list(partition_by)).group_by(list(partition_by)).aggregate([]).to_pylist()
    for values in keys:
        is_of = None
        for name, value in values.items():
            column = rows.column(name)
            same = pc.is_null(column) if value is None else pc.equal(column, pa.scalar(value, column.type))
            is_of = same if is_of is None else pc.and_kleene(is_of, same)
        yield values, rows if len(keys) == 1 else rows.filter(is_of)


def _row_of(file: TableFile) -> dict[str, Any]:
    first, last = file.buckets or (None, None)
    values = json.dumps(file.values, default=str)
    return {
        "path": file.path, "size": file.size, "num_rows": file.num_rows, "partition_values": values,
        "first_bucket": first, "last_bucket": last,
    }  # fmt: skip


def _file_of(row: dict[str, Any]) -> TableFile:
    buckets = None if row["first_bucket"] is None else (row["first_bucket"], row["last_bucket"])
    return TableFile(row["path"], row["size"], row["num_rows"], json.loads(row["partition_values"]), buckets)
