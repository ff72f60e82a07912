"""Writing of a DataFrame as Parquet files of a Delta table by Spark tasks; the driver commits the files."""

from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.spark.nested import empty
from userrep.store.data_files import TableFile
from userrep.store.parquet_writer import TableWriter, Target


def write_files(rows: DataFrame, target: Target) -> list[TableFile]:
    """Write the rows of a frame by tasks, one file per task and table partition, and return the uncommitted files.

    Rows keep their order within a task. Cost: one pass of all rows through Python as Arrow batches, without a shuffle.
    Task memory: one row group per partition that the task writes. Driver memory: one entry per file.
    """

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        writer = TableWriter(target)
        for batch in batches:
            table = _with_nulls(pa.Table.from_batches([batch]), nested)
            for values, part in _partitions(table, target.partition_by):
                writer.write(part, values)
        yield pa.record_batch({"file": pa.array([file.to_json() for file in writer.close()], pa.string())})

    rows = rows.select(*target.partition_by, *target.schema.names)
    nested = _nullable_nested(rows.schema)
    written = _without_nulls(rows, nested).mapInArrow(write, "file STRING").collect()
    return [TableFile.from_json(row.file) for row in written]


def _nullable_nested(schema: T.StructType) -> list[str]:
    return [f.name for f in schema if f.nullable and isinstance(f.dataType, T.ArrayType | T.MapType)]


def _without_nulls(rows: DataFrame, nested: list[str]) -> DataFrame:
    """Replace null arrays and maps by empty ones, and mark them in a column of their own (see ``spark.nested``)."""
    filled = {name: F.coalesce(name, empty(rows.schema[name].dataType)) for name in nested}
    return rows.withColumns({_mark(name): F.col(name).isNull() for name in nested}).withColumns(filled)


def _with_nulls(rows: pa.Table, nested: list[str]) -> pa.Table:
    """Undo ``_without_nulls`` in a task."""
    for name in nested:
        is_null = rows.column(_mark(name))
        if pc.any(is_null).as_py():
            row_numbers = pc.if_else(is_null, None, pa.array(np.arange(rows.num_rows)))
            rows = rows.set_column(rows.schema.get_field_index(name), name, rows.column(name).take(row_numbers))
    return rows


def _mark(name: str) -> str:
    return f"{name} is null"


def _partitions(rows: pa.Table, partition_by: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    """Yield the rows of each combination of partition values."""
    if not partition_by:
        yield {}, rows
        return
    keys = rows.select(list(partition_by)).group_by(list(partition_by)).aggregate([]).to_pylist()
    for values in keys:
        same = [_equal(rows[name], value) for name, value in values.items()]
        yield values, rows if len(keys) == 1 else rows.filter(reduce(pc.and_kleene, same))


def _equal(column: pa.ChunkedArray, value: Any) -> pa.ChunkedArray:
    return column.is_null() if value is None else pc.equal(column, pa.scalar(value, column.type))
