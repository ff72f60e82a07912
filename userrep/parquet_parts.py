"""Parquet files whose names and bytes follow from their rows alone, written by tasks with pyarrow: for exports.

Equal bytes want the same releases of userrep and pyarrow.
"""

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.sql import DataFrame

from userrep.storage import PARTIAL, file_system

ROWS = 100_000  # of a file: 50 MB of embeddings, some 200 MB of features
_GROUP_ROWS = 16_384


class Part(NamedTuple):
    """A file of an export: its name in the folder, rows, and the SHA-256 of what is stored."""

    name: str
    num_rows: int
    sha256: str


def write_parts(rows: DataFrame, folder: str, *, key: str, order: Sequence[str]) -> list[Part]:
    """Write rows into a folder that is there: into parts by a hash of ``key``, each sorted by ``order``.

    The same rows give the same files, however they were laid out before. ``order`` names columns that no two rows
    share. Cost: a count, then one shuffle of all rows and a sort within each part, in memory or on the workers' disks:
    some 250 GB for 500M embeddings of 120 numbers, 5000 parts. No order spans the parts, which would take another pass
    over the rows. Driver memory: one entry a part.
    """
    num_parts = max(1, -(-rows.count() // ROWS))

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        filled = (pa.Table.from_batches([batch]) for batch in batches if batch.num_rows)
        first = next(filled, None)
        if first is not None:
            context = TaskContext.get()
            assert context is not None
            part = _write(folder, f"part-{context.partitionId():05d}.parquet", key, first, filled)
            yield pa.RecordBatch.from_pylist([part._asdict()])

    parts = rows.repartition(num_parts, key).sortWithinPartitions(*order)
    found = parts.mapInArrow(write, "name STRING, num_rows BIGINT, sha256 STRING").collect()
    return sorted(Part(row.name, row.num_rows, row.sha256) for row in found)


def _write(folder: str, name: str, key: str, first: pa.Table, more: Iterable[pa.Table]) -> Part:
    """Write a part whole: where stores show a file before it is complete, under another name first."""
    files, path = file_system(f"{folder}/{name}")
    is_local = isinstance(files, pyarrow.fs.LocalFileSystem)
    staged = file_system(f"{folder}/{PARTIAL}{name}-{uuid.uuid4().hex}")[1] if is_local else path
    schema, num_rows = first.schema, 0
    coded = [field.name for field in schema if not pa.types.is_nested(field.type) and field.name != key]
    with (
        files.open_output_stream(staged) as stream,
        pq.ParquetWriter(stream, schema, compression="snappy", use_dictionary=coded) as writer,
    ):
        for group in _groups(first, more):
            writer.write_table(group)
            num_rows += group.num_rows
    with files.open_input_file(staged) as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    if is_local:
        files.move(staged, path)
    return Part(name, num_rows, sha256)


def _groups(first: pa.Table, more: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Cut rows into row groups of one size, however many Spark hands over at once."""
    waiting = first
    for rows in more:
        waiting = pa.concat_tables([waiting, rows])
        while waiting.num_rows >= _GROUP_ROWS:
            yield waiting.slice(0, _GROUP_ROWS).combine_chunks()
            waiting = waiting.slice(_GROUP_ROWS)
    for start in range(0, waiting.num_rows, _GROUP_ROWS):
        yield waiting.slice(start, _GROUP_ROWS).combine_chunks()
