"""Work ahead: a thread that runs a generator while its consumer is busy."""

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

Item = TypeVar("Item")


def prefetched(source: Generator[Item], depth: int = 4) -> Generator[Item]:
    """Yield from ``source``, which a thread runs ahead by at most ``depth`` items and the one it holds.

    Of batches of training rows, ``depth + 1`` wait and the consumer has one: at the defaults (4 items, 512 rows of a
    batch over all ranks) a rank has ``6 * 512 / ranks`` rows in batches.
    Close this generator, or run it to its end: either ends the thread. What the source raises is raised here.
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
        except BaseException as error:  # whatever it is, it belongs to the consumer
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
