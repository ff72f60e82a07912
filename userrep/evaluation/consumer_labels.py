"""Labels of a consumer: read without Spark, sampled by user, and joined with the vectors of two spaces.

Shapes: N labels, E dimensions of the old space, F of the new one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds
from deltalake.exceptions import DeltaError

from userrep.errors import UsageError, first_line
from userrep.evaluation.metrics import Floats32, Ints
from userrep.joins.arrow_join import join_table
from userrep.joins.ledger import steps_of, usable_sources
from userrep.joins.options import JoinOptions
from userrep.joins.statuses import FOUND
from userrep.sources.listing import Listings, as_spark_reads, detect_format, is_pattern, list_files
from userrep.spaces.registry import Space
from userrep.spaces.snapshots import PUBLISHED
from userrep.spaces.verdicts import LabelTable
from userrep.store.arrow import combined, is_text, stacked
from userrep.store.buckets import NUM_BUCKETS
from userrep.store.data_files import dataset_of
from userrep.store.filesystem import absolute, exists
from userrep.store.tables import Tables
from userrep.store.xxhash import bucket_of

LABEL = "label"
_SCHEMA = pa.schema({"user_id": pa.string(), "label_at": pa.timestamp("us", "UTC"), LABEL: pa.float64()})
_ROW = "userrep_row"


@dataclass(frozen=True)
class LabelRows:
    """N labels of two spaces' users: label y_N, its user and time (microseconds since 1970 UTC), and both vectors.

    ``as_of_N``: the as-of date of both vectors, in days since 1970.
    """

    users: pa.StringArray
    at_N: Ints
    y_N: Floats32
    as_of_N: Ints
    old_NE: Floats32
    new_NF: Floats32

    def __len__(self) -> int:
        return len(self.at_N)


def read_label_rows(table: LabelTable, tables: Tables, old: Space, new: Space, *, most: int) -> LabelRows:
    """Read the labels for which both spaces have a vector of the same as-of date after both trainings.

    A vector from before the end of a space's training would favor that space, and a newer vector than the other
    space's would too, so labels with such vectors are left out. Above ``most`` labels, users are sampled by bucket.

    Cost: one pass over three columns of the labels, and the look-ups of ``join_table`` in both spaces, which read only
    the buckets of sampled users. Memory: one batch of the file, and a small multiple of ``most`` vectors. In a catalog,
    the two joins run in Spark.

    Raises
    ------
    UsageError
        If the labels are missing, unreadable or lack a column, a space is retired or has no usable snapshot, or no
        label has a vector of both spaces.
    """
    since = max(_usable_since(tables, space) for space in (old, new))
    labels = read_labels(table, since=since, most=most)
    numbered = labels.append_column(_ROW, pa.array(range(labels.num_rows), pa.int64()))
    of_old, of_new = (
        join_table(numbered, tables=tables, sources=usable_sources(tables, space), options=JoinOptions()).sort_by(_ROW)
        for space in (old, new)
    )
    is_found = pc.and_(*(pc.equal(rows["embedding_status"], FOUND) for rows in (of_old, of_new)))
    kept = pc.and_(is_found, pc.equal(of_old["as_of"], of_new["as_of"]).fill_null(False))
    of_old, of_new = of_old.filter(kept), of_new.filter(kept)
    if not of_old.num_rows:
        raise UsageError(
            f"--labels {table.labels}: none of {labels.num_rows:,} labels since {since:%Y-%m-%d %H:%M} UTC has vectors "
            f"of {old.space_id} and {new.space_id} with the same as-of date. From that time on, both spaces have "
            "snapshots of dates after their training. Use later labels, or publish later dates with `userrep daily`."
        )
    return LabelRows(
        users=combined(of_old["user_id"]),
        at_N=of_old["label_at"].cast(pa.int64()).to_numpy(),
        y_N=of_old[LABEL].to_numpy().astype(np.float32),
        as_of_N=of_old["as_of"].cast(pa.int32()).to_numpy().astype(np.int64),
        old_NE=_vectors(of_old),
        new_NF=_vectors(of_new),
    )


def _usable_since(tables: Tables, space: Space) -> datetime:
    """Return the earliest label time that gets a vector of a date after a space's training. Raises UsageError."""
    steps = steps_of(usable_sources(tables, space).snapshots, "ledger")
    usable = [since for since, snapshot in steps if snapshot.state == PUBLISHED and not snapshot.in_sample]
    if not usable:
        raise UsageError(
            f"space {space.space_id}: no published snapshot is dated {space.trained_until}, the end of its training, "
            "or later. Publish one with `userrep daily`."
        )
    return usable[0]


def _vectors(joined: pa.Table) -> Floats32:
    vectors = combined(joined["embedding"])
    return stacked(vectors, len(vectors[0]))


def read_labels(table: LabelTable, *, since: datetime, most: int) -> pa.Table:
    """Read the labels from a time on (naive UTC) as user_id, label_at (UTC) and label (float64), by user and time.

    Rows with a null, or a label that is not finite, are left out. If there are more than ``most``, only users in the
    lowest buckets are kept: half of the buckets, a quarter, and so on, whatever the order of the rows.

    Raises
    ------
    UsageError
        If the path does not exist, its format is not Parquet, Delta or CSV, a column is missing or has another type,
        or a file is not readable.
    """
    kept, limit = _SCHEMA.empty_table(), NUM_BUCKETS
    try:
        dataset = _dataset(table)
        _check_columns(dataset.schema, table)
        for batch in dataset.to_batches(columns=[table.user_column, table.time_column, LABEL]):
            rows = _usable(pa.table(batch.columns, _SCHEMA.names), since)
            kept = pa.concat_tables([kept, rows.filter(bucket_of(combined(rows["user_id"])) < limit)])
            while kept.num_rows > most and limit > 1:
                limit //= 2
                kept = kept.filter(bucket_of(combined(kept["user_id"])) < limit)
    except (pa.ArrowException, OSError, ValueError, DeltaError) as error:
        reason = first_line(error)
        raise UsageError(f"--labels {table.labels}: not readable ({reason}). Check the file and its format.") from None
    return kept.sort_by([("user_id", "ascending"), ("label_at", "ascending"), (LABEL, "ascending")])


def _dataset(table: LabelTable) -> ds.Dataset:
    path = as_spark_reads(table.labels)
    if not is_pattern(path) and not exists(absolute(path)):
        raise UsageError(f"--labels {table.labels}: not found.")
    format_ = detect_format(path, "labels", Listings())
    if format_ == "delta":
        return dataset_of(path)
    if format_ not in ("parquet", "csv"):
        raise UsageError(f"--labels {table.labels}: the format is {format_}. Use Parquet, Delta or CSV.")
    as_text = pyarrow.csv.ConvertOptions(column_types={table.user_column: pa.string()})
    files = list_files(path, format_, "labels")
    return ds.dataset(
        [file.path for file in files],
        filesystem=files[0].store,
        format=ds.CsvFileFormat(convert_options=as_text) if format_ == "csv" else "parquet",
    )


def _check_columns(schema: pa.Schema, table: LabelTable) -> None:
    """Raise UsageError, with all faults, if a column is missing or has another type."""
    kinds = pa.types
    expected: dict[str, tuple[str, tuple[Callable[[pa.DataType], bool], ...]]] = {
        table.user_column: ("text or whole numbers", (is_text, kinds.is_integer)),
        table.time_column: ("times or dates", (kinds.is_timestamp, kinds.is_date)),
        LABEL: ("numbers or booleans", (kinds.is_integer, kinds.is_floating, kinds.is_boolean)),
    }
    missing, unfit = [], []
    for name, (what, checks) in expected.items():
        where = f"--labels {table.labels}: column {name!r}"
        if name not in schema.names:
            missing.append(f"{where} is missing. The columns are {', '.join(schema.names)}.")
        elif not any(is_of_kind(schema.field(name).type) for is_of_kind in checks):
            unfit.append(f"{where} must have {what}, got {schema.field(name).type}. Convert it.")
    if missing or unfit:
        raise UsageError([*missing, *unfit])


def _usable(rows: pa.Table, since: datetime) -> pa.Table:
    """Convert the columns of labels, and keep rows without nulls from a time on."""
    columns = {f.name: rows[f.name].cast(f.type, safe=pa.types.is_floating(f.type)) for f in _SCHEMA}
    rows = pa.table(columns, _SCHEMA).drop_null()
    is_late = pc.greater_equal(rows["label_at"], pa.scalar(since.replace(tzinfo=UTC), _SCHEMA.field("label_at").type))
    return rows.filter(pc.and_(is_late, pc.is_finite(rows[LABEL])))
