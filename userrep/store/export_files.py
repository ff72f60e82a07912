"""Deterministic Parquet files for exports: their names and bytes depend only on their rows.

A part contains a range of the hash buckets of an id. Spark tasks or the driver write the parts. Equal bytes require the
same releases of userrep and pyarrow.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
from pyspark.sql.types import StructType

from userrep.spark.releases import repartition_by_number
from userrep.store import buckets, xxhash
from userrep.store.arrow import combined
from userrep.store.data_files import TableFile
from userrep.store.filesystem import PARTIAL, file_system, open_parquet, read_bytes
from userrep.store.sql import sql_name
from userrep.store.vector_storage import VectorStorage, own_metadata

_FLOAT32 = VectorStorage()
ROWS = 100_000  # per file: 50 MB of embeddings, about 200 MB of features
_GROUP_ROWS = 16_384
MANIFEST = "_manifest.json"
_MOST_BYTES = 2**28  # of a manifest, which has one line per part

PART = pa.schema(
    [("name", pa.string()), ("num_rows", pa.int64()), ("sha256", pa.string()), ("num_at_limit", pa.int64())]
)


class Part(NamedTuple):
    """A file of an export. ``num_at_limit``: numbers at the limit of their storage type, most of them clipped."""

    name: str
    num_rows: int
    sha256: str
    num_at_limit: int = 0


def write_parts(rows: DataFrame, folder: str, *, order: Sequence[str], storage: VectorStorage = _FLOAT32) -> list[Part]:
    """Write rows into an existing folder, in parts by a hash of the first column of ``order``, sorted within parts.

    ``storage``: type of the column ``embedding`` in the files, if there is one.

    The same rows give the same files, independent of their previous layout. No two rows may have equal values in all
    columns of ``order``. Cost: a count, then one shuffle of all rows and a sort within each part, in memory or on the
    workers' disks: about 250 GB for 500M embeddings of 120 numbers in 5,000 parts. Parts are not sorted among each
    other, which would take another pass over the rows. Driver memory: one entry per part.
    """
    key, num_parts, columns = order[0], _num_parts(rows.count()), [F.col(sql_name(name)) for name in order]
    part_number = buckets.slice_number(num_parts, buckets.bucket_column(columns[0]))

    def in_tables(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
        return (pa.Table.from_batches([batch]) for batch in batches if batch.num_rows)

    sorted_rows = repartition_by_number(rows, num_parts, part_number).sortWithinPartitions(*columns)
    return write_partitions(sorted_rows, in_tables, folder, key=key, storage=storage) or [
        write_part(folder, _part_name(0), key, to_arrow_schema(rows.schema).empty_table(), storage=storage)
    ]


def write_partitions(
    rows: DataFrame, convert: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.Table]], folder: str, *, key: str,
    storage: VectorStorage = _FLOAT32,
) -> list[Part]:  # fmt: skip
    """Write what ``convert`` makes of each partition of ``rows`` as a part; none if it makes no table.

    ``key``: the column of ids. Driver memory: one entry per part.
    """
    names = rows.columns

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        tables = convert(batch.rename_columns(names) for batch in batches)
        first = next(tables, None)
        if first is not None:
            context = TaskContext.get()
            assert context is not None
            part = write_part(folder, _part_name(context.partitionId()), key, first, tables, storage=storage)
            yield pa.RecordBatch.from_pylist([part._asdict()])

    numbered = rows.toDF(*(f"c{k}" for k in range(len(names))))  # mapInArrow refuses names with dots or backticks
    return sorted(Part(*row) for row in numbered.mapInArrow(write, from_arrow_schema(PART)).collect())


def write_parts_here(
    files: Iterable[TableFile],
    convert: Callable[[pa.RecordBatch, Mapping[str, Any]], pa.RecordBatch],
    columns: StructType,
    folder: str,
    *,
    order: Sequence[str],
    storage: VectorStorage = _FLOAT32,
) -> list[Part]:
    """Write the same files as ``write_parts``, byte for byte, without Spark. ``columns`` is the export's Spark schema.

    ``convert`` makes a batch of the export of a batch of one of the ``files`` and the file's partition values.

    Cost: the ids of all rows are read once per part, the rows once. Memory: the rows of one part.
    """
    key, stored = order[0], [(open_parquet(file.uri), file.values) for file in files]
    num_parts, parts = _num_parts(sum(file.metadata.num_rows for file, _ in stored)), []
    schema = to_arrow_schema(columns)
    for part in range(num_parts):
        tables = [schema.empty_table()]
        for file, values in stored:
            for group in range(file.metadata.num_row_groups):
                bucket_N = xxhash.bucket_of(combined(file.read_row_group(group, columns=[key]).column(key)))
                is_part_N = bucket_N.astype(np.int64) * num_parts // buckets.NUM_BUCKETS == part
                if is_part_N.any():
                    batches = file.read_row_group(group).filter(pa.array(is_part_N)).to_batches()
                    tables += [pa.Table.from_batches([convert(batch, values)]).cast(schema) for batch in batches]
        rows = pa.concat_tables(tables).sort_by([(name, "ascending") for name in order])
        if rows.num_rows or num_parts == 1:
            parts.append(write_part(folder, _part_name(part), key, rows, storage=storage))
    return parts


def write_rows(rows: pa.Table, folder: str, *, key: str) -> list[Part]:
    """Write rows in their order into an existing folder, in parts of equal size. ``key``: the column of ids."""
    starts = enumerate(range(0, max(1, rows.num_rows), ROWS))
    return [write_part(folder, _part_name(part), key, rows.slice(start, ROWS)) for part, start in starts]


def _num_parts(num_rows: int) -> int:
    return max(1, -(-num_rows // ROWS))


def _part_name(part: int) -> str:
    return f"part-{part:05d}.parquet"


def read_manifest(folder: str) -> dict[str, Any]:
    """Read the manifest of an export. Raises FileNotFoundError, or ValueError if it is not a JSON object."""
    manifest = json.loads(read_bytes(f"{folder}/{MANIFEST}", max_bytes=_MOST_BYTES))
    if not isinstance(manifest, dict):
        raise ValueError(f"{folder}/{MANIFEST} is not a JSON object")
    return manifest


def sha256_of(files: pyarrow.fs.FileSystem, path: str) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with files.open_input_file(path) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def write_part(
    folder: str,
    name: str,
    key: str,
    first: pa.Table,
    more: Iterable[pa.Table] = (),
    *,
    storage: VectorStorage = _FLOAT32,
) -> Part:
    """Write a part atomically: on a local disk, under a temporary name that is then renamed."""
    files, path = file_system(f"{folder}/{name}")
    is_local = isinstance(files, pyarrow.fs.LocalFileSystem)
    staged = file_system(f"{folder}/{PARTIAL}{name}-{uuid.uuid4().hex}")[1] if is_local else path
    num_rows = num_at_limit = 0
    # Without the comments of table columns, which only Spark passes on.
    fields = [field.with_metadata(own_metadata(field)) for field in storage.in_table(first.slice(0, 0))[0].schema]
    schema = pa.schema(fields, metadata=first.schema.metadata)
    dictionary_columns = [field.name for field in schema if not pa.types.is_nested(field.type) and field.name != key]
    with (
        files.open_output_stream(staged) as stream,
        pq.ParquetWriter(stream, schema, compression="snappy", use_dictionary=dictionary_columns) as writer,
    ):
        for group in _groups(first, more):
            stored, at_limit = storage.in_table(group)
            writer.write_table(stored.cast(schema))
            num_rows += group.num_rows
            num_at_limit += at_limit
    sha256 = sha256_of(files, staged)
    if is_local:
        files.move(staged, path)
    return Part(name, num_rows, sha256, num_at_limit)


def _groups(first: pa.Table, more: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Split rows into row groups of a fixed size, whatever batches they arrive in."""
    buffered = first
    for rows in more:
        buffered = pa.concat_tables([buffered, rows])
        while buffered.num_rows >= _GROUP_ROWS:
            yield buffered.slice(0, _GROUP_ROWS).combine_chunks()
            buffered = buffered.slice(_GROUP_ROWS)
    for start in range(0, buffered.num_rows, _GROUP_ROWS):
        yield buffered.slice(start, _GROUP_ROWS).combine_chunks()
