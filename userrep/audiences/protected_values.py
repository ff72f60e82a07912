"""Values of protected attributes, read from the users table, of users whose vectors are in a snapshot."""

import pyarrow as pa
import pyarrow.compute as pc

from userrep.audiences.snapshot_users import SnapshotUsers
from userrep.config import Users
from userrep.sources.read_texts import read_texts
from userrep.store.arrow import combined

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
    wanted = {"columns.user_id": settings.columns.user_id}
    wanted |= {f"protected[{k}]": name for k, name in enumerate(settings.protected)}
    ids, *values = read_texts(users.tables, settings, "users", wanted, most_rows=_MOST_ASKED)
    rows = users.rows_of(ids.unique())[:_MOST_USERS]
    index = pc.index_in(combined(rows["user_id"]), value_set=ids)
    named = zip(settings.protected, values, strict=True)
    return {name: _as_numbers(texts).take(index) for name, texts in named}, rows["embedding"]


def _as_numbers(texts: pa.StringArray) -> pa.Array:
    """Return texts as float64 if all of them are numbers, null if not finite; otherwise as they are."""
    try:
        numbers = texts.cast(pa.float64())
    except pa.ArrowInvalid:
        return texts
    return pc.if_else(pc.is_finite(numbers), numbers, None)
