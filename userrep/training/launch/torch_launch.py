"""The launcher for TorchDistributor, which comes with Spark: a barrier stage whose tasks each run torchrun."""

import logging
import uuid
from collections import deque
from typing import TYPE_CHECKING

from userrep.training.launch.rank_monitor import Address
from userrep.training.launch.ranks import train_rank
from userrep.training.task import TrainingTask

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


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
        has_gpus = int(self._spark.conf.get("spark.task.resource.gpu.amount", None) or 0) > 0
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
