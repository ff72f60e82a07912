"""Horovod on Spark: the one place of the project that reaches for the SparkContext."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.errors import PySparkAttributeError

from userrep.training.launch.lifeline import Address
from userrep.training.launch.ranks import train_rank
from userrep.training.task import TrainingTask

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_START_SECONDS = 120  # for Spark to start the tasks; the slots are there


class HorovodLaunch:
    """One Horovod job: a Spark task a rank, and a process beside each."""

    def __init__(self, spark: "SparkSession") -> None:
        self._spark = spark
        self.last_words: deque[str] = deque(maxlen=40)

    def run(self, task: TrainingTask, address: Address, resume: str | None) -> None:
        """Run the ranks to their end. What it raises says little; the lifeline knows more."""
        import horovod.spark

        with _left_alone():
            horovod.spark.run(
                train_rank,
                args=(task, address, resume),
                num_proc=task.training.num_workers,
                start_timeout=_START_SECONDS,
                use_gloo=True,
                env={"OMP_NUM_THREADS": str(task.training.threads)},  # beside what the task itself has
                verbose=0,
                stdout=self,
                stderr=self,
                executable=self._spark.sparkContext.pythonExec,  # the executors' interpreter, not this process's
            )

    def stop(self) -> None:
        """Cancel the Spark job."""
        from horovod.spark.driver import job_id

        self._spark.sparkContext.cancelJobGroup(f"horovod.spark.run.{job_id.JOB_ID}")

    def write(self, text: str | bytes) -> None:
        """Keep the last of what the ranks print."""
        said = text.decode(errors="replace") if isinstance(text, bytes) else text
        self.last_words.extend(line for line in said.splitlines() if line.strip())

    def flush(self) -> None:
        """Nothing is held back."""


def num_slots(spark: "SparkSession") -> int | None:
    """Return how many tasks Spark can run at once with the executors it has now; None where Spark Connect hides it."""
    try:
        context = spark.sparkContext
    except PySparkAttributeError:
        return None
    try:
        scala = context._jsc.sc()
        profile = scala.resourceProfileManager().defaultResourceProfile()
        return int(scala.maxNumConcurrentTasks(profile))  # knows of cores, task.cpus and GPUs
    except Py4JError:  # not every platform lets Python call it
        return context.defaultParallelism // int(context.getConf().get("spark.task.cpus", "1") or 1)


@contextmanager
def _left_alone() -> Iterator[None]:
    """Keep Horovod's launcher from what is not its own.

    Its signal handlers would stay, and Ctrl-C would do nothing from then on; where a rank dies, threads of it print
    the tracebacks of connections and of a Spark job that it has cancelled itself.
    """
    excepthook = threading.excepthook

    def quiet(args: threading.ExceptHookArgs) -> None:
        if args.thread is None or "run_spark" not in args.thread.name:
            excepthook(args)

    with (
        patch("horovod.runner.gloo_run.register_shutdown_event", threading.Event),
        patch("horovod.spark.driver.rsh.traceback"),
        patch("threading.excepthook", quiet),
    ):
        yield
