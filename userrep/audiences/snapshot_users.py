"""The users of one snapshot with their vectors: look-up of some users, a sample, and the best of all in one pass."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from userrep.sources.tombstones import Tombstones, read_tombstones
from userrep.spaces.snapshots import Snapshot
from userrep.store.arrow import combined
from userrep.store.bucket_reader import read_row_groups, rows_below, rows_of_users
from userrep.store.buckets import buckets_of_share
from userrep.store.data_files import matches
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import parquet_footer
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.tables import Tables

ROWS = pa.schema([("user_id", pa.string()), ("embedding", pa.list_(pa.float32()))])
SCORES = pa.schema([("user_id", pa.string()), ("score", pa.float64())])
_BEST_FIRST = [("score", "descending"), ("user_id", "ascending")]

Score = Callable[[pa.Table], pa.Table]  # scores rows of the schema ROWS, and may leave some out; returns SCORES


@dataclass(frozen=True)
class SnapshotUsers:
    """The users of one published snapshot who are not erased."""

    tables: Tables
    snapshot: Snapshot

    @cached_property
    def erased(self) -> Tombstones:
        return read_tombstones(self.tables)

    def rows_of(self, user_ids: pa.StringArray, columns: Sequence[str] = ROWS.names) -> pa.Table:
        """Return the rows of those users that are in the snapshot, in any order. See ``rows_of_users``."""
        rows = rows_of_users(user_ids, self.tables, USER_EMBEDDINGS, [self.snapshot.key], columns)
        return self._not_erased(rows.cast(pa.schema([ROWS.field(name) for name in columns])))

    def sample(self, share: float) -> pa.Table:
        """Return about this share of all users: those with the lowest hash buckets. See ``rows_below``."""
        limit = buckets_of_share(share)
        rows = rows_below(limit, self.tables, USER_EMBEDDINGS, [self.snapshot.key], ROWS.names)
        return self._not_erased(rows.cast(ROWS))

    def best(self, score: Score, num_users: int) -> pa.Table:
        """Return the users with the highest scores, best first, in one pass. Equal scores are ordered by user id.

        Memory below a root: one row group, and three times the result. In a catalog, the best of each task are sorted.
        """
        if not isinstance(self.tables, FileTables):
            return self._best_by_spark(score, num_users)
        best = SCORES.empty_table()
        for file in self.tables.files(USER_EMBEDDINGS, matches([self.snapshot.key])):
            for group in range(parquet_footer(file.uri).num_row_groups):
                rows = read_row_groups(file.uri, [group], ROWS.names, use_threads=True).cast(ROWS)
                best = pa.concat_tables([best, score(self._not_erased(rows))])
                if len(best) > 2 * num_users:
                    best = _best(best, num_users)
        return _best(best, num_users)

    def _best_by_spark(self, score: Score, num_users: int) -> pa.Table:
        def scored(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                yield from score(pa.Table.from_batches([batch]).cast(ROWS)).to_batches()

        rows = self.erased.without(self.tables.read(USER_EMBEDDINGS, [self.snapshot.key])).select(*ROWS.names)
        scores = rows.mapInArrow(scored, "user_id STRING, score DOUBLE")
        return scores.orderBy(F.desc("score"), "user_id").limit(num_users).toArrow().cast(SCORES)

    def _not_erased(self, rows: pa.Table) -> pa.Table:
        return rows.filter(pa.array(~self.erased.mask(combined(rows["user_id"])))) if self.erased else rows


def _best(scores: pa.Table, num_users: int) -> pa.Table:
    return scores.take(pc.select_k_unstable(scores, k=num_users, sort_keys=_BEST_FIRST))
