"""The runner and the output of benchmarks: one JSON object per line on stdout, progress on stderr."""

import argparse
import json
import os
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import psutil
from pyspark.sql import SparkSession

from benchmarks.logs import SMALL, LogSize
from benchmarks.results import record
from userrep.errors import in_one_line
from userrep.logs import log_to_stderr
from userrep.spark.session import get_session

Line = dict[str, Any]
Measure = Callable[[SparkSession, LogSize, Path, int], Line]
Timings = Sequence[tuple[float, float]]  # seconds of two sides, such as ours and the peer's, run by run

Size = TypeVar("Size")


@dataclass(frozen=True)
class Asked(Generic[Size]):
    """The arguments of a benchmark."""

    size: Size
    root: Path
    runs: int
    is_small: bool


class Skipped(Exception):  # noqa: N818  # not a fault of ours
    """The peer cannot be installed or does not finish. The message gives the reason."""


def ratio_line(benchmark: str, size: Line, taken: Timings, *, peer: str, **more: Any) -> Line:
    """Return the line of a comparison; ``ratio`` is our median seconds divided by the peer's, lower is better.

    ``taken``: seconds of both sides, run by run. ``range`` is the lowest and the highest of each figure.
    """
    seconds, peer_seconds = medians(taken)
    ours, theirs = zip(*taken, strict=True)
    return {
        "benchmark": benchmark,
        "size": size,
        "seconds": round(seconds, 3),
        "peer": peer,
        "peer_seconds": round(peer_seconds, 3),
        "ratio": round(seconds / peer_seconds, 3),
        "runs": len(taken),
        "range": {
            "seconds": span(ours),
            "peer_seconds": span(theirs),
            "ratio": span([mine / its for mine, its in taken]),
        },
        **more,
    }


def growth_line(benchmark: str, size: Line, smaller_size: Line, taken: Timings, *, times: float, **more: Any) -> Line:
    """Return the line of a size that is ``times`` a smaller one; a ``value`` of 1 is linear growth.

    ``taken``: seconds of the smaller and of the larger size, run by run.
    """
    smaller_seconds, seconds = medians(taken)
    return {
        "benchmark": benchmark,
        "size": size,
        "seconds": round(seconds, 3),
        "smaller_size": smaller_size,
        "smaller_seconds": round(smaller_seconds, 3),
        "value": round(seconds / (times * smaller_seconds), 3),
        "runs": len(taken),
        "range": {"value": span([larger / (times * smaller) for smaller, larger in taken])},
        **more,
    }


def medians(taken: Timings) -> tuple[float, float]:
    """Return the median seconds of both sides."""
    ours, theirs = zip(*taken, strict=True)
    return statistics.median(ours), statistics.median(theirs)


def span(values: Sequence[float]) -> list[float]:
    """Return the lowest and the highest value."""
    return [round(min(values), 3), round(max(values), 3)]


def run(
    benchmark: str, measure: Measure, size: LogSize, *, runs: int, small: LogSize = SMALL, memory: str = "6g"
) -> None:
    """Run one benchmark with the arguments of the command line, in its own session, and print its line.

    A run on the small log comes first, so that the session is warm. ``memory``: of the JVM.
    """
    asked = ask(benchmark, size, small=small, runs=runs, unit="events", number=size.events, resized=size.of_events)
    in_warm_session(benchmark, measure, asked, small=small, memory=memory)


def in_warm_session(
    benchmark: str,
    measure: Callable[[SparkSession, Any, Path, int], Line],
    asked: Asked[Any],
    *,
    small: Any,
    memory: str = "6g",
) -> None:
    """Measure in a session of its own, after a run on the small size, and print the line. ``memory``: of the JVM."""
    conf = {} if asked.is_small else {"spark.driver.memory": memory}
    spark = get_session(master=f"local[{os.cpu_count()}]", conf=conf, app_name=benchmark)

    def measured() -> Line:
        if asked.size != small:
            progress(f"{benchmark}: warming up")
            measure(spark, small, asked.root, 1)
        progress(f"{benchmark}: {asked.size.name}")
        return measure(spark, asked.size, asked.root, asked.runs)

    try:
        print_line(benchmark, measured)
    finally:
        spark.stop()


def ask(
    benchmark: str, size: Size, *, small: Size, runs: int, unit: str, number: int, resized: Callable[[int], Size]
) -> Asked[Size]:
    """Parse the command line of a benchmark. ``size`` has ``number`` of ``unit``; ``resized`` changes the number."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark}")
    parser.add_argument("--small", action="store_true", help="a size of seconds, to see that answers agree")
    parser.add_argument(f"--{unit}", dest="number", type=int, metavar="N", help=f"number of {unit} ({number:,})")
    parser.add_argument("--runs", type=int, metavar="N", help=f"runs of each side; medians count ({runs})")
    parser.add_argument("--root", type=Path, default=Path("build/benchmarks"), help="where data is kept (%(default)s)")
    options = parser.parse_args()
    if options.small:
        size, runs = small, 1
    if options.number:
        size = resized(options.number)
    root = options.root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    return Asked(size, root, options.runs or runs, options.small)


def print_line(benchmark: str, measured: Callable[[], Line]) -> None:
    """Print the line of a benchmark, or why it was skipped. With RECORD set, keep it for the results page."""
    print_lines(benchmark, lambda: [measured()])


def print_lines(benchmark: str, measured: Callable[[], list[Line]]) -> None:
    """Do the same for a benchmark of several lines."""
    log_to_stderr()
    start = time.perf_counter()
    try:
        lines = measured()
    except Skipped as skipped:
        lines = [{"benchmark": benchmark, "skipped": str(skipped)}]
    for line in lines:
        if os.environ.get("RECORD") and "skipped" not in line:
            record(line, time.perf_counter() - start)
        print(json.dumps(line), flush=True)


def progress(text: str) -> None:
    """Report progress on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def seconds_of(work: Callable[[], Any]) -> float:
    """Return the wall-clock seconds of ``work``."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _peer_seconds_of(peer: Callable[[], Any]) -> float:
    try:
        return seconds_of(peer)
    except Skipped:
        raise
    except Exception as error:  # whatever a peer raises
        traceback.print_exc()
        raise Skipped(f"the peer fails ({in_one_line(error)})") from error


def alternating(ours: Callable[[], Any], theirs: Callable[[], Any], *, check: Callable[[], None], runs: int) -> Timings:
    """Run both sides alternately, and ``check`` the first answers. Returns the seconds of both sides, run by run.

    Each run begins with the other side than the one before, so neither always finds the caches that the other leaves.
    Raises Skipped if the peer fails.
    """
    taken: list[tuple[float, float]] = []
    for k in range(runs):
        if k % 2 == 0:
            seconds, peer_seconds = seconds_of(ours), _peer_seconds_of(theirs)
        else:
            peer_seconds, seconds = _peer_seconds_of(theirs), seconds_of(ours)
        taken.append((seconds, peer_seconds))
        progress(f"run {k + 1} of {runs}: ours {seconds:.1f} s, the peer's {peer_seconds:.1f} s")
        if k == 0:
            check()
    return taken


@contextmanager
def watched_workers() -> Iterator[list[float]]:
    """Sample the memory of Spark's Python workers. At the end, the list has the peak of the largest one, in MiB."""

    def largest() -> float:
        workers = psutil.Process().children(recursive=True)
        return max((own_bytes(worker, "python") for worker in workers), default=0) / 2**20

    with peak_of(largest, every=0.05) as peak:
        yield peak


def own_bytes(process: psutil.Process, name: str = "") -> int:
    """Return the memory of a process whose name contains ``name``; 0 for other processes and for one that has ended.

    Pages of mapped files are not counted, since the system can reclaim them.
    """
    try:
        memory = process.memory_info()
        return int(memory.rss - memory.shared) if name in process.name() else 0
    except psutil.Error:
        return 0


@contextmanager
def peak_of(measured: Callable[[], float], *, every: float) -> Iterator[list[float]]:
    """Call a function periodically in a thread. At the end, the list has its largest value."""
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        is_over = False
        while not is_over:
            is_over = done.wait(every)
            peak[0] = max(peak[0], measured())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
