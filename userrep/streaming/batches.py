"""What is done with a micro-batch: what it needs is pinned, its users are encoded, and one commit makes them count."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property

import numpy as np
from pyspark.sql import DataFrame

from userrep.config import Config
from userrep.errors import UserrepError, in_one_line
from userrep.features.spec import FeatureSpec
from userrep.features.sums.item_files import dated_vectors, item_parts
from userrep.features.sums.openings import Opening, openings
from userrep.items.versions import Versions, versions_of
from userrep.sources.tombstones import read_tombstones
from userrep.spaces.registry import Space, artifact_folder, read_registry
from userrep.spaces.snapshots import list_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.schemas import EMBEDDING_UPDATES, USER_OPENINGS
from userrep.store.table_writer import Target
from userrep.store.tables import Tables
from userrep.streaming.encoding import NO_OPENING, Encoding, UsedOpening, UsedSpace
from userrep.streaming.online import online_store
from userrep.streaming.opening_rows import user_files
from userrep.streaming.update_files import UpdateFiles

_WAITS = (1, 2, 4, 8, 15, 30, 60)  # seconds between attempts; the last goes on
_LOOK_EVERY = 0.3  # seconds, while waiting, whether it is time to stop
_REDIS_PASSES = ("ConnectionError", "TimeoutError", "BusyLoadingError")  # what a Redis that is away looks like
_ONCE_TOLD = 60.0  # seconds, after which a wait is told again


@dataclass
class Met:
    """What the last micro-batch met, for the next one and for the line that tells of it."""

    today: date | None = None
    num_rows: int = 0
    latency_p50: float | None = None
    latency_p95: float | None = None


@dataclass
class MicroBatches:
    """Takes micro-batches as they come: the function that ``foreachBatch`` calls.

    What a batch uses is looked up at its beginning: the spaces of the registry, their newest snapshots, the openings.
    So a promotion or a new opening counts from the next batch on, whole; a batch that is run again after a crash may
    use newer ones, and replaces nothing that was committed. While an opening is missing, or the online store does not
    answer, the batch is tried again and again: events wait where they are, and nothing is lost.
    """

    tables: FileTables
    config: Config
    query_id: str
    report: Callable[[str], None]
    gives_up: bool = False  # on an opening that is missing, instead of waiting for it
    is_stopping: Callable[[], bool] = lambda: False
    met: dict[int, Met] = field(default_factory=dict)
    today: date | None = None
    failed: UserrepError | None = None

    def __call__(self, rows: DataFrame, batch_id: int) -> None:
        """Encode a micro-batch's users and commit their rows, once for each batch id."""
        told, attempt = float("-inf"), 0
        while True:
            try:
                self.met[batch_id] = self._once(rows, batch_id)
                self.today = self.met[batch_id].today or self.today
                return
            except Exception as error:  # Spark's, with what a task said in its text
                why = self._passes(error)
                if why is None or self.is_stopping():
                    raise
            if time.monotonic() - told > _ONCE_TOLD:
                self.report(f"stream: batch {batch_id} waits: {why}")
                told = time.monotonic()
            pause(_WAITS[min(attempt, len(_WAITS) - 1)], self.is_stopping)
            attempt += 1

    def _passes(self, error: Exception) -> str | None:
        """Say what is to be waited for, if an error is of the kind that passes."""
        text = str(error)
        if NO_OPENING in text:
            missing = text[text.index(NO_OPENING) :].splitlines()[0]
            said = f"{missing}. `userrep daily` of the day makes it"
            if self.gives_up:
                self.failed = UserrepError(f"stream: {said}; with --until-empty nothing is waited for.")
                return None
            return said
        if any(f"redis.exceptions.{name}" in text for name in _REDIS_PASSES):
            return f"Redis does not answer ({in_one_line(error)[:200]})"
        return None

    def _once(self, rows: DataFrame, batch_id: int) -> Met:
        """Run a batch, unless it was committed before the process, or the query, failed.

        Then Delta would pass it over without running anything, and what is observed would never come; but its state
        must be there for the next one.
        """
        committed = self.tables.last_transaction(EMBEDDING_UPDATES, self.query_id)
        if committed is not None and batch_id <= committed:
            rows.write.format("noop").mode("overwrite").save()
            return Met(self.today)
        return self._run(rows, batch_id)

    def _run(self, rows: DataFrame, batch_id: int) -> Met:
        files = UpdateFiles(self.encoding(), self._target, self.query_id, batch_id)
        written = rows.mapInArrow(files, files.SCHEMA).collect()
        added = [files.file_of(row) for row in written]
        self.tables.add_files(EMBEDDING_UPDATES, added, transaction=(self.query_id, batch_id))
        days = [row.newest_at.date() for row in written]
        seconds = [each for row in written for each in row.seconds]
        p50, p95 = np.percentile(seconds, (50, 95)).tolist() if seconds else (None, None)
        today = max(filter(None, (*days, self.today)), default=None)
        return Met(today, sum(file.num_rows for file in added), p50, p95)

    @cached_property
    def _target(self) -> Target:
        return self.tables.target(EMBEDDING_UPDATES)

    def encoding(self) -> Encoding:
        """Pin what a micro-batch uses. Cost: reads of some ledgers, milliseconds each."""
        tables, config = self.tables, self.config
        versions = versions_of(tables, config, anchor=date.min)
        there = openings(tables, versions.lineage_id)
        used = {as_of: self._used(versions, opening) for as_of, opening in there.items()}
        vectors = {opening.valid_from for opening in there.values()}
        parts = max((item_parts(tables, config, versions, [day]).num_parts for day in vectors), default=1)
        spaces, store = self._spaces(versions.lineage_id), online_store(config.streaming)
        return Encoding(FeatureSpec.of(config), used, spaces, self.today, parts, store, read_tombstones(tables))

    def _used(self, versions: Versions, opening: Opening) -> UsedOpening:
        key = (versions.lineage_id, opening.as_of)
        files = user_files(
            self.tables,
            USER_OPENINGS,
            lambda of: (of["lineage_id"], of["as_of"]) == key,
            version=opening.table_version,
        )
        dated = dated_vectors(self.tables, self.config, versions, [opening.valid_from])
        return UsedOpening(opening.as_of, files, dated[0][1])

    def _spaces(self, lineage_id: str) -> tuple[UsedSpace, ...]:
        """Return the spaces that are encoded, and up to which date each is published."""
        return tuple(
            UsedSpace(
                space.space_id,
                artifact_folder(self.config, space),
                space.content_hash,
                max((of.as_of for of in list_snapshots(self.tables, space.space_id)), default=None),
            )
            for space in encoded_spaces(self.tables, lineage_id)
        )


def encoded_spaces(tables: Tables, lineage_id: str) -> list[Space]:
    """Return the spaces that a stream encodes: all in use of a lineage."""
    registry = read_registry(tables)
    return [space for space in map(registry.space, registry.spaces_in_use()) if space.lineage_id == lineage_id]


def pause(seconds: float, is_stopping: Callable[[], bool]) -> None:
    """Wait, unless it is time to stop."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not is_stopping():
        time.sleep(_LOOK_EVERY)


def day_met(tables: FileTables) -> date | None:
    """Return the newest day that streams have met, by the dates of what they wrote. Cost: a listing of the table."""
    as_ofs = [file.values["as_of"] for file in tables.files(EMBEDDING_UPDATES)]
    return max(as_ofs) - timedelta(days=1) if as_ofs else None
