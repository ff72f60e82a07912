"""The queries of a running stream: report their batches, record their progress, restart them after failures."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from deltalake.exceptions import DeltaError
from pyspark.errors import PySparkException
from pyspark.sql.streaming.query import StreamingQuery

from userrep.errors import UserrepError, in_one_line, plural
from userrep.streaming.micro_batches import BatchResult, MicroBatches, pause, seconds_before_retry
from userrep.streaming.query import Queries
from userrep.streaming.sources import other_type_of_file
from userrep.workflows.runs import Runs

logger = logging.getLogger(__name__)

_OTHER_RUN = "CONCURRENT_STREAM_LOG_UPDATE"  # Spark's error class if two processes write to one checkpoint
_POLL_INTERVAL = 0.3  # seconds
_SILENCE = 10.0  # seconds without an answer from a source before it is reported
_RECORD_INTERVAL = 600.0  # seconds between rows of job_runs
_STOP_TIMEOUT = 60.0  # seconds to wait for the current batch when stopping
_MOST_RESTARTS = 10  # of a query that fails without a batch in between


@dataclass
class StreamProgress:
    """What a stream has done since it was last recorded. ``last_batch``: the last batch that was reported."""

    last_batch: int = -1
    batches: int = 0
    events: int = 0
    rows: int = 0
    after_close: int = 0
    batch_seconds: float = 0.0
    worst_p95_seconds: float | None = None

    def add(self, batch: Any, result: BatchResult | None) -> None:
        """Add a batch, given Spark's progress record of it and the result of its function, if it has one."""
        self.last_batch, self.batches = batch["batchId"], self.batches + 1
        self.events += batch["numInputRows"]
        self.batch_seconds += _seconds(batch)
        self.after_close += _after_close(batch)
        if result is not None:
            self.rows += result.num_rows
            latencies = filter(None, (self.worst_p95_seconds, result.latency_p95))
            self.worst_p95_seconds = max(latencies, default=None)

    def outputs(self) -> dict[str, Any]:
        """Return the figures for ``job_runs``."""
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in vars(self).items()}


@dataclass
class StreamRun:
    """Runs and watches the queries of a stream.

    ``progress``: since the last row of ``job_runs``. ``total``: since the start of this process.
    """

    runs: Runs
    batches: MicroBatches
    is_stopping: Callable[[], bool]
    progress: StreamProgress = field(default_factory=StreamProgress)
    total: StreamProgress = field(default_factory=StreamProgress)
    _silent_since: float | None = None

    def until_done(self, start: Callable[[], Queries]) -> None:
        """Start the queries and watch them until they end or a stop is requested.

        A query that fails is restarted from its checkpoint, after 1 s at first and up to 60 s later. A start that fails
        is repeated too, but not the first one, whose error may be one of the configuration.

        Raises
        ------
        UserrepError
            If it fails eleven times without a batch in between, or for a reason that a restart cannot fix.
        """
        failures, has_started = 0, False
        while not self.is_stopping():
            queries: Queries | None = None
            before = self.progress.last_batch
            try:
                queries = start()
                has_started = True
                if self._watch_and_record(queries):
                    return
            except (PySparkException, DeltaError, OSError) as error:
                if not has_started:
                    raise
                if self.batches.failed is not None:
                    raise self.batches.failed from None
                if _OTHER_RUN in str(error):
                    raise UserrepError(
                        f"stream {self.batches.query_id}: another process runs it from the same checkpoint. Stop one "
                        "of them, or give this one its own name (--new-query-id, then stream.query_id)."
                    ) from None
                if (other_type := other_type_of_file(error)) is not None:
                    raise other_type from None
                failures = 1 if self.progress.last_batch > before else failures + 1
                if failures > _MOST_RESTARTS:
                    raise UserrepError(f"stream: the query failed {failures} times ({in_one_line(error)}).") from error
                wait = seconds_before_retry(failures)
                logger.warning(f"stream: the query failed ({in_one_line(error)[:300]}), restart in {wait} s")
                pause(wait, self.is_stopping)
            finally:
                for query in queries or ():
                    query.stop()

    def _watch_and_record(self, queries: Queries) -> bool:
        """Watch until the queries end or a stop is requested, with a row of ``job_runs`` every ten minutes."""
        while True:
            with self.runs.stage("stream_embeddings") as run:
                self._watch(queries, until=time.monotonic() + _RECORD_INTERVAL)
                run.num_rows, run.outputs = self.progress.rows, self.progress.outputs()
            if self.is_stopping() or not any(query.isActive for query in queries):
                return True
            self.progress = StreamProgress(self.progress.last_batch)

    def _watch(self, queries: Queries, *, until: float) -> None:
        """Report batches until a time, the end of the queries or, on a requested stop, the end of the current batch."""
        stops_at, last = None, self.progress.last_batch
        while any(query.isActive for query in queries) and time.monotonic() < until:
            self._report_batches(queries)
            self._report_silence(queries.embeddings.status["message"])
            if self.is_stopping():
                stops_at = stops_at or time.monotonic() + _STOP_TIMEOUT
                is_done = not _is_in_a_batch(queries.embeddings) or self.progress.last_batch > last
                if (is_done and not _is_in_a_batch(queries.rejects)) or time.monotonic() > stops_at:
                    break
            else:
                last = self.progress.last_batch
            time.sleep(_POLL_INTERVAL)
        self._report_batches(queries)

    def _report_batches(self, queries: Queries) -> None:
        """Report the batches that ended since the last call. Raises the exception of a query that has failed."""
        for batch in queries.embeddings.recentProgress:
            if batch["batchId"] > self.progress.last_batch and batch["numInputRows"]:
                result = self.batches.results.pop(batch["batchId"], None)
                self.progress.add(batch, result)
                self.total.add(batch, result)
                logger.info(_batch_line(batch, result))
        if not self.is_stopping():
            for failure in filter(None, (query.exception() for query in queries)):
                raise failure

    def _report_silence(self, message: str) -> None:
        """Report once if a source, such as an unreachable broker, does not answer. Spark keeps asking without a log."""
        if not message.startswith("Getting offsets"):
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = time.monotonic()
        elif time.monotonic() - self._silent_since > _SILENCE:
            logger.warning(f"stream: no answer from a source for {_SILENCE:.0f} s, still waiting: {message}")
            self._silent_since = float("inf")


def _is_in_a_batch(query: StreamingQuery) -> bool:
    return query.isActive and bool(query.status["isTriggerActive"])


def _batch_line(batch: Any, result: BatchResult | None) -> str:
    seconds, num = _seconds(batch), batch["numInputRows"]
    rate = num / max(seconds, 1e-3)
    line = f"stream: batch {batch['batchId']}: {plural(num, 'row')} in {seconds:.1f} s ({rate:,.0f} rows/s)"
    if result is not None:
        line += f", {result.num_rows:,} vectors"
        if result.latency_p50 is not None and result.latency_p95 is not None:
            line += f"; arrival to vector {result.latency_p50:.1f} s, p95 {result.latency_p95:.1f} s"
    if (waiting := _waiting(batch)) is not None:
        line += f"; {waiting:,} messages waiting"
    if late := _after_close(batch):
        line += f"; {plural(late, 'row')} after the close of a date"
    return line


def _seconds(batch: Any) -> float:
    return float(batch["durationMs"].get("triggerExecution", 0)) / 1000


def _after_close(batch: Any) -> int:
    """Count rows dropped for closed windows. The same event may still be in a window that is open."""
    return sum(state["numRowsDroppedByWatermark"] for state in batch["stateOperators"])


def _waiting(batch: Any) -> int | None:
    """Return the messages waiting in the partition of each source that is furthest behind; None if not reported."""
    behind = [
        float(metrics["maxOffsetsBehindLatest"])
        for source in batch["sources"]
        if (metrics := source["metrics"]) and "maxOffsetsBehindLatest" in metrics
    ]
    return round(sum(behind)) if behind else None
