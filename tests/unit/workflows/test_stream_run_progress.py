"""A stream that runs: batches are reported and summed up, it stops between batches, silence is reported once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.errors import PySparkException

from userrep.errors import UserrepError
from userrep.streaming.micro_batches import BatchResult
from userrep.streaming.query import Queries
from userrep.workflows import stream_supervisor
from userrep.workflows.stream_supervisor import StreamProgress, StreamRun

pytestmark = pytest.mark.fast

Found = dict[str, Any]


def batch(batch_id: int, num_rows: int, *, ms: int = 2000, dropped: tuple[int, ...] = (), **source: Any) -> Found:
    """Build what Spark reports of a batch."""
    return {
        "batchId": batch_id, "numInputRows": num_rows, "durationMs": {"triggerExecution": ms},
        "stateOperators": [{"numRowsDroppedByWatermark": num} for num in dropped],
        "sources": [{"metrics": source or None}],
    }  # fmt: skip


class Query:
    """A query that reports these batches, one more at each look, and is active until all were looked at."""

    def __init__(self, *found: Found, error: str | None = None, lasts: int = 0) -> None:
        self.found, self.looks, self.lasts, self.error = found, 0, max(lasts, len(found)), error
        self.status = {"message": "Processing new data", "isTriggerActive": True}
        self.stopped = 0

    @property
    def isActive(self) -> bool:
        return self.looks < self.lasts

    @property
    def recentProgress(self) -> list[Found]:
        self.looks += 1
        return list(self.found[: self.looks])

    def exception(self) -> PySparkException | None:
        return PySparkException(self.error) if self.error and not self.isActive else None

    def stop(self) -> None:
        self.stopped += 1


class Site:
    """A stream's run with a clock that only sleeping moves, what it reported and what it recorded."""

    def __init__(self, results: dict[int, BatchResult], is_stopping: Callable[[], bool], lines: list[str]) -> None:
        self.said = lines
        self.recorded: list[Any] = []
        self.now = 0.0
        runs: Any = SimpleNamespace(stage=self.stage)
        batches: Any = SimpleNamespace(failed=None, query_id="clicks", results=results)
        self.run = StreamRun(runs, batches, is_stopping)

    @contextmanager
    def stage(self, name: str) -> Iterator[Any]:
        assert name == "stream_embeddings"
        record = SimpleNamespace(num_rows=None, outputs=None)
        yield record
        self.recorded.append(record)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def until_done(self, *queries: Query) -> None:
        """Run these one after the other, each with a query of rejects that does nothing."""
        left = list(queries)

        def start() -> Queries:
            both: Any = (left.pop(0), Query())
            return Queries(*both)

        self.run.until_done(start)
        assert not left


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> Callable[..., Site]:
    def new(results: dict[int, BatchResult] | None = None, is_stopping: Callable[[], bool] = lambda: False) -> Site:
        site = Site(results or {}, is_stopping, lines)
        monkeypatch.setattr(stream_supervisor, "time", SimpleNamespace(monotonic=lambda: site.now, sleep=site.sleep))
        monkeypatch.setattr(stream_supervisor, "pause", lambda seconds, stops: site.sleep(seconds))
        return site

    return new


def test_each_batch_with_rows_is_reported_once(site: Callable[..., Site]) -> None:
    results = {5: BatchResult(num_rows=1200, latency_p50=0.3, latency_p95=1.96), 7: BatchResult(num_rows=0)}
    here = site(results)
    here.until_done(
        Query(
            batch(5, 3000, ms=1500, dropped=(2, 1)),
            batch(6, 0),
            batch(7, 10, ms=0, maxOffsetsBehindLatest="1234"),
            batch(8, 1, minOffsetsBehindLatest="5"),
            lasts=6,
        )
    )
    assert here.said == [
        "stream: batch 5: 3,000 rows in 1.5 s (2,000 rows/s), 1,200 vectors; arrival to vector 0.3 s, p95 2.0 s; "
        "3 rows after the close of a date",
        "stream: batch 7: 10 rows in 0.0 s (10,000 rows/s), 0 vectors; 1,234 messages waiting",
        "stream: batch 8: 1 row in 2.0 s (0 rows/s)",
    ]
    assert results == {}


def test_what_batches_did_is_recorded_at_the_end(site: Callable[..., Site]) -> None:
    results = {
        3: BatchResult(num_rows=4, latency_p95=2.0),
        4: BatchResult(num_rows=5),
        5: BatchResult(num_rows=0, latency_p95=7.12345),
    }
    here = site(results)
    here.until_done(Query(batch(3, 10, ms=1000, dropped=(4,)), batch(4, 20, ms=250), batch(5, 1, ms=4)))
    (record,) = here.recorded
    assert record.num_rows == 9
    assert record.outputs == {
        "last_batch": 5, "batches": 3, "events": 31, "rows": 9, "after_close": 4, "batch_seconds": 1.254,
        "worst_p95_seconds": 7.123,
    }  # fmt: skip
    assert StreamProgress().outputs()["worst_p95_seconds"] is None


def test_a_row_is_recorded_every_ten_minutes_with_what_was_done_since(site: Callable[..., Site]) -> None:
    here = site()
    here.until_done(Query(batch(0, 5), batch(1, 6), lasts=2500))  # 750 s
    assert [record.outputs["events"] for record in here.recorded] == [11, 0]
    assert [record.outputs["last_batch"] for record in here.recorded] == [1, 1]


@pytest.mark.parametrize(
    ("ends_after_looks", "is_active", "stops_by"),
    [
        (None, False, 0.4),  # between batches: at once
        (None, True, 61.0),  # a batch that does not end is left after a minute
        (30, True, 10.0),  # else it ends first
    ],
)
def test_a_stream_that_is_to_stop_waits_for_its_batch_but_no_longer_than_a_minute(
    site: Callable[..., Site], ends_after_looks: int | None, is_active: bool, stops_by: float
) -> None:
    here = site({}, lambda: True)
    found = [batch(k, 0) for k in range(ends_after_looks)] + [batch(99, 5)] if ends_after_looks else []
    query = Query(*found, lasts=10_000)
    query.status["isTriggerActive"] = is_active
    both: Any = (query, Query())
    here.run._watch(Queries(*both), until=1e9)
    assert stops_by - 2 <= here.now <= stops_by


def test_rows_of_job_runs_have_what_is_new_and_the_total_has_everything(site: Callable[..., Site]) -> None:
    here = site({0: BatchResult(7), 1: BatchResult(5)})
    here.until_done(Query(batch(0, 10), *[batch(0, 0)] * 2500, batch(1, 6), lasts=2600))
    assert [record.num_rows for record in here.recorded] == [7, 5]
    assert (here.run.total.batches, here.run.total.events, here.run.total.rows) == (2, 16, 12)


def test_a_stream_that_is_to_stop_also_waits_for_a_batch_of_rejects(site: Callable[..., Site]) -> None:
    here = site({}, lambda: True)
    between, rejects = Query(lasts=10_000), Query(lasts=10_000)
    between.status["isTriggerActive"] = False

    def sleep(seconds: float) -> None:
        here.now += seconds
        rejects.status["isTriggerActive"] = here.now < 5

    here.sleep = sleep  # type: ignore[method-assign]
    stream_supervisor.time.sleep = sleep  # type: ignore[assignment]
    both: Any = (between, rejects)
    here.run._watch(Queries(*both), until=1e9)
    assert 5 <= here.now <= 6


def test_a_query_that_fails_after_a_batch_has_all_its_attempts_again(site: Callable[..., Site]) -> None:
    here = site()
    before, after = ([Query(error="the broker is away") for _ in range(num)] for num in (9, 10))
    with pytest.raises(UserrepError, match=r"the query failed 11 times \(.*the broker is away"):
        here.until_done(*before, Query(batch(1, 2), error="the broker is away"), *after)
    waits = [line.rpartition("restart in ")[2] for line in here.said if "restart in" in line]
    growing = ["1 s", "2 s", "4 s", "8 s", "15 s", "30 s", "60 s", "60 s", "60 s", "60 s"]
    assert waits == [*growing[:9], *growing]
    assert all(query.stopped == 1 for query in (*before, *after))


def test_a_failure_that_a_batch_has_a_reason_for_ends_the_stream_with_that_reason(site: Callable[..., Site]) -> None:
    here = site()
    here.run.batches.failed = UserrepError("stream: no stream base for as-of date 2024-05-09.")
    with pytest.raises(UserrepError, match="no stream base for as-of date 2024-05-09"):
        here.until_done(Query(error="an exception of foreachBatch"))
    assert here.said == []


def test_a_source_that_does_not_answer_is_reported_once_until_it_answers_again(site: Callable[..., Site]) -> None:
    here = site()
    asking = "Getting offsets from KafkaV2[Subscribe[clicks]]"

    def look(at: float, message: str) -> int:
        here.now = at
        here.run._report_silence(message)
        return len(here.said)

    assert [look(at, asking) for at in (0, 9.9, 10.1, 500)] == [0, 0, 1, 1]
    assert here.said[0] == f"stream: no answer from a source for 10 s, still waiting: {asking}"
    assert look(501, "Waiting for data to arrive") == 1
    assert [look(at, asking) for at in (502, 511.9, 512.1)] == [1, 1, 2]
