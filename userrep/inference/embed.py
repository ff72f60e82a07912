"""Embeddings of a whole feature table, either as files written by the tasks or as rows for Spark to write."""

import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from userrep.inference.encoder import Encoder
from userrep.store.arrow import listed, one_batch
from userrep.store.data_files import TableFile
from userrep.store.filesystem import open_parquet, parquet_footer
from userrep.store.parquet_writer import TableWriter, Target
from userrep.store.xxhash import bucket_of

_MAX_ROWS = 250_000  # per task and therefore per file: 120 MB at 120 dimensions
_MIN_ROWS = 16_384  # per task; with fewer, starting the task costs more than it saves


FilePart = tuple[TableFile, int, int]  # a file and a range ``[first, stop)`` of its rows


def encoded_features(features: DataFrame, load_encoder: Callable[[], Encoder]) -> DataFrame:
    """Encode user features.

    Parameters
    ----------
    features : rows of ``user_features`` of the space's lineage. load_encoder : called in each task.

    Returns
    -------
    One row per row of features: as_of, user_id, embedding array<float>. Narrow, without a shuffle.
    """

    def encode(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        encoder = load_encoder()
        for batch in batches:
            vectors = listed(encoder.embed(batch))
            keys = [batch.column("as_of"), batch.column("user_id")]
            yield pa.RecordBatch.from_arrays([*keys, vectors], ["as_of", "user_id", "embedding"])

    return features.mapInArrow(encode, "as_of DATE, user_id STRING, embedding ARRAY<FLOAT>")


def embed_files(
    spark: SparkSession,
    files: Sequence[TableFile],
    load_encoder: Callable[[], Encoder],
    *,
    target: Target,
    values: Mapping[date, Mapping[str, Any]],
    min_tasks: int,
) -> list[TableFile]:
    """Encode files of user features into new, uncommitted files of ``target``. No row passes through the JVM.

    The vectors equal those of ``encoded_features`` to the bit, however the rows are divided into tasks. Every task
    writes one file per feature file that it reads, also sorted by user bucket. Cost: one pass without a shuffle.
    Memory: one row group of features and one of vectors per task, and one entry per file in the driver.

    Parameters
    ----------
    files : feature files, sorted by user bucket. load_encoder : called in each task.
    target : the table to write to. values : values of the target's partition columns, by as-of date.
    min_tasks : number of tasks to aim for, as long as each has at least 16,384 rows.
    """
    tasks = _tasks(files, min_tasks)

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        encoder = load_encoder()
        for task_id in (task_id for batch in batches for task_id in batch.column("id").to_pylist()):
            files = [file for part in tasks[task_id] for file in _write_embeddings(part, encoder, target, values)]
            yield pa.record_batch({"file": pa.array([file.to_json() for file in files], pa.string())})

    written = spark.range(0, len(tasks), 1, max(1, len(tasks))).mapInArrow(work, "file STRING").collect()
    return [TableFile.from_json(row.file) for row in written]


def _tasks(files: Sequence[TableFile], min_tasks: int) -> list[list[FilePart]]:
    """Divide the concatenated rows of all files into tasks of equal length.

    A task encodes the row groups that begin in its parts.
    """
    starts = list(accumulate((file.num_rows for file in files), initial=0))
    num_tasks = max(-(-starts[-1] // _MAX_ROWS), min(min_tasks, -(-starts[-1] // _MIN_ROWS)))
    cuts = [starts[-1] * k // max(1, num_tasks) for k in range(num_tasks + 1)]
    tasks = []
    for first, stop in pairwise(cuts):
        part = range(bisect.bisect_right(starts, first) - 1, bisect.bisect_left(starts, stop))
        tasks.append([(files[k], first - starts[k], stop - starts[k]) for k in part if files[k].num_rows])
    return tasks


def _write_embeddings(
    part: FilePart, encoder: Encoder, target: Target, values: Mapping[date, Mapping[str, Any]]
) -> list[TableFile]:
    """Encode the row groups of a feature file that begin in a range of rows. Return the written files."""
    file, first, stop = part
    columns = ["user_id", *(name for name, _ in encoder.layout.spec.stored_columns() if name != "is_exact")]
    footer = parquet_footer(file.uri)
    starts = accumulate((footer.row_group(k).num_rows for k in range(footer.num_row_groups)), initial=0)
    row_groups = [k for k, start in zip(range(footer.num_row_groups), starts, strict=False) if first <= start < stop]
    writer = TableWriter(target)
    with open_parquet(file.uri, footer) as content:
        for k in row_groups:
            rows = content.read_row_group(k, columns=columns, use_threads=False)
            batch = one_batch(rows)
            user_id = batch.column("user_id")
            vectors = {"user_bucket": bucket_of(user_id), "user_id": user_id, "embedding": listed(encoder.embed(batch))}
            writer.write(pa.table(vectors), values[file.values["as_of"]])
    return writer.close()
