"""Training sets in files: tasks look up the vectors of their labels and write them, so none passes through the JVM."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from userrep.errors import UsageError
from userrep.joins.arrow_join import StoredVectors, joined_in_order
from userrep.joins.ledger import Sources
from userrep.joins.options import JoinOptions, prepared
from userrep.joins.read_vectors import bucket_of_label, tasks_of_users
from userrep.joins.training_sets import (
    chosen_sources,
    create_training_set,
    create_training_table,
    recorded_sources,
    training_set_id,
)
from userrep.spark.releases import repartition_by_number
from userrep.spark.session import shuffle_partitions
from userrep.store.buckets import slice_number
from userrep.store.export_files import Part, write_partitions, write_parts, write_rows
from userrep.store.export_folder import recorded_folder, write_folder_of_parts
from userrep.store.file_tables import FileTables
from userrep.store.tables import Tables

KIND = "training set"  # of an export
_MOST_LABELS = 500_000  # of a file: 240 MB of vectors of 120 numbers


def write_training_set(
    labels: DataFrame | pa.Table, out: str, *, tables: Tables, name: str, space: str | None, consumer: str | None,
    options: JoinOptions,
) -> dict[str, Any]:  # fmt: skip
    """Join and record labels as ``create_training_set`` does, and write the rows to a folder; return its manifest.

    The folder is recorded before any row is read, so that ``userrep forget`` erases users there. Rows are in no
    particular order.

    Cost: as ``create_training_set``, a count and one shuffle of the labels, and one pass over the vectors of their
    users, which tasks read and write in Arrow. A task has about 500,000 labels in memory, and the vectors of 16,384 of
    them. In a catalog, and with updates, Spark joins the labels and sorts the rows. Arrow labels are joined in this
    process, as by ``create_training_table``.

    Raises UsageError as ``create_training_set``, if the folder has other contents, or if ``options`` ask for Spark ML's
    vectors.
    """
    if options.vectors == "vector":
        raise UsageError("vectors: 'vector' is a type of Spark ML, which files do not have. Leave the option out.")
    as_of = chosen_sources(tables, name, space, consumer).newest.as_of
    made: dict[str, Any] = {"name": name, "space": space, "consumer": consumer, "options": options}
    with recorded_folder(tables, out, KIND, as_of, recorded=True):
        if isinstance(labels, pa.Table):
            in_order = labels.sort_by([(options.user, "ascending"), (options.time, "ascending")])
            rows, set_id = create_training_table(in_order, tables=tables, **made)
            write = partial(write_rows, rows, key=options.user)
            return _write_folder(out, tables, set_id, from_arrow_schema(rows.schema), write)
        labels = prepared(labels, options)
        joined = create_training_set(labels, tables=tables, **made)
        set_id, write = training_set_id(joined), partial(write_parts, joined, order=[options.user, options.time])
        if isinstance(tables, FileTables) and not options.updates:
            sources = recorded_sources(tables, set_id)[1]
            write = partial(write_joined, labels, tables=tables, sources=sources, options=options)
        return _write_folder(out, tables, set_id, joined.schema, write)


def _write_folder(
    out: str, tables: Tables, set_id: str, schema: StructType, write: Callable[[str], Sequence[Part]]
) -> dict[str, Any]:
    record, sources = recorded_sources(tables, set_id)
    details = {
        "training_set_id": set_id,
        "space_id": record.space_id,
        "dimension": sources.dim,
        "user_column": record.join_options.user,
    }
    as_of, columns = sources.snapshots[-1].as_of, {field.name: field.dataType.simpleString() for field in schema}
    return write_folder_of_parts(out, KIND, as_of, columns=columns, details=details, write=write)


def write_joined(
    labels: DataFrame, folder: str, *, tables: FileTables, sources: Sources, options: JoinOptions
) -> list[Part]:
    """Join labels from ``prepared`` in tasks that write them into an existing folder; return the parts.

    The rows are those of ``join_sources``, which also reports labels that are in-sample.
    """
    stored = StoredVectors.of(tables, sources, options)

    def join(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
        received = [batch for batch in batches if batch.num_rows]
        return joined_in_order(pa.Table.from_batches(received), sources, stored, options) if received else iter(())

    num_tasks = max(shuffle_partitions(tables.spark), tasks_of_users(stored.files), -(-labels.count() // _MOST_LABELS))
    task = slice_number(num_tasks, bucket_of_label(options.user, options.time))
    return write_partitions(repartition_by_number(labels, num_tasks, task), join, folder, key=options.user)
