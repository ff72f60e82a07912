"""Prefetching in a thread: the items stay the same, errors reach the consumer, and the thread ends."""

import threading
from collections.abc import Generator

import pytest

from userrep.training.data.row_stream import prefetched

pytestmark = pytest.mark.fast


def prefetch_threads() -> int:
    return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())


def numbers(closed: list[bool], fail_at: int | None = None) -> Generator[int]:
    try:
        for k in range(1000):
            if k == fail_at:
                raise OSError("the file is gone")
            yield k
    finally:
        closed.append(True)


def test_prefetching_changes_nothing_and_its_thread_ends() -> None:
    closed: list[bool] = []
    assert list(prefetched(numbers(closed))) == list(range(1000))
    assert closed == [True]
    assert prefetch_threads() == 0


def test_a_consumer_that_stops_early_ends_the_thread() -> None:
    closed: list[bool] = []
    source = prefetched(numbers(closed), depth=2)
    assert next(source) == 0
    assert prefetch_threads() == 1
    source.close()
    assert closed == [True]
    assert prefetch_threads() == 0


def test_what_the_source_raises_reaches_the_consumer() -> None:
    closed: list[bool] = []
    source = prefetched(numbers(closed, fail_at=3))
    assert [next(source) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the file is gone"):
        next(source)
    assert prefetch_threads() == 0
