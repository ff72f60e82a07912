"""Embeddings of a whole feature table: from files to files by tasks, or from rows to rows for Spark to write."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from userrep.inference.encoder import Encoder, worker_encoder
from userrep.store.arrow import combined, listed
from userrep.store.hashing import bucket_of
from userrep.store.storage import open_parquet, parquet_footer
from userrep.store.table_files import TableFile
from userrep.store.table_writer import TableWriter, Target

_MOST_ROWS = 250_000  # of a task, and so of a file: 120 MB of 120 dimensions
_LEAST_ROWS = 16_384  # for which a task is worth its start


class FeatureFile(NamedTuple):
    """A file of user features of one date."""

    uri: str
    num_rows: int
    as_of: date


class _Task(NamedTuple):
    """Files, each with the rows ``[first, stop)`` at which the row groups of the task begin."""

    files: list[tuple[FeatureFile, int, int]]


def embedded(features: DataFrame, *, folder: str, content_hash: str) -> DataFrame:
    """Encode user features with a space's artifact.

    Parameters
    ----------
    features : rows of ``user_features`` of the space's lineage. folder, content_hash : the space's artifact.

    Returns
    -------
    One row per row of features: as_of, user_id, embedding array<float>. Narrow: no shuffle; weights are read once
    per worker.
    """

    def encode(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        encoder = worker_encoder(folder, content_hash)
        for batch in batches:
            vectors = listed(encoder.embed(batch))
            keys = [batch.column("as_of"), batch.column("user_id")]
            yield pa.RecordBatch.from_arrays([*keys, vectors], ["as_of", "user_id", "embedding"])

    return features.mapInArrow(encode, "as_of DATE, user_id STRING, embedding ARRAY<FLOAT>")


def embed_files(
    spark: SparkSession,
    files: Sequence[FeatureFile],
    *,
    folder: str,
    content_hash: str,
    target: Target,
    values: Mapping[date, Mapping[str, Any]],
    min_tasks: int,
) -> list[TableFile]:
    """Encode files of user features into files of ``target`` that nothing refers to yet; no row passes through the JVM.

    ``folder``, ``content_hash``: the space's artifact. ``values``: of the target's partition columns, for each date.
    The vectors are those of ``embedded``, to the bit, whatever the tasks. Cost: one pass, no shuffle; a task holds a
    row group of features and one of vectors. Driver memory: one entry a file. A file of features, which has a range of
    user buckets in order, gives files that have them too, one for each task that reads it.
    """
    tasks = _tasks(files, min_tasks)

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        encoder = worker_encoder(folder, content_hash)
        for number in (number for batch in batches for number in batch.column("id").to_pylist()):
            written = [
                {"path": file.path, "size": file.size, "num_rows": file.num_rows, "as_of": part[0].as_of,
                 "buckets": file.buckets}
                for part in tasks[number].files
                for file in _written(part, encoder, target, values)
            ]  # fmt: skip
            if written:
                yield pa.RecordBatch.from_pylist(written)

    schema = "path STRING, size BIGINT, num_rows BIGINT, as_of DATE, buckets ARRAY<BIGINT>"
    done = spark.range(0, len(tasks), 1, max(1, len(tasks))).mapInArrow(work, schema).collect()
    return [TableFile(row.path, row.size, row.num_rows, dict(values[row.as_of]), tuple(row.buckets)) for row in done]


def _tasks(files: Sequence[FeatureFile], min_tasks: int) -> list[_Task]:
    """Cut the rows of all files, one after the other, into stretches of one length."""
    starts = list(accumulate((file.num_rows for file in files), initial=0))
    total = starts[-1]
    num_tasks = max(-(-total // _MOST_ROWS), min(min_tasks, -(-total // _LEAST_ROWS)))
    cuts = [total * k // num_tasks for k in range(num_tasks + 1)] if num_tasks else []
    return [
        _Task(
            [
                (file, first - start, stop - start)
                for file, start in zip(files, starts, strict=False)
                if start < stop and first < start + file.num_rows
            ]
        )
        for first, stop in pairwise(cuts)
    ]


def _written(
    part: tuple[FeatureFile, int, int], encoder: Encoder, target: Target, values: Mapping[date, Mapping[str, Any]]
) -> list[TableFile]:
    """Encode the row groups of a file of features that begin within a task's rows, into a file of vectors."""
    file, first, stop = part
    columns = ["user_id", *(name for name, _ in encoder.layout.spec.stored_columns() if name != "is_exact")]
    footer = parquet_footer(file.uri)
    sizes = [footer.row_group(k).num_rows for k in range(footer.num_row_groups)]
    starts = zip(range(len(sizes)), accumulate(sizes, initial=0), strict=False)
    mine = [k for k, start in starts if first <= start < stop]
    writer = TableWriter(target)
    with open_parquet(file.uri, footer) as content:
        for k in mine:
            rows = content.read_row_group(k, columns=columns, use_threads=False)
            batch = pa.RecordBatch.from_arrays([combined(column) for column in rows.columns], rows.column_names)
            user_id = batch.column("user_id")
            vectors = {"user_bucket": bucket_of(user_id), "user_id": user_id, "embedding": listed(encoder.embed(batch))}
            writer.write(pa.table(vectors), values[file.as_of])
    return writer.close()
