"""Processing of a micro-batch: pin its inputs, encode its users and publish their rows in one commit."""

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from pyspark.sql import DataFrame

from userrep.config import Config
from userrep.errors import UserrepError, in_one_line
from userrep.features.spec import FeatureSpec
from userrep.features.sums.item_matrix import item_parts, vector_files
from userrep.features.sums.stream_base import StreamBase, stream_bases
from userrep.items.versions import Versions, versions_of
from userrep.sources.tombstones import read_tombstones
from userrep.spaces.registry import Space, artifact_folder, read_registry
from userrep.spaces.snapshots import list_snapshots
from userrep.store.bucket_reader import BucketFiles
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import Target
from userrep.store.schemas import EMBEDDING_UPDATES, USER_OPENINGS
from userrep.store.tables import Tables
from userrep.streaming.encoding import NO_BASE, WRITTEN, Encoding, PinnedBase, PinnedSpace, write_updates
from userrep.streaming.redis_store import online_store

logger = logging.getLogger(__name__)

_WAITS = (1, 2, 4, 8, 15, 30, 60)  # seconds before each new attempt; the last one repeats
_POLL_EVERY = 0.3  # seconds between checks of ``is_stopping`` during a wait
_TRANSIENT_REDIS_ERRORS = ("ConnectionError", "TimeoutError", "BusyLoadingError")


class BatchResult(NamedTuple):
    """Results of a micro-batch for its progress line: the number of rows written, and latencies in seconds."""

    num_rows: int = 0
    latency_p50: float | None = None
    latency_p95: float | None = None


@dataclass
class MicroBatches:
    """Processes micro-batches: the function that ``foreachBatch`` calls.

    The spaces, their newest snapshots and the stream bases are resolved once, at the start of a batch. A promotion or a
    new base therefore takes effect with the next batch. A batch that is repeated after a crash may use newer inputs,
    but replaces no committed rows. A batch is retried while a stream base is missing or the online store does not
    answer; its events stay in their source meanwhile.

    ``first_day``: the first day whose records the stream has. Dates with an earlier open day, which a space may still
    need when the stream first starts, are left to the batch. ``gives_up`` makes a missing stream base an error instead
    of a wait. ``failed`` is that error. ``today`` is the newest day with an event so far.
    """

    tables: FileTables
    config: Config
    query_id: str
    first_day: date | None = None
    gives_up: bool = False
    is_stopping: Callable[[], bool] = lambda: False
    results: dict[int, BatchResult] = field(default_factory=dict)
    today: date | None = None
    failed: UserrepError | None = None

    def __call__(self, rows: DataFrame, batch_id: int) -> None:
        """Encode the users of a micro-batch and commit their rows, once per batch id."""
        for num_failures in itertools.count(1):
            try:
                self.results[batch_id] = self._run(rows, batch_id)
                return
            except Exception as error:  # from Spark; the text contains the message of the failed task
                reason = self._wait_reason(error)
                if reason is None or self.is_stopping():
                    raise
            wait = seconds_before_retry(num_failures)
            logger.warning(f"stream: batch {batch_id} waits: {reason}; next attempt in {wait} s")
            pause(wait, self.is_stopping)

    def _wait_reason(self, error: Exception) -> str | None:
        """Return what the batch waits for if the error is transient, else None."""
        text = str(error)
        if NO_BASE in text:
            missing = text[text.index(NO_BASE) :].splitlines()[0]
            reason = f"{missing}. Run `userrep daily` to build it"
            if self.gives_up:
                self.failed = UserrepError(f"stream: {reason}; --until-empty does not wait.")
                return None
            return reason
        if any(f"redis.exceptions.{name}" in text for name in _TRANSIENT_REDIS_ERRORS):
            return f"Redis does not answer ({in_one_line(error)[:200]})"
        return None

    def _run(self, rows: DataFrame, batch_id: int) -> BatchResult:
        """Run a batch, unless it was committed before a crash.

        The rows of a committed batch are still computed, because the next batch needs the state that they update.
        """
        committed = self.tables.last_transaction(EMBEDDING_UPDATES, self.query_id)
        if committed is not None and batch_id <= committed:
            rows.write.format("noop").mode("overwrite").save()
            return BatchResult()
        encoding, write = self.encoding(), partial(write_updates, target=self._target, query_id=self.query_id)
        written = rows.mapInArrow(lambda batches: write(encoding(batches), batch_id=batch_id), WRITTEN).collect()
        added = [TableFile.from_json(row.file) for row in written]
        self.tables.add_files(EMBEDDING_UPDATES, added, transaction=(self.query_id, batch_id))
        self.today = max(filter(None, (self.today, *(row.newest_at.date() for row in written))), default=None)
        latencies = [seconds for row in written for seconds in row.seconds]
        p50, p95 = np.percentile(latencies, (50, 95)).tolist() if latencies else (None, None)
        return BatchResult(sum(file.num_rows for file in added), p50, p95)

    @cached_property
    def _target(self) -> Target:
        return self.tables.target(EMBEDDING_UPDATES)

    def encoding(self) -> Encoding:
        """Pin the inputs of a micro-batch. Cost: reads of a few ledgers, milliseconds each."""
        tables, config = self.tables, self.config
        versions = versions_of(tables, config, anchor=date.min)
        bases = [base for base in stream_bases(tables, versions.lineage_id).values() if self._has_open_days(base)]
        waits_from, bases = self._waits_from(bases), [base for base in bases if base.open_from >= self._first_day]
        pinned = {base.as_of: self._pinned_base(versions, base) for base in bases}
        parts = max((item_parts(tables, config, versions, [base.valid_from]).num_parts for base in bases), default=1)
        spaces, store = self._pinned_spaces(versions.lineage_id), online_store(config.streaming)
        return Encoding(
            FeatureSpec.of(config), pinned, spaces, self.today, parts, store, read_tombstones(tables),
            config.snapshots.storage, waits_from,
        )  # fmt: skip

    def _waits_from(self, bases: Sequence[StreamBase]) -> date:
        """Return the first date whose base the stream waits for; earlier ones are left to the batch.

        A daily run builds the bases of the ``open_days - 1`` dates after its own. If one of these is missing, an
        erasure has removed it. The stream does not have all records of bases that begin before its first day.
        """
        if not bases:
            return date.min
        open_days, newest = timedelta(days=self.config.streaming.open_days), max(base.as_of for base in bases)
        return max(newest - open_days + timedelta(days=2), self._first_day + open_days)

    @property
    def _first_day(self) -> date:
        """The first day of which the stream has all records."""
        return self.first_day or date.min

    def _has_open_days(self, base: StreamBase) -> bool:
        """Return whether the base has the present number of open days."""
        return base.as_of - base.open_from == timedelta(days=self.config.streaming.open_days)

    def _pinned_base(self, versions: Versions, base: StreamBase) -> PinnedBase:
        key = (versions.lineage_id, base.as_of)
        files = self.tables.files(
            USER_OPENINGS, lambda values: (values["lineage_id"], values["as_of"]) == key, version=base.table_version
        )
        vectors = vector_files(self.tables, versions, [base.valid_from])
        return PinnedBase(base.as_of, BucketFiles.of(files), vectors[base.valid_from])

    def _pinned_spaces(self, lineage_id: str) -> tuple[PinnedSpace, ...]:
        return tuple(
            PinnedSpace(
                space.space_id,
                artifact_folder(self.tables, space),
                space.content_hash,
                max((snapshot.as_of for snapshot in list_snapshots(self.tables, space.space_id)), default=None),
            )
            for space in encoded_spaces(self.tables, lineage_id)
        )


def encoded_spaces(tables: Tables, lineage_id: str) -> list[Space]:
    """Return the spaces that a stream encodes: all spaces of the lineage that are in use."""
    registry = read_registry(tables)
    return [space for space in map(registry.space, registry.spaces_in_use()) if space.lineage_id == lineage_id]


def seconds_before_retry(num_failures: int) -> int:
    """Return the seconds to wait after some failures in a row."""
    return _WAITS[min(num_failures, len(_WAITS)) - 1]


def pause(seconds: float, is_stopping: Callable[[], bool]) -> None:
    """Sleep for some seconds, or until ``is_stopping`` returns true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not is_stopping():
        time.sleep(_POLL_EVERY)


def last_seen_day(tables: FileTables) -> date | None:
    """Return the newest day whose events a stream has encoded, or None. Cost: a listing of ``embedding_updates``."""
    as_ofs = [file.values["as_of"] for file in tables.files(EMBEDDING_UPDATES)]
    return max(as_ofs) - timedelta(days=1) if as_ofs else None
