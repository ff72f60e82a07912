"""The users of one snapshot with their vectors: look-up of some users, and the best of all in one pass."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.joins.ledger import files_by_snapshot
from userrep.spaces.snapshots import Snapshot
from userrep.store.bucket_reader import BucketFiles, read_row_groups
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import parquet_footer
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.tables import Tables

ROWS = pa.schema([("user_id", pa.string()), ("embedding", pa.list_(pa.float32()))])
SCORES = pa.schema([("user_id", pa.string()), ("score", pa.float64())])
_BEST_FIRST = [("score", "descending"), ("user_id", "ascending")]

Score = Callable[[pa.Table], pa.Table]  # from rows like ROWS to those that count, like SCORES


class SnapshotUsers(Protocol):
    """The users of one snapshot, in files that are read here, or in tables that Spark reads."""

    def rows_of(self, user_ids: pa.StringArray, columns: Sequence[str] = ROWS.names) -> pa.Table:
        """Return the rows of those users that are in the snapshot, in any order. Memory: these rows."""

    def best(self, score: Score, num_users: int) -> pa.Table:
        """Return the users with the highest scores, best first, in one pass. Equal scores are ordered by user id."""


def users_of(tables: Tables, snapshot: Snapshot) -> SnapshotUsers:
    """Return the users of a published snapshot."""
    version = tables.version(USER_EMBEDDINGS)
    if isinstance(tables, FileTables):
        return FileUsers(files_by_snapshot(tables, version, [snapshot])[0])
    return SparkUsers(tables.read(USER_EMBEDDINGS, version=version).where(snapshot.where))


@dataclass(frozen=True)
class FileUsers:
    """Users in the files of a snapshot, without Spark."""

    files: BucketFiles

    def rows_of(self, user_ids: pa.StringArray, columns: Sequence[str] = ROWS.names) -> pa.Table:
        """See ``SnapshotUsers``. Cost: the row groups that may contain the users, one at a time."""
        rows = self.files.rows_of_users(user_ids, columns)
        return _schema(columns).empty_table() if rows is None else rows.cast(_schema(columns))

    def best(self, score: Score, num_users: int) -> pa.Table:
        """See ``SnapshotUsers``. Memory: one row group, and three times the result."""
        best = SCORES.empty_table()
        for uri in self.files.uris:
            for group in range(parquet_footer(uri).num_row_groups):
                rows = read_row_groups(uri, [group], ROWS.names, use_threads=True).cast(ROWS)
                best = pa.concat_tables([best, score(rows)])
                if len(best) > 2 * num_users:
                    best = _best(best, num_users)
        return _best(best, num_users)


@dataclass(frozen=True)
class SparkUsers:
    """Users in tables that only Spark reads. ``users``: rows of ``user_embeddings`` of one snapshot."""

    users: DataFrame

    def rows_of(self, user_ids: pa.StringArray, columns: Sequence[str] = ROWS.names) -> pa.Table:
        """See ``SnapshotUsers``. Cost: one pass, and a broadcast of the ids."""
        keys = self.users.sparkSession.createDataFrame(pa.table({"user_id": user_ids}))
        rows = self.users.join(F.broadcast(keys), on="user_id", how="left_semi").select(*columns)
        return rows.toArrow().cast(_schema(columns))

    def best(self, score: Score, num_users: int) -> pa.Table:
        """See ``SnapshotUsers``. Cost: one pass; the best of each task are sorted."""

        def scored(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                yield from score(pa.Table.from_batches([batch]).cast(ROWS)).to_batches()

        rows = self.users.select(*ROWS.names).mapInArrow(scored, "user_id STRING, score DOUBLE")
        return rows.orderBy(F.desc("score"), "user_id").limit(num_users).toArrow().cast(SCORES)


def _schema(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([ROWS.field(name) for name in columns])


def _best(scores: pa.Table, num_users: int) -> pa.Table:
    return scores.take(pc.select_k_unstable(scores, k=num_users, sort_keys=_BEST_FIRST))
