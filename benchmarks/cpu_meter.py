"""CPU seconds of this process and its descendants: the JVM, and the Python workers that it starts and ends."""

import threading
from types import TracebackType

import psutil

_PAUSE = 0.5  # seconds between two looks


class CpuMeter:
    """Counts CPU seconds while the block runs, including processes that end meanwhile.

    CPU time after the last sample of a process is missed, half a second at most. The kernel's sums over children would
    miss those that their parent does not wait for, such as workers that Spark stops when they are idle.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, float], float] = {}  # by process id and start
        self._lock, self._is_over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "CpuMeter":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def seconds(self) -> float:
        """Return the CPU seconds so far, user and system."""
        with self._lock:
            here = psutil.Process()
            for process in [here, *here.children(recursive=True)]:
                try:
                    times, key = process.cpu_times(), (process.pid, process.create_time())
                except psutil.NoSuchProcess:
                    continue
                self._seen[key] = times.user + times.system
            return sum(self._seen.values())

    def _watch(self) -> None:
        while not self._is_over.wait(_PAUSE):
            self.seconds()
