"""Rows of all kinds in one shuffle by user bucket, and back to chunks; for tables that tasks cannot read as files."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.features.sums.bucket_files import MOST_ROWS, STEP_ROWS
from userrep.features.sums.chunk import KINDS, Chunk, names_of
from userrep.spark.nested import empty

_BYTES_PER_ROW = 256  # of a tile, approximately; a row of sums counts as several

_COLUMNS = {
    "kind": "string", "user_bucket": "int", "user_id": "string", "item_id": "string", "weight": "double",
    "num_events": "int", "last_event_at": "bigint", "num_night": "int", "num_morning": "int", "num_afternoon": "int",
    "num_evening": "int", "num_by_context": "map<string,bigint>", "day": "int", "before": "boolean",
    "after": "boolean", "sums": "binary", "active_at": "array<bigint>", "registered_at": "bigint",
    "attributes": "array<string>", "pick_items": "array<string>", "picked_at": "array<bigint>",
}  # fmt: skip


def of_kind(rows: DataFrame, kind: str) -> DataFrame:
    """Convert rows of one kind to the schema that all kinds share. Times become microseconds, as-of dates days."""
    columns = []
    for name, ddl in _COLUMNS.items():
        kind_of_column = T.DataType.fromDDL(ddl)
        nothing = F.lit(None) if isinstance(kind_of_column, T.AtomicType) else empty(kind_of_column)
        if name == "kind":
            column = F.lit(kind)
        elif name not in KINDS[kind].names or name not in rows.columns:
            column = nothing
        elif isinstance(rows.schema[name].dataType, T.TimestampType):
            column = F.unix_micros(name)
        elif isinstance(kind_of_column, T.MapType):
            column = F.coalesce(name, nothing)
        else:
            column = F.col(name)
        columns.append(column.cast(kind_of_column).alias(name))
    return rows.select(columns)


def steps_of_rows(batches: Iterable[pa.RecordBatch], *, context: bool) -> Iterator[Iterator[Chunk]]:
    """Split rows sorted by user bucket into steps. Each step must be consumed before the next one is requested."""
    source = _Lookahead(batches)
    while (rows := source.next_rows()) is not None:
        bucket_N = rows.column("user_bucket").to_numpy()
        last = bucket_N[-1]
        cut = int(np.searchsorted(bucket_N, last))
        if source.is_at_end():
            yield iter([_chunk(rows, context)])
        elif cut:
            source.put_back(rows.slice(cut))
            yield iter([_chunk(rows.slice(0, cut), context)])
        else:
            yield _one_bucket(rows, source, int(last), context)


def _one_bucket(rows: pa.Table, source: "_Lookahead", bucket: int, context: bool) -> Iterator[Chunk]:
    """Yield the rows of one very large bucket as they arrive."""
    while rows is not None:
        end = int(np.searchsorted(rows.column("user_bucket").to_numpy(), bucket, side="right"))
        if end:
            yield _chunk(rows.slice(0, end), context)
        if end < rows.num_rows:
            source.put_back(rows.slice(end))
            return
        rows = source.next_rows()


class _Lookahead:
    """Batches with lookahead: rows that belong to a later step can be put back."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = (batch for batch in batches if batch.num_rows)
        self._put_back_rows: list[pa.Table] = []
        self._next = next(self._batches, None)

    def is_at_end(self) -> bool:
        return self._next is None and not self._put_back_rows

    def put_back(self, rows: pa.Table) -> None:
        self._put_back_rows.append(rows)

    def next_rows(self) -> pa.Table | None:
        """Return about STEP_ROWS rows, or more until they contain a second bucket; None at the end."""
        tables, self._put_back_rows = self._put_back_rows, []
        while self._next is not None:
            num_rows = sum(max(table.num_rows, table.nbytes // _BYTES_PER_ROW) for table in tables)
            if num_rows >= MOST_ROWS or (num_rows >= STEP_ROWS and _has_two_buckets(tables)):
                break
            tables.append(pa.Table.from_batches([self._next]))
            self._next = next(self._batches, None)
        return pa.concat_tables(tables) if tables else None


def _has_two_buckets(tables: list[pa.Table]) -> bool:
    return bool(tables[0].column("user_bucket")[0] != tables[-1].column("user_bucket")[-1])


def _chunk(rows: pa.Table, context: bool) -> Chunk:
    kinds = rows.column("kind")
    parts = {}
    for kind, schema in KINDS.items():
        kind_rows = rows.filter(pa.compute.equal(kinds, kind))
        names = names_of(kind, context=context)
        parts[kind] = pa.Table.from_arrays([kind_rows.column(n).cast(schema.field(n).type) for n in names], names=names)
    return Chunk.of(**parts)
