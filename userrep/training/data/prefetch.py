"""Prefetching: a thread that runs a generator ahead of its consumer."""

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

Item = TypeVar("Item")


def prefetched(source: Generator[Item], depth: int = 4) -> Generator[Item]:
    """Yield the items of ``source``, which a thread runs ahead by up to ``depth + 1`` items.

    Memory: ``depth + 1`` waiting items and the consumer's one. With a depth of 4 and global batches of 512 rows, a rank
    has ``6 * 512 / ranks`` training rows in batches. The thread ends when this generator is closed or exhausted.
    Exceptions of the source are raised here.
    """
    items: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Item | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                items.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return

    def fill() -> None:
        end: BaseException = StopIteration()
        try:
            for item in source:
                put(item, None)
                if stopped.is_set():
                    break
        except BaseException as error:  # raised again in the consumer's thread
            end = error
        finally:
            source.close()
        put(None, end)

    thread = threading.Thread(target=fill, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = items.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
