"""Values of protected attributes, read from the users table, of users whose vectors are in a snapshot."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from userrep.audiences.snapshot_users import SnapshotUsers
from userrep.config import Users
from userrep.errors import UsageError
from userrep.sources.columns import as_text, check_columns, id_text
from userrep.sources.id_files import id_texts
from userrep.sources.read import read_source
from userrep.sources.sample import spark_columns, take_sample
from userrep.store.arrow import combined
from userrep.store.buckets import user_bucket
from userrep.store.tables import Tables
from userrep.store.xxhash import bucket_of

_MOST_ASKED, _MOST_USERS = 120_000, 30_000  # of the users table that are looked up; of those in the snapshot


def read_protected(settings: Users, users: SnapshotUsers) -> tuple[dict[str, pa.Array], pa.ChunkedArray]:
    """Return the values of the protected attributes of up to 30,000 users of a snapshot, and the users' vectors.

    Values are text or float64, null if unknown. The users are those with the lowest hash buckets that have a value. If
    a user has several rows, one of them is used. Cost: one read of up to 2 million rows of the users table, and the row
    groups of the users. A users table in a catalog is read with Spark.

    Raises
    ------
    UsageError
        If the users table cannot be read, or lacks a column.
    """
    ids, values = _from_catalog(users.tables, settings) if settings.format == "table" else _from_files(settings)
    is_known = pc.and_(ids.is_valid(), np.logical_or.reduce([column.is_valid() for column in values.columns]))
    ids, values = ids.filter(is_known), values.filter(is_known)
    asked = ids.take(pa.array(np.argsort(bucket_of(ids), kind="stable")[:_MOST_ASKED])).unique()
    found = users.rows_of(asked)[:_MOST_USERS]
    row = pc.index_in(combined(found["user_id"]), value_set=ids)
    return {name: _typed(combined(values[name])).take(row) for name in settings.protected}, found["embedding"]


def _from_files(settings: Users) -> tuple[pa.StringArray, pa.Table]:
    """Return user ids and the protected columns of the same rows."""
    sample = take_sample(settings, "users")
    check_columns(spark_columns(sample), _columns(settings), "users")
    try:
        ids = id_texts(combined(sample.rows[settings.columns.user_id]))
    except ValueError as error:
        raise UsageError(f"users.columns.user_id: {error}. Convert the column to text.") from None
    return ids, sample.rows.select(settings.protected)


def _from_catalog(tables: Tables, settings: Users) -> tuple[pa.StringArray, pa.Table]:
    """Return what ``_from_files`` does, of the users with the lowest hash buckets."""
    source = read_source(tables.spark, settings, what="users")
    check_columns(source.schema, _columns(settings), "users")
    names = [f"protected_{k}" for k in range(len(settings.protected))]
    values = [as_text(source, column).alias(name) for name, column in zip(names, settings.protected, strict=True)]
    rows = source.select(id_text(source, settings.columns.user_id).alias("user_id"), *values)
    lowest = rows.dropna("all", subset=names).orderBy(user_bucket()).limit(_MOST_ASKED).toArrow()
    return combined(lowest["user_id"]), lowest.select(names).rename_columns(settings.protected)


def _columns(settings: Users) -> dict[str, str]:
    """Return the columns that are needed, by configuration key."""
    protected = {f"protected[{k}]": name for k, name in enumerate(settings.protected)}
    return {"columns.user_id": settings.columns.user_id} | protected


def _typed(values: pa.Array) -> pa.Array:
    """Return values as float64 if all of them are numbers, also as text, otherwise as text."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    try:
        return values.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # text without a number, or a type that is none
        return values.cast(pa.string())
