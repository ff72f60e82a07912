"""Bitwise comparison of the last streamed vectors of an as-of date with its snapshot."""

from datetime import date, timedelta
from typing import NamedTuple

from pyspark.sql import functions as F

from userrep.errors import UsageError
from userrep.spaces.registry import Space
from userrep.spaces.snapshots import newest_snapshot
from userrep.store.schemas import EMBEDDING_UPDATES, USER_EMBEDDINGS
from userrep.store.tables import Tables
from userrep.tiles.ledger import read_tiles


class StreamAgreement(NamedTuple):
    """Number of users whose streamed and published vectors are equal or different, or of which one is missing."""

    equal: int
    different: int
    not_streamed: int
    not_in_snapshot: int

    @property
    def is_equal(self) -> bool:
        return self.equal == sum(self)

    @property
    def share_equal(self) -> float:
        return self.equal / max(1, sum(self))


def verify_updates(tables: Tables, space: Space, as_of: date) -> StreamAgreement:
    """Compare streamed and published vectors of all users with events on the day before ``as_of`` or streamed vectors.

    A user's streamed vector with the newest event, then the latest computation, is compared. Cost: the rows of the
    snapshot, the updates of the date and one day of tiles, each shuffled by user once.

    Raises
    ------
    UsageError
        If the date has no snapshot or no streamed vectors.
    """
    snapshot = newest_snapshot(tables, space.space_id, as_of)
    updates = tables.read(EMBEDDING_UPDATES, [{"space_id": space.space_id, "as_of": as_of}])
    if updates.isEmpty():
        raise UsageError(f"stream verify: no streamed vectors of space {space.space_id} for as-of date {as_of}.")
    active = read_tiles(tables, start=as_of - timedelta(days=1), end=as_of).select("user_id").distinct()
    published = tables.read(USER_EMBEDDINGS, [snapshot.key]).select("user_id", F.col("embedding").alias("batch"))
    last = F.max_by("embedding", F.struct("event_at", "computed_at"))
    streamed = updates.groupBy("user_id").agg(last.alias("stream"))
    both = streamed.join(active, on="user_id", how="full_outer").join(published, on="user_id", how="left")
    counts = both.agg(
        F.count_if(F.col("batch") == F.col("stream")).alias("equal"),
        F.count_if(F.col("batch") != F.col("stream")).alias("different"),
        F.count_if(F.col("batch").isNotNull() & F.col("stream").isNull()).alias("not_streamed"),
        F.count_if(F.col("batch").isNull()).alias("not_in_snapshot"),
    ).first()
    assert counts is not None
    return StreamAgreement(**counts.asDict())
