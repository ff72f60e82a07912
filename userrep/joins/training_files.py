"""Training sets in files: tasks look up the vectors of their labels and write them, so none passes through the JVM."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.fs
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_type

from userrep.errors import UsageError
from userrep.joins.arrow_join import StoredVectors, joined_in_order
from userrep.joins.ledger import Sources
from userrep.joins.options import JoinOptions, column, prepared
from userrep.joins.read_vectors import bucket_of_label
from userrep.joins.training_sets import joined_as_recorded, recorded_join, table_as_recorded
from userrep.sources.listing import check_not_read
from userrep.spark.releases import repartition_by_number
from userrep.spark.session import shuffle_partitions
from userrep.store.buckets import slice_number
from userrep.store.export_files import Part, write_partitions, write_parts, write_rows
from userrep.store.export_folder import check_out, recorded_folder, write_folder_of_parts
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import file_system
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.tables import Tables

_KIND = "training set"  # of an export
_ADDED_TYPES = "string", "date", "array<float>", "string"  # of the columns in ``options.added``
_LABELS_AT_ONCE = 500_000  # most labels that a task joins at once, and the average of a file; 240 MB of vectors
_BYTES_AT_ONCE = 2**28  # of these labels without vectors


def write_training_set(
    labels: DataFrame | pa.Table, out: str, *, tables: Tables, name: str, space: str | None, consumer: str | None,
    options: JoinOptions,
) -> dict[str, Any]:  # fmt: skip
    """Join and record labels as ``create_training_set`` does, and write the rows to a folder; return its manifest.

    The folder is recorded before any row is read, so that ``userrep forget`` erases users there. Rows are in no
    particular order.

    Cost: as ``create_training_set``; then a count, one shuffle and a sort of the labels, and one pass over the vectors
    of their users, which tasks read and write in Arrow. A task holds up to 500,000 labels or 256 MB of them. In a
    catalog, and with updates, Spark joins the labels. Arrow labels are joined as by ``create_training_table``.

    Raises
    ------
    UsageError
        As ``create_training_set``, if the folder has other contents or has the files of ``labels``, or if ``options``
        ask for Spark ML's vectors.
    AlreadyRunningError
        If another process writes to the folder or erases users there.
    """
    if options.vectors == "vector":
        raise UsageError("vectors: 'vector' is a type of Spark ML, which files do not have. Leave the option out.")
    check_not_read(out, [f"{tables.location}/{name}" for name in ("tables", "artifacts")])
    check_out(out)
    if not isinstance(labels, pa.Table):
        labels = prepared(labels, options)
        _check_read_elsewhere(labels, out)
    record, sources = recorded_join(labels, tables=tables, name=name, space=space, consumer=consumer, options=options)
    as_of = sources.snapshots[-1].as_of
    details = {
        "training_set_id": record.training_set_id,
        "space_id": record.space_id,
        "dimension": sources.dim,
        "user_column": options.user,
    }
    with recorded_folder(tables, out, _KIND, as_of, recorded=True):
        # An erasure that ended before the folder was recorded is in this version; a later one finds the folder.
        sources = replace(sources, version=tables.version(USER_EMBEDDINGS))
        if isinstance(labels, pa.Table):
            rows = table_as_recorded(labels, tables, sources, record)
            columns = {field.name: _type_name(field.type) for field in rows.schema}
            write = partial(write_rows, rows, key=options.user)
        else:
            columns = dict(labels.dtypes) | dict(zip(options.added, _ADDED_TYPES, strict=True))
            if isinstance(tables, FileTables) and not options.updates:
                write = partial(write_joined, labels, tables=tables, sources=sources, options=options)
            else:
                joined = joined_as_recorded(labels, tables, sources, record)
                write = partial(write_parts, joined, order=[options.user, options.time])
        return write_folder_of_parts(out, _KIND, as_of, columns=columns, details=details, write=write)


def _check_read_elsewhere(labels: DataFrame, out: str) -> None:
    """Check that the labels are not read from the folder, whose files are deleted before the labels are read."""
    target = _place(out)
    folders = {file.rpartition("/")[0] for file in labels.inputFiles()}
    if any(f"{_place(folder)}/".startswith(f"{target}/") for folder in folders):
        raise UsageError(f"--out {out}: the labels are read from this folder. Choose another folder.")


def _place(uri: str) -> str:
    """Return the same text for all names of a folder: with and without ``file:`` or escapes, or through a link."""
    try:
        files, path = file_system(uri)
    except (ValueError, OSError):  # a store to which only Spark has access
        return uri.rstrip("/")
    return os.path.realpath(path) if isinstance(files, pyarrow.fs.LocalFileSystem) else path.rstrip("/")


def _type_name(kind: pa.DataType) -> str:
    try:
        return str(from_arrow_type(kind).simpleString())
    except PySparkException:  # a type that only pandas has
        return str(kind)


def write_joined(
    labels: DataFrame, folder: str, *, tables: FileTables, sources: Sources, options: JoinOptions
) -> list[Part]:
    """Join labels from ``prepared`` in tasks that write them into an existing folder; return the parts.

    The rows are those of ``join_sources``, which also reports labels that are in-sample. The same labels give the same
    files, except for the order of labels that differ only in a map.
    """
    stored = StoredVectors.of(tables, sources, options)
    z_D = stored.new_user() if options.missing == "new_user" else None  # here, so that tasks need no torch
    stored = replace(stored, new_user=lambda: z_D)

    def join(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
        for rows in _in_pieces(batches):
            yield from joined_in_order(rows, sources, stored, options)

    num_tasks = max(shuffle_partitions(tables.spark), -(-labels.count() // _LABELS_AT_ONCE))
    task = slice_number(num_tasks, bucket_of_label(options.user, options.time))
    others = [column(name) for name, kind in labels.dtypes if "map<" not in kind]
    in_order = repartition_by_number(labels, num_tasks, task).sortWithinPartitions(
        column(options.user), column(options.time), F.xxhash64(*others)
    )
    return write_partitions(in_order, join, folder, key=options.user)


def _in_pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Combine batches up to the number of labels, or of bytes, that a task joins at once."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(b.num_rows for b in held) >= _LABELS_AT_ONCE or sum(b.nbytes for b in held) >= _BYTES_AT_ONCE:
            yield pa.Table.from_batches(held)
            held = []
    if any(batch.num_rows for batch in held):
        yield pa.Table.from_batches(held)
