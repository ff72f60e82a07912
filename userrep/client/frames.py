"""The frames of a client: pandas labels with the columns that a join adds, and the newest snapshot of a space."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from userrep.errors import UsageError, first_line, in_one_line
from userrep.joins.arrow_join import join_table
from userrep.joins.ledger import Sources, usable_sources
from userrep.joins.options import JoinOptions, case_faults, name_faults, warn_of_cast
from userrep.sources.id_files import IdFile, as_ids, read_id_file
from userrep.store.arrow import decoded, is_text
from userrep.store.bucket_reader import rows_below
from userrep.store.buckets import NUM_BUCKETS
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.tables import Tables

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import DataFrame

Listed: TypeAlias = str | os.PathLike[str] | Sequence[str] | pd.Series
_TIMES = pa.timestamp("us", "UTC")
_ROW = "userrep_row"  # column of the row numbers of labels
_NEWEST = pa.schema(
    {"user_id": pa.string(), "snapshot_id": pa.string(), "as_of": pa.date32(), "embedding": pa.list_(pa.float32())}
)


def join_frame(labels: pd.DataFrame, *, tables: Tables, sources: Sources, options: JoinOptions) -> pd.DataFrame:
    """Join pandas labels with embeddings; see ``Embeddings.join``. The index and all columns of the labels are kept."""
    joined = join_table(label_keys(labels, options), tables=tables, sources=sources, options=options)
    return with_added(labels, joined, options)


def with_added(labels: pd.DataFrame, joined: pa.Table, options: JoinOptions) -> pd.DataFrame:
    """Return the labels in ``joined``, in the order of the labels, with the columns that the join added."""
    if (np.diff(joined[_ROW].to_numpy()) < 0).any():  # a sort of many vectors could exceed the size of an array
        joined = joined.sort_by(_ROW)
    output = labels.iloc[joined[_ROW].to_numpy()].copy()
    for name in options.added:
        output[name] = joined[name].to_pandas().to_numpy()
    return output


def label_keys(labels: pd.DataFrame, options: JoinOptions) -> pa.Table:
    """Return the user ids (string) and times (timestamp, UTC) of labels as Arrow, with the row numbers.

    Raises UsageError with all faults: columns that are missing, of another type, or named as an output column.
    """
    faults = name_faults(list(labels.columns), options)
    if options.vectors == "vector":
        faults.append(
            "vectors: 'vector' is a type of Spark ML, and these labels are a pandas DataFrame. Leave the option out."
        )
    keys: dict[str, pa.Array] = {_ROW: pa.array(range(len(labels)), pa.int64())}
    for name, cast in ((options.user, _as_ids), (options.time, _as_times)):
        if list(labels.columns).count(name) != 1:
            columns = ", ".join(map(str, labels.columns))
            faults.append(f"labels: exactly one column must be named {name!r}, got the columns {columns}.")
            continue
        try:
            keys[name] = cast(labels[name], f"labels: column {name!r}")
        except UsageError as error:
            faults += error.faults
    if faults:
        raise UsageError(faults)
    return pa.table(keys)


def label_table(labels: pd.DataFrame, options: JoinOptions) -> pa.Table:
    """Return pandas labels as Arrow, with user ids as strings and times as UTC timestamps. Raises as ``label_keys``."""
    keys = label_keys(labels, options)
    names = {str(name) for name in labels.columns}
    num_by_name = Counter(name.lower() for name in names)
    faults = case_faults(names, options) + [
        f"labels: column {name!r} is the same to Spark as another column. Rename or drop it."
        for name in names
        if num_by_name[name.lower()] > 1
    ]
    if faults:
        raise UsageError(sorted(faults))
    try:
        others = pa.Table.from_pandas(labels.drop(columns=[options.user, options.time]), preserve_index=False)
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(
            f"labels: a column cannot be written ({in_one_line(error)}). Convert it to one type, rename or drop it."
        ) from None
    table = keys.drop_columns([_ROW])
    for field in others.schema:  # Spark does not read Parquet files with nanoseconds
        kind = pa.timestamp("us", field.type.tz) if pa.types.is_timestamp(field.type) else field.type
        table = table.append_column(field.name, others[field.name].cast(kind, safe=False))
    return table


def listed_ids(ids: Listed, name: str) -> IdFile:
    """Return user ids, or read them from a file or folder. ``name``: the parameter, for messages."""
    if isinstance(ids, str | os.PathLike):
        return read_id_file(os.path.expanduser(os.fspath(ids)), name)
    if isinstance(ids, pd.DataFrame):
        raise UsageError(f"{name}: expected ids, got a table. Give one of its columns.")
    if isinstance(ids, bytes) or not isinstance(ids, Iterable):
        raise UsageError(f"{name}: expected a list, a Series or a file of ids, got {type(ids).__name__}.")
    ids = ids if isinstance(ids, pd.Series) else list(ids)
    return IdFile(as_ids(_as_ids(pd.Series(ids, dtype=None if len(ids) else "object"), name)))


def _as_ids(values: pd.Series, where: str) -> pa.Array:
    """Return user ids as strings. Whole numbers are cast, with a warning."""
    ids = decoded(_as_arrow(values, where, "Cast it to string"))
    if pa.types.is_integer(ids.type):
        warn_of_cast(where)
    elif not (is_text(ids.type) or pa.types.is_null(ids.type)):
        # As text, floats would be 1.0, which matches no id.
        cure = "Convert whole numbers with astype('Int64')" if pa.types.is_floating(ids.type) else "Cast it to string"
        raise UsageError(f"{where} must be of type string, got {values.dtype} ({ids.type}). {cure}.")
    return ids.cast(pa.string())


def _as_times(values: pd.Series, where: str) -> pa.Array:
    """Return times as UTC timestamps. Times without a zone are UTC; a date is its 00:00 UTC."""
    cure = "Convert it with pandas.to_datetime(column, utc=True)"
    if pd.api.types.is_numeric_dtype(values.dtype):
        cure = "Convert it with pandas.to_datetime(column, unit='s', utc=True), with the unit of the numbers"
    elif isinstance(values.dtype, pd.PeriodDtype):
        cure = "Convert it with column.dt.to_timestamp()"
    times = _as_arrow(values, where, cure)
    if not (pa.types.is_timestamp(times.type) or pa.types.is_date(times.type) or pa.types.is_null(times.type)):
        raise UsageError(f"{where} must be of type timestamp, got {values.dtype} ({times.type}). {cure}.")
    is_mixed = pa.types.is_date(times.type) and any(isinstance(value, datetime) for value in values.dropna())
    if is_mixed:  # pyarrow has cut the times to their dates
        raise UsageError(f"{where} has values of several types (dates and times). {cure}.")
    return times.cast(_TIMES, safe=False)  # nanoseconds are cut off


def _as_arrow(values: pd.Series, where: str, cure: str) -> pa.Array:
    try:
        array = pa.Array.from_pandas(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise UsageError(f"{where} has values of several types ({first_line(error)}). {cure}.") from None
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def newest_frame(tables: Tables, space: str) -> DataFrame:
    """Return one row per user of a space's newest snapshot: user_id, snapshot_id, as_of, embedding. Lazy."""
    from pyspark.sql import functions as F

    sources = usable_sources(tables, space)
    snapshot = sources.newest
    rows = tables.read(USER_EMBEDDINGS, [snapshot.key], version=sources.version)
    return rows.select("user_id", F.lit(snapshot.snapshot_id).alias("snapshot_id"), "as_of", "embedding")


def newest_table(tables: Tables, space: str) -> pa.Table:
    """Return the rows of ``newest_frame`` as Arrow, for a root of files without Spark. Memory: all vectors."""
    snapshot = usable_sources(tables, space).newest
    rows = rows_below(NUM_BUCKETS, tables, USER_EMBEDDINGS, [snapshot.key], ["user_id", "embedding"])
    constants = (pa.repeat(value, len(rows)) for value in (snapshot.snapshot_id, pa.scalar(snapshot.as_of)))
    return pa.table([rows["user_id"], *constants, rows["embedding"]], names=_NEWEST.names).cast(_NEWEST)
