"""The launchers: Horovod on Spark, the only training backend that uses the SparkContext, and TorchDistributor.

TorchDistributor comes with Spark: a barrier stage whose tasks each run torchrun.
"""

import logging
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.errors import PySparkAttributeError

from userrep.training.launch.rank_monitor import Address
from userrep.training.launch.ranks import train_rank
from userrep.training.task import TrainingTask

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_START_SECONDS = 120  # for Spark to start the tasks; free slots were checked before


class HorovodLaunch:
    """One Horovod job: one Spark task per rank, each with a training process next to it.

    ``last_output``: the last 40 lines that the ranks printed.
    """

    def __init__(self, spark: "SparkSession") -> None:
        self._spark = spark
        self.last_output: deque[str] = deque(maxlen=40)

    def run(self, task: TrainingTask, address: Address, resume: str | None) -> None:
        """Run the ranks until they end. Its exceptions carry little detail; ``RankMonitor.failure`` has the cause."""
        import horovod.spark

        with _contained_launcher():
            horovod.spark.run(
                train_rank,
                args=(task, address, resume),
                num_proc=task.training.num_workers,
                start_timeout=_START_SECONDS,
                use_gloo=True,
                env={  # in addition to the task's own
                    "OMP_NUM_THREADS": str(task.training.threads),
                    "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "600",  # after which ranks stop waiting for one that hangs
                },
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
        """Keep the last lines that the ranks print; Horovod uses this object as their stdout and stderr."""
        output = text.decode(errors="replace") if isinstance(text, bytes) else text
        self.last_output.extend(line for line in output.splitlines() if line.strip())

    def flush(self) -> None:
        """Do nothing; output is not buffered."""


def num_slots(spark: "SparkSession") -> int | None:
    """Return how many tasks Spark can run at once on its current executors; None under Spark Connect."""
    try:
        context = spark.sparkContext
    except PySparkAttributeError:
        return None
    try:
        scala = context._jsc.sc()
        profile = scala.resourceProfileManager().defaultResourceProfile()
        return int(scala.maxNumConcurrentTasks(profile))  # respects cores, task.cpus and GPUs
    except Py4JError:  # some platforms do not let Python call this method
        return context.defaultParallelism // int(context.getConf().get("spark.task.cpus", "1") or 1)


@contextmanager
def _contained_launcher() -> Iterator[None]:
    """Keep Horovod's launcher from changing signal handlers and from printing tracebacks.

    Its signal handlers would stay installed and disable Ctrl-C. When a rank dies, its threads print tracebacks of lost
    connections and of the Spark job that the launcher itself canceled.
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


class TorchLaunch:
    """One job of ``pyspark.ml.torch.distributor``. Ranks use GPUs if Spark assigns GPUs to tasks.

    ``last_output``: the last 40 lines of the error if the job failed.
    """

    def __init__(self, spark: "SparkSession") -> None:
        # Tag a new session, not the caller's: a tagged session can no longer be serialized, and Spark ML models carry
        # the session they were fitted in. Spark Connect sessions have no ``newSession`` and do not need one.
        self._spark = spark.newSession() if hasattr(spark, "newSession") else spark
        self._tag = f"userrep-training-{uuid.uuid4().hex}"
        self.last_output: deque[str] = deque(maxlen=40)

    def run(self, task: TrainingTask, address: Address, resume: str | None) -> None:
        """Run the ranks until they end. Its exceptions carry little detail; ``RankMonitor.failure`` has the cause."""
        from pyspark.ml.torch.distributor import TorchDistributor

        logger = logging.getLogger("TorchDistributor")
        logger.addHandler(logging.NullHandler())  # TorchDistributor adds its own only to a logger without handlers
        logger.propagate = False
        has_gpus = float(self._spark.conf.get("spark.task.resource.gpu.amount", None) or 0) > 0
        self._spark.addTag(self._tag)
        try:
            distributor = TorchDistributor(task.training.num_workers, local_mode=False, use_gpu=has_gpus)
            distributor.spark = self._spark
            distributor.run(train_rank, task, address, resume)
        except RuntimeError as error:
            self.last_output.extend(line for line in str(error).splitlines() if line.strip())
            raise
        finally:
            self._spark.removeTag(self._tag)

    def stop(self) -> None:
        """Cancel the Spark job, so that Spark does not retry the stage."""
        self._spark.interruptTag(self._tag)
