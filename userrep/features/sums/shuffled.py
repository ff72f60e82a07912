"""Rows of all kinds in one shuffle by user bucket, and back to chunks; for tables that tasks cannot read as files."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas.types import from_arrow_schema

from userrep.features.sums.bucket_files import MAX_STEP_ROWS, STEP_ROWS
from userrep.features.sums.chunk import KINDS, Chunk
from userrep.spark.nested import empty
from userrep.store.buckets import bucket_column, slice_number

_BYTES_PER_ROW = 256  # of a tile, approximately; a row of sums counts as several

_SCHEMA = from_arrow_schema(pa.unify_schemas(list(KINDS.values())))  # of rows of all kinds


def in_common_schema(rows: DataFrame, kind: str) -> DataFrame:
    """Convert rows of one kind to the schema that all kinds share. Times become microseconds, as-of dates days."""
    columns = [F.lit(kind).alias("kind")]
    for field in _SCHEMA:
        name, nothing = field.name, F.lit(None)
        if not isinstance(field.dataType, T.AtomicType):
            nothing = empty(field.dataType)
        if name not in KINDS[kind].names or name not in rows.columns:
            column = nothing
        elif isinstance(rows.schema[name].dataType, T.TimestampType):
            column = F.unix_micros(name)
        elif isinstance(field.dataType, T.MapType):
            column = F.coalesce(name, nothing)
        else:
            column = F.col(name)
        columns.append(column.cast(field.dataType).alias(name))
    return rows.select(columns)


def by_item_part(rows: DataFrame, num_parts: int) -> DataFrame:
    """Add ``item_part``: the part of a tile's item, part 0 for sums, and the parts of a profile's picks.

    A profile is repeated for each part with one of its picks; a profile without picks is dropped.
    """

    def part_of(item: Column) -> Column:
        return slice_number(num_parts, bucket_column(item))

    parts = (
        F.when(F.col("kind") == "tiles", F.array(part_of(F.col("item_id"))))
        .when(F.col("kind") == "sums", F.array(F.lit(0)))
        .otherwise(F.array_distinct(F.transform("pick_items", part_of)))
    )
    return rows.withColumn("item_part", F.explode(parts))


def chunks_of_rows(batches: Iterable[pa.RecordBatch]) -> Iterator[Chunk]:
    """Cut rows sorted by user bucket into chunks, before the last bucket that has arrived.

    A single bucket with very many rows comes in several chunks.
    """
    tables: list[pa.Table] = []
    for batch in batches:
        if not batch.num_rows:  # the rows so far may be the last ones
            continue
        num_rows = sum(max(table.num_rows, table.nbytes // _BYTES_PER_ROW) for table in tables)
        if num_rows >= STEP_ROWS:
            rows = pa.concat_tables(tables)
            bucket_N = rows.column("user_bucket").to_numpy()
            cut = int(np.searchsorted(bucket_N, bucket_N[-1]))
            if cut:
                yield _chunk(rows.slice(0, cut), is_last=True)
                tables = [rows.slice(cut)]
            elif num_rows >= MAX_STEP_ROWS:
                yield _chunk(rows, is_last=False)
                tables = []
        tables.append(pa.Table.from_batches([batch]))
    if tables:
        yield _chunk(pa.concat_tables(tables), is_last=True)


def _chunk(rows: pa.Table, *, is_last: bool) -> Chunk:
    kinds = rows.column("kind")
    tables = {
        kind: rows.select(schema.names).filter(pc.equal(kinds, kind)).cast(schema) for kind, schema in KINDS.items()
    }
    return Chunk(is_last=is_last, **tables)
