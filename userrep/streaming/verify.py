"""Whether stream and batch agree: the last streamed vectors of an as-of date against its snapshot, to the bit."""

from dataclasses import dataclass
from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.errors import UsageError
from userrep.spaces.registry import Space
from userrep.spaces.snapshots import newest_snapshot
from userrep.store.schemas import EMBEDDING_UPDATES, USER_EMBEDDINGS
from userrep.store.sql import sql_date
from userrep.store.tables import Tables
from userrep.tiles.tiles import read_tiles


@dataclass(frozen=True)
class Agreement:
    """How many users with events on the day before an as-of date have the same vector by both."""

    equal: int
    different: int
    not_streamed: int
    not_in_snapshot: int

    @property
    def is_equal(self) -> bool:
        return self.different == self.not_streamed == self.not_in_snapshot == 0

    @property
    def share_equal(self) -> float:
        return self.equal / max(1, sum(self.counts().values()))

    def counts(self) -> dict[str, int]:
        return dict(vars(self))


def verify_updates(tables: Tables, space: Space, as_of: date) -> Agreement:
    """Compare, of all users with events on the day before ``as_of`` or a vector by stream, both vectors.

    By stream counts a user's last: of the newest event, then of the latest computation. Cost: the snapshot's rows, the
    date's updates and one day of tiles, one shuffle by user each.

    Raises
    ------
    UsageError
        If the date has no snapshot yet, or the stream has written nothing for it.
    """
    snapshot = newest_snapshot(tables, space.space_id, as_of)
    updates = tables.read(EMBEDDING_UPDATES).where(f"space_id = '{space.space_id}' AND as_of = {sql_date(as_of)}")
    if updates.isEmpty():
        raise UsageError(f"stream verify: no stream has written vectors of space {space.space_id} for {as_of}.")
    active = read_tiles(tables, start=as_of - timedelta(days=1), end=as_of).select("user_id").distinct()
    published = tables.read(USER_EMBEDDINGS).where(snapshot.where).select("user_id", F.col("embedding").alias("batch"))
    both = last_updates(updates).join(active.withColumn("is_active", F.lit(True)), on="user_id", how="full_outer")
    both = both.join(published, on="user_id", how="left")
    found = both.agg(
        F.count_if(F.col("batch") == F.col("stream")).alias("equal"),
        F.count_if(F.col("batch") != F.col("stream")).alias("different"),
        F.count_if(F.col("batch").isNotNull() & F.col("stream").isNull()).alias("not_streamed"),
        F.count_if(F.col("batch").isNull()).alias("not_in_snapshot"),
    ).first()
    assert found is not None
    return Agreement(**found.asDict())


def last_updates(updates: DataFrame) -> DataFrame:
    """Keep each user's last vector: user_id, stream. Cost: one shuffle on user_id."""
    newest = F.max_by("embedding", F.struct("event_at", "computed_at"))
    return updates.groupBy("user_id").agg(newest.alias("stream"))
