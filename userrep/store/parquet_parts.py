"""Parquet files whose names and bytes follow from their rows alone: for exports. Tasks or this process write them.

A part is a range of the hash buckets of an id. Equal bytes want the same releases of userrep and pyarrow.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from userrep.store import buckets, hashing
from userrep.store.arrow import combined
from userrep.store.storage import (
    PARTIAL,
    delete_file,
    exists,
    file_system,
    folder_names,
    open_parquet,
    read_bytes,
    write_bytes,
)

ROWS = 100_000  # of a file: 50 MB of embeddings, some 200 MB of features
_GROUP_ROWS = 16_384


MANIFEST = "_manifest.json"
_MOST_BYTES = 2**28  # of a manifest, which has a line for each part


class Part(NamedTuple):
    """A file of an export: its name in the folder, rows, and the SHA-256 of what is stored."""

    name: str
    num_rows: int
    sha256: str


@dataclass(frozen=True)
class StoredRows:
    """Rows as some files of a table have them, each with the values of its partition columns.

    ``finish`` turns a batch of a file, with these values, into one of the export.
    """

    files: Sequence[tuple[str, Mapping[str, Any]]]
    finish: Callable[[pa.RecordBatch, Mapping[str, Any]], pa.RecordBatch]


def write_parts(rows: DataFrame, folder: str, *, order: Sequence[str]) -> list[Part]:
    """Write rows into a folder that is there: into parts by the first column of ``order``, each sorted by all of them.

    The same rows give the same files, however they were laid out before. ``order`` names columns that no two rows
    share. Cost: a count, then one shuffle of all rows and a sort within each part, in memory or on the workers' disks:
    some 250 GB for 500M embeddings of 120 numbers, 5000 parts. No order spans the parts, which would take another pass
    over the rows. Driver memory: one entry a part.
    """
    key, num_parts = order[0], _num_parts(rows.count())
    part = F.floor(buckets.bucket_of(key) * num_parts / buckets.NUM_BUCKETS).cast("int")

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        filled = (pa.Table.from_batches([batch]) for batch in batches if batch.num_rows)
        first = next(filled, None)
        if first is not None:
            context = TaskContext.get()
            assert context is not None
            part = _write(folder, _named(context.partitionId()), key, first, filled)
            yield pa.RecordBatch.from_pylist([part._asdict()])

    parts = rows.repartitionById(num_parts, part).sortWithinPartitions(*order)
    found = parts.mapInArrow(write, "name STRING, num_rows BIGINT, sha256 STRING").collect()
    return sorted(Part(row.name, row.num_rows, row.sha256) for row in found)


def write_parts_here(rows: StoredRows, columns: StructType, folder: str, *, order: Sequence[str]) -> list[Part]:
    """Write the files of ``write_parts`` without Spark, to the byte. ``columns``: of the export, as Spark has them.

    Cost: the ids of all rows are read once for each part, the rows once. Memory: the rows of one part.
    """
    key, stored = order[0], [(open_parquet(file), values) for file, values in rows.files]
    num_parts, parts = _num_parts(sum(file.metadata.num_rows for file, _ in stored)), []
    schema = to_arrow_schema(columns)
    for part in range(num_parts):
        found = [schema.empty_table()]
        for file, values in stored:
            for group in range(file.metadata.num_row_groups):
                bucket_N = hashing.bucket_of(combined(file.read_row_group(group, columns=[key]).column(key)))
                is_part_N = bucket_N.astype(np.int64) * num_parts // buckets.NUM_BUCKETS == part
                if is_part_N.any():
                    batches = file.read_row_group(group).filter(pa.array(is_part_N)).to_batches()
                    found += [pa.Table.from_batches([rows.finish(batch, values)]).cast(schema) for batch in batches]
        whole = pa.concat_tables(found).sort_by([(name, "ascending") for name in order])
        if whole.num_rows:
            parts.append(_write(folder, _named(part), key, whole, []))
    return parts


def _num_parts(num_rows: int) -> int:
    return max(1, -(-num_rows // ROWS))


def _named(part: int) -> str:
    return f"part-{part:05d}.parquet"


def erase_from_parts(spark: SparkSession, folder: str, held: Callable[[pa.Array], NDArray[np.bool_]]) -> int | None:
    """Take rows out of an export, by ``user_id``; return how many, or None if no export is there any more.

    ``held``: says of ids whether their rows go. Parts that have some are written anew; then the manifest has the
    numbers and hashes of what is there, also after an earlier attempt was cut off. An export that is not complete is
    removed but for its manifest: it has to be run again in any case. Cost: one read of all parts.
    """
    if not exists(f"{folder}/{MANIFEST}"):
        return None
    manifest = json.loads(read_bytes(f"{folder}/{MANIFEST}", max_bytes=_MOST_BYTES))
    names = [name for name in folder_names(folder) if re.fullmatch(r"part-.+\.parquet", name)]
    is_complete = manifest.get("state") == "complete"
    for name in folder_names(folder):
        if name.startswith(f"{PARTIAL}part-") or (name in names and not is_complete):
            delete_file(f"{folder}/{name}")
    if not is_complete:
        return 0
    if set(names) != set(manifest["sha256"]):
        raise ValueError("its parts are not those that its manifest names")

    def erase(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for row in (row for batch in batches for row in batch.to_pylist()):
            part, num_gone = _without(folder, row["name"], held)
            yield pa.RecordBatch.from_pylist([part._asdict() | {"num_gone": num_gone}])

    listed = spark.createDataFrame([(name,) for name in names], "name STRING").repartition(max(1, len(names)))
    found = listed.mapInArrow(erase, "name STRING, num_rows BIGINT, sha256 STRING, num_gone BIGINT").collect()
    sha256 = {row.name: row.sha256 for row in sorted(found)}
    if sha256 != manifest["sha256"]:
        manifest |= {"num_rows": sum(row.num_rows for row in found), "sha256": sha256}
        write_bytes(f"{folder}/{MANIFEST}", json.dumps(manifest, indent=1).encode())
    return sum(int(row.num_gone) for row in found)


def _without(folder: str, name: str, held: Callable[[pa.Array], NDArray[np.bool_]]) -> tuple[Part, int]:
    rows = open_parquet(f"{folder}/{name}").read(use_threads=False)
    is_gone = held(combined(rows.column("user_id")))
    if not is_gone.any():
        return Part(name, rows.num_rows, _sha256(*file_system(f"{folder}/{name}"))), 0
    return _write(folder, name, "user_id", rows.filter(pa.array(~is_gone)), []), int(is_gone.sum())


def _sha256(files: pyarrow.fs.FileSystem, path: str) -> str:
    with files.open_input_file(path) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


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
    sha256 = _sha256(files, staged)
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
