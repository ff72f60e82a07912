"""Where training runs: in this process, or as a Horovod job on Spark's executors. The loop is the same.

The Horovod launch is the one place that needs a SparkContext.
"""

import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError  # type: ignore[import-untyped]

from userrep.config import Training
from userrep.errors import SlotsError, UsageError, UserrepError
from userrep.training.comm import HorovodComm, LocalComm
from userrep.training.loop import TrainingResult, TrainingTask, train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_MARK = "userrep-progress: "  # before each line of a rank's output that is meant for the driver's user
Report = Callable[[str], None]


def to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_training(
    task: TrainingTask, *, spark: "SparkSession | None" = None, report: Report = to_stderr
) -> TrainingResult:
    """Train on the backend that the task's configuration names; ``spark`` is needed by ``horovod`` only.

    Raises
    ------
    SlotsError
        If Spark has fewer slots than ``training.num_workers``; Horovod would wait for them in vain.
    UsageError
        If Horovod is not installed.
    DivergedError
        As ``train`` does.
    """
    if task.training.backend == "local":
        return train(task, LocalComm(), report)
    assert spark is not None
    return _on_spark(task, spark, report)


def check_backend(training: Training, spark: "SparkSession") -> None:
    """Refuse a backend that cannot run here, before anything is done for it.

    Raises
    ------
    UsageError, SlotsError
        As ``run_training`` does.
    """
    if training.backend != "horovod":
        return
    if find_spec("horovod") is None:
        raise UsageError(
            "training.backend horovod: Horovod is not installed. Build it with deploy/build_horovod_wheel.sh, "
            "or set training.backend: local and training.num_workers: 1."
        )
    wanted, slots = training.num_workers, num_slots(spark)
    if slots < wanted:
        raise SlotsError(
            f"training.num_workers is {wanted}, but Spark can run {slots} task{'s' * (slots != 1)} at once: "
            f"set training.num_workers to {slots} or less, or give Spark more (spark.master: local[{wanted}]; "
            "on a cluster more spark.executor.instances or spark.executor.cores, or fewer spark.task.cpus)."
        )


def num_slots(spark: "SparkSession") -> int:
    """Return how many tasks Spark can run at once with the executors it has now."""
    context = spark.sparkContext
    try:
        scala = context._jsc.sc()
        profile = scala.resourceProfileManager().defaultResourceProfile()
        return int(scala.maxNumConcurrentTasks(profile))  # knows of cores, task.cpus and GPUs
    except Py4JError:  # not every platform lets Python call it
        return context.defaultParallelism // int(context.getConf().get("spark.task.cpus", "1") or 1)


@dataclass(frozen=True)
class RankFailure:
    """An exception of a rank, as text. ``is_echo``: it only says that another rank has failed."""

    message: str
    traceback: str
    is_echo: bool


def train_rank(task: TrainingTask) -> TrainingResult | UserrepError | RankFailure | None:
    """Run one rank of a Horovod job; rank 0 answers for all of them.

    Errors are returned, not raised: Horovod would tell the driver an exit code, and print the rest.
    """
    comm = HorovodComm()
    try:
        result = train(task, comm, lambda line: print(_MARK + line, flush=True))
    except UserrepError as error:  # all ranks have met it
        return error if comm.rank == 0 else None
    except Exception as error:
        comm.close()
        message = f"training: rank {comm.rank} of {comm.size} failed: {type(error).__name__}: {error}"
        return RankFailure(message, traceback.format_exc(), is_echo=type(error).__name__ == "HorovodInternalError")
    return result if comm.rank == 0 else None


def _on_spark(task: TrainingTask, spark: "SparkSession", report: Report) -> TrainingResult:
    check_backend(task.training, spark)
    import horovod.spark

    wanted = task.training.num_workers
    output, errors = _RankOutput(report), _RankOutput(report)
    try:
        with _contained():
            outcomes = horovod.spark.run(
                train_rank,
                args=(task,),
                num_proc=wanted,
                use_gloo=True,
                verbose=0,
                stdout=output,
                stderr=errors,
                executable=spark.sparkContext.pythonExec,  # the executors' interpreter, not this process's
            )
    except RuntimeError as error:
        error.add_note("\n".join(["The ranks' last words:", *errors.tail]))
        raise
    failures = sorted((o for o in outcomes if isinstance(o, RankFailure)), key=lambda failure: failure.is_echo)
    if failures:
        failure = RuntimeError(failures[0].message)
        failure.add_note(failures[0].traceback)
        raise failure
    if isinstance(outcomes[0], UserrepError):
        raise outcomes[0]
    result: TrainingResult = outcomes[0]
    return result


class _RankOutput:
    """A stream for the ranks' output: passes marked lines on, keeps the last others for when a rank fails."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._partial = ""
        self.tail: deque[str] = deque(maxlen=40)

    def write(self, text: str | bytes) -> None:
        *lines, self._partial = (self._partial + (text.decode() if isinstance(text, bytes) else text)).split("\n")
        for line in lines:
            _, mark, said = line.partition(_MARK)
            if mark:
                self._report(said)
            elif line.strip():
                self.tail.append(line)

    def flush(self) -> None:
        """Nothing is held back but an unfinished line."""


@contextmanager
def _contained() -> Iterator[None]:
    """Keep Horovod's launcher from what outlives it, and from printing.

    It leaves its own signal handlers, with which Ctrl-C would do nothing from then on; and where a rank dies, its
    thread prints the traceback of a Spark job that it has cancelled itself.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    excepthook = threading.excepthook

    def quiet(args: threading.ExceptHookArgs) -> None:
        if args.thread is None or "run_spark" not in args.thread.name:
            excepthook(args)

    threading.excepthook = quiet
    try:
        yield
    finally:
        threading.excepthook = excepthook
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
