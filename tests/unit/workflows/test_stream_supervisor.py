"""A stream's queries that fail: what passes is tried again, what does not ends with its cause."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.errors import PySparkException

from userrep.errors import UserrepError
from userrep.streaming.query import Queries
from userrep.workflows import stream_supervisor
from userrep.workflows.stream_supervisor import StreamRun

pytestmark = pytest.mark.fast


class FailedQuery:
    """A query that has ended with an error."""

    isActive, recentProgress, status = False, (), {"message": ""}

    def __init__(self, text: str) -> None:
        self.text, self.stopped = text, 0

    def exception(self) -> PySparkException:
        return PySparkException(self.text)

    def stop(self) -> None:
        self.stopped += 1


def stream_run() -> StreamRun:
    @contextmanager
    def stage(name: str) -> Iterator[Any]:
        yield SimpleNamespace(num_rows=0, outputs={})

    runs: Any = SimpleNamespace(stage=stage)
    batches: Any = SimpleNamespace(failed=None, query_id="clicks", results={})
    return StreamRun(runs, batches, lambda: False)


@pytest.mark.parametrize(
    ("text", "attempts", "why"),
    [
        ("[CONCURRENT_STREAM_LOG_UPDATE] Concurrent update to the log.", 1, "stream clicks: another process runs it"),
        (
            "[STREAM_FAILED] Encountered error while reading file file:///log/3.pq. Data type mismatches when reading "
            "Parquet column [u]. Expected Spark type bigint, actual Parquet type DOUBLE. SQLSTATE: KD001",
            1,
            "stream: file:///log/3.pq has DOUBLE in column u, but the stream was started with bigint. Rewrite the file",
        ),
        ("the broker is away", 11, r"the query failed 11 times \(.*the broker is away"),
    ],
)
def test_a_query_that_fails_is_started_again_unless_that_cannot_help(
    monkeypatch: pytest.MonkeyPatch, lines: list[str], text: str, attempts: int, why: str
) -> None:
    monkeypatch.setattr(stream_supervisor, "pause", lambda seconds, is_stopping: None)
    started: list[FailedQuery] = []

    def start() -> Queries:
        started.extend(FailedQuery(text) for _ in range(2))
        queries: Any = started[-2:]
        return Queries(*queries)

    with pytest.raises(UserrepError, match=why):
        stream_run().until_done(start)
    assert len(started) == 2 * attempts
    assert all(query.stopped == 1 for query in started)
    assert len(lines) == attempts - 1


def test_a_restart_that_fails_is_repeated_but_not_the_first_start(
    monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    monkeypatch.setattr(stream_supervisor, "pause", lambda seconds, is_stopping: None)
    outcomes: list[Any] = [FailedQuery("the broker is away"), OSError("the store is away"), UserrepError("erased")]

    def start() -> Queries:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return Queries(outcome, outcome)

    with pytest.raises(UserrepError, match="erased"):
        stream_run().until_done(start)
    assert ["the broker is away" in lines[0], "the store is away" in lines[1]] == [True, True]
    outcomes.append(OSError("no such table"))
    with pytest.raises(OSError, match="no such table"):
        stream_run().until_done(start)
