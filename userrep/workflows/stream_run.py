"""A stream while it runs: its queries are watched, told of, recorded, and started again when they fail."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pyspark.errors import PySparkException

from userrep.errors import UserrepError, in_one_line
from userrep.streaming.batches import Met, MicroBatches, pause
from userrep.streaming.query import Queries
from userrep.workflows.runs import Runs

_OTHER_RUN = "CONCURRENT_STREAM_LOG_UPDATE"  # in what Spark says when two write to one checkpoint
_LOOK_EVERY = 0.3  # seconds
_SILENCE = 10.0  # seconds, after which a source that does not say what is new is told of
_RECORD_EVERY = 600.0  # seconds, between rows of job_runs
_STOPS_WITHIN = 60.0  # seconds, for which the batch at hand is waited for
_WAITS = (1, 2, 4, 8, 15, 30, 60, 60, 60, 60)  # seconds, before a query that failed is started again


@dataclass
class Progress:
    """What a stream has done since it was last recorded, and the last batch that was told of."""

    last_batch: int = -1
    batches: int = 0
    events: int = 0
    rows: int = 0
    after_close: int = 0
    seconds: float = 0.0
    worst_p95: float | None = None

    def add(self, found: Any, met: Met | None) -> None:
        """Count a batch: what Spark says of it, and what it met."""
        self.last_batch, self.batches = found["batchId"], self.batches + 1
        self.events += found["numInputRows"]
        self.seconds += _seconds(found)
        self.after_close += _after_close(found)
        if met is not None:
            self.rows += met.num_rows
            self.worst_p95 = max(filter(None, (self.worst_p95, met.latency_p95)), default=None)

    def outputs(self) -> dict[str, Any]:
        """Return the figures that ``job_runs`` keeps."""
        return {
            "last_batch": self.last_batch, "batches": self.batches, "events": self.events, "rows": self.rows,
            "after_close": self.after_close, "batch_seconds": round(self.seconds, 3),
            "worst_p95_seconds": None if self.worst_p95 is None else round(self.worst_p95, 3),
        }  # fmt: skip


@dataclass
class StreamRun:
    """Queries on their way. ``progress``: since the last row of ``job_runs``."""

    runs: Runs
    batches: MicroBatches
    is_stopping: Callable[[], bool]
    progress: Progress = field(default_factory=Progress)
    _asks_since: float | None = None

    def until_done(self, start: Callable[[], Queries]) -> None:
        """Start the queries and watch them until they end or are to stop.

        One that fails is started again from its checkpoint, after a while that doubles. Raises UserrepError when it has
        failed ten times without a batch in between, or for a reason that does not pass.
        """
        failures = 0
        while not self.is_stopping():
            queries, before = start(), self.progress.last_batch
            try:
                if self._is_watched_to_its_end(queries):
                    return
            except PySparkException as error:
                if self.batches.failed is not None:
                    raise self.batches.failed from None
                if _OTHER_RUN in str(error):
                    raise UserrepError(
                        f"stream {self.batches.query_id}: another process runs it, from the same checkpoint. Stop one "
                        "of the two, or give this one a name of its own (--new-query-id, then stream.query_id)."
                    ) from None
                failures = 1 if self.progress.last_batch > before else failures + 1
                if failures > len(_WAITS):
                    raise UserrepError(f"stream: the query failed for good ({in_one_line(error)}).") from error
                wait = _WAITS[failures - 1]
                self.runs.report(f"stream: the query failed ({in_one_line(error)[:300]}); again in {wait} s")
                pause(wait, self.is_stopping)
            finally:
                for query in queries:
                    query.stop()

    def _is_watched_to_its_end(self, queries: Queries) -> bool:
        """Watch, with a row of ``job_runs`` every ten minutes; says whether the queries have ended, or are to stop."""
        while True:
            with self.runs.stage("stream_embeddings") as run:
                self._watch(queries, until=time.monotonic() + _RECORD_EVERY)
                run.num_rows, run.outputs = self.progress.rows, self.progress.outputs()
            if self.is_stopping() or not any(query.isActive for query in queries):
                return True
            self.progress = Progress(self.progress.last_batch)

    def _watch(self, queries: Queries, *, until: float) -> None:
        """Tell of batches until a time, the queries' end, or the end of the batch at hand when it is time to stop."""
        stops_at, last = None, self.progress.last_batch
        while any(query.isActive for query in queries) and time.monotonic() < until:
            self._tell(queries)
            self._tell_of_silence(queries.embeddings.status["message"])
            if self.is_stopping():
                stops_at = stops_at or time.monotonic() + _STOPS_WITHIN
                is_between = not queries.embeddings.status["isTriggerActive"] or self.progress.last_batch > last
                if is_between or time.monotonic() > stops_at:
                    break
            else:
                last = self.progress.last_batch
            time.sleep(_LOOK_EVERY)
        self._tell(queries)

    def _tell(self, queries: Queries) -> None:
        """Say what each batch did that has ended since. Raises the exception of a query that has failed."""
        for found in queries.embeddings.recentProgress:
            if found["batchId"] > self.progress.last_batch and found["numInputRows"]:
                met = self.batches.met.pop(found["batchId"], None)
                self.progress.add(found, met)
                self.runs.report(_line(found, met))
        if not self.is_stopping():
            for failure in filter(None, (query.exception() for query in queries)):
                raise failure

    def _tell_of_silence(self, message: str) -> None:
        """Say so, once, when a source has long not said what is new: a broker that is away. Spark asks it on and on."""
        if not message.startswith("Getting offsets"):
            self._asks_since = None
        elif self._asks_since is None:
            self._asks_since = time.monotonic()
        elif time.monotonic() - self._asks_since > _SILENCE:
            self.runs.report(f"stream: no answer from a source for {_SILENCE:.0f} s, which is asked on: {message}")
            self._asks_since = float("inf")


def _line(found: Any, met: Met | None) -> str:
    seconds, num = _seconds(found), found["numInputRows"]
    line = f"stream: batch {found['batchId']}: {num:,} rows in {seconds:.1f} s ({num / max(seconds, 1e-3):,.0f} rows/s)"
    if met is not None:
        line += f", {met.num_rows:,} vectors"
        if met.latency_p50 is not None and met.latency_p95 is not None:
            line += f"; arrival to vector {met.latency_p50:.1f} s, p95 {met.latency_p95:.1f} s"
    if (waiting := _waiting(found)) is not None:
        line += f"; {waiting:,} messages waiting"
    if late := _after_close(found):
        line += f"; {late:,} rows after the close of a date"
    return line


def _seconds(found: Any) -> float:
    return float(found["durationMs"].get("triggerExecution", 0)) / 1000


def _after_close(found: Any) -> int:
    """Count what came for windows that are closed; it may be in others that are not."""
    return sum(state["numRowsDroppedByWatermark"] for state in found["stateOperators"])


def _waiting(found: Any) -> int | None:
    """Return how many messages wait in the partitions that are furthest behind, if the sources tell."""
    behind = [
        float(metrics["maxOffsetsBehindLatest"])
        for source in found["sources"]
        if (metrics := source["metrics"]) and "maxOffsetsBehindLatest" in metrics
    ]
    return round(sum(behind)) if behind else None
