"""The users of one snapshot with their vectors: look-up of some users, a sample, and the best of all in one pass."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.joins.ledger import files_by_snapshot
from userrep.sources.tombstones import Tombstones, read_tombstones
from userrep.spaces.snapshots import Snapshot
from userrep.store.arrow import combined
from userrep.store.bucket_reader import BucketFiles, read_row_groups, rows_below
from userrep.store.buckets import buckets_of_share
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import parquet_footer
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.tables import Tables

ROWS = pa.schema([("user_id", pa.string()), ("embedding", pa.list_(pa.float32()))])
SCORES = pa.schema([("user_id", pa.string()), ("score", pa.float64())])
_BEST_FIRST = [("score", "descending"), ("user_id", "ascending")]

Score = Callable[[pa.Table], pa.Table]  # scores rows of the schema ROWS, and may leave some out; returns SCORES


@dataclass(frozen=True)
class SnapshotUsers(ABC):
    """The users of one published snapshot who are not erased."""

    tables: Tables
    snapshot: Snapshot
    erased: Tombstones

    @abstractmethod
    def rows_of(self, user_ids: pa.StringArray, columns: Sequence[str] = ROWS.names) -> pa.Table:
        """Return the rows of those users that are in the snapshot, in any order. Memory: these rows."""

    @abstractmethod
    def best(self, score: Score, num_users: int) -> pa.Table:
        """Return the users with the highest scores, best first, in one pass. Equal scores are ordered by user id."""

    def sample(self, share: float) -> pa.Table:
        """Return about this share of all users: those with the lowest hash buckets. See ``rows_below``."""
        limit = buckets_of_share(share)
        rows = rows_below(limit, self.tables, USER_EMBEDDINGS, [self.snapshot.key], ROWS.names)
        return self._not_erased(rows.cast(ROWS))

    def _not_erased(self, rows: pa.Table) -> pa.Table:
        return rows.filter(pa.array(~self.erased.mask(combined(rows["user_id"])))) if self.erased else rows


def users_of(tables: Tables, snapshot: Snapshot) -> SnapshotUsers:
    """Return the users of a published snapshot."""
    kind = FileUsers if isinstance(tables, FileTables) else SparkUsers
    return kind(tables, snapshot, read_tombstones(tables))


class FileUsers(SnapshotUsers):
    """Users in the files of a snapshot, without Spark."""

    @cached_property
    def _files(self) -> BucketFiles:
        assert isinstance(self.tables, FileTables)
        return files_by_snapshot(self.tables, self.tables.version(USER_EMBEDDINGS), [self.snapshot])[0]

    def rows_of(self, user_ids: pa.StringArray, columns: Sequence[str] = ROWS.names) -> pa.Table:
        """See ``SnapshotUsers``. Cost: the row groups that may contain the users, one at a time."""
        rows = self._files.rows_of_users(user_ids, columns)
        schema = _schema(columns)
        return schema.empty_table() if rows is None else self._not_erased(rows.cast(schema))

    def best(self, score: Score, num_users: int) -> pa.Table:
        """See ``SnapshotUsers``. Memory: one row group, and three times the result."""
        best = SCORES.empty_table()
        for uri in self._files.uris:
            for group in range(parquet_footer(uri).num_row_groups):
                rows = read_row_groups(uri, [group], ROWS.names, use_threads=True).cast(ROWS)
                best = pa.concat_tables([best, score(self._not_erased(rows))])
                if len(best) > 2 * num_users:
                    best = _best(best, num_users)
        return _best(best, num_users)


class SparkUsers(SnapshotUsers):
    """Users in tables that only Spark reads."""

    @cached_property
    def _rows(self) -> DataFrame:
        return self.erased.without(self.tables.read(USER_EMBEDDINGS).where(self.snapshot.where))

    def rows_of(self, user_ids: pa.StringArray, columns: Sequence[str] = ROWS.names) -> pa.Table:
        """See ``SnapshotUsers``. Cost: one pass, and a broadcast of the ids."""
        keys = self.tables.spark.createDataFrame(pa.table({"user_id": user_ids}))
        rows = self._rows.join(F.broadcast(keys), on="user_id", how="left_semi").select(*columns)
        return rows.toArrow().cast(_schema(columns))

    def best(self, score: Score, num_users: int) -> pa.Table:
        """See ``SnapshotUsers``. Cost: one pass; the best of each task are sorted."""

        def scored(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                yield from score(pa.Table.from_batches([batch]).cast(ROWS)).to_batches()

        rows = self._rows.select(*ROWS.names).mapInArrow(scored, "user_id STRING, score DOUBLE")
        return rows.orderBy(F.desc("score"), "user_id").limit(num_users).toArrow().cast(SCORES)


def _schema(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([ROWS.field(name) for name in columns])


def _best(scores: pa.Table, num_users: int) -> pa.Table:
    return scores.take(pc.select_k_unstable(scores, k=num_users, sort_keys=_BEST_FIRST))
