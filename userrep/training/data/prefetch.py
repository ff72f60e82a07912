"""Prefetching: a thread that runs a generator ahead of its consumer."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def prefetched(source: Generator[Item], depth: int = 5) -> Generator[Item]:
    """Yield the items of ``source``, none of which is None, which a thread runs ahead by up to ``depth`` items.

    Memory: ``depth`` waiting items and the consumer's one. With a depth of 5 and global batches of 512 rows, a rank has
    ``6 * 512 / ranks`` training rows in batches. The thread ends when this generator is closed or exhausted. Exceptions
    of the source are raised here. The process does not exit while the thread waits for a read.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    ahead = deque(pool.submit(next, source, None) for _ in range(depth))
    try:
        while (item := ahead.popleft().result()) is not None:
            ahead.append(pool.submit(next, source, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
        source.close()
