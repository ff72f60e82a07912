"""TorchDistributor: Spark's own launcher, a barrier stage of tasks that each run torchrun."""

import logging
import uuid
from collections import deque
from typing import TYPE_CHECKING

from userrep.training.launch.lifeline import Address
from userrep.training.launch.ranks import train_rank
from userrep.training.task import TrainingTask

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class TorchLaunch:
    """One job of ``pyspark.ml.torch.distributor``; GPUs are used where Spark hands them to tasks."""

    def __init__(self, spark: "SparkSession") -> None:
        # A session of its own to tag: one that has been tagged cannot be serialized any more, and the models of Spark
        # ML that are fitted in it carry it along. Spark Connect has no such session, and no need of one.
        self._spark = spark.newSession() if hasattr(spark, "newSession") else spark
        self._tag = f"userrep-training-{uuid.uuid4().hex}"
        self.last_words: deque[str] = deque(maxlen=40)

    def run(self, task: TrainingTask, address: Address, resume: str | None) -> None:
        """Run the ranks to their end. What it raises says little; the lifeline knows more."""
        from pyspark.ml.torch.distributor import TorchDistributor

        chatter = logging.getLogger("TorchDistributor")
        chatter.addHandler(logging.NullHandler())  # with a handler of ours it adds none
        chatter.propagate = False
        has_gpus = int(self._spark.conf.get("spark.task.resource.gpu.amount", None) or 0) > 0
        self._spark.addTag(self._tag)
        try:
            distributor = TorchDistributor(task.training.num_workers, local_mode=False, use_gpu=has_gpus)
            distributor.spark = self._spark
            distributor.run(train_rank, task, address, resume)
        except RuntimeError as error:
            self.last_words.extend(line for line in str(error).splitlines() if line.strip())
            raise
        finally:
            self._spark.removeTag(self._tag)

    def stop(self) -> None:
        """Cancel the Spark job, so that Spark does not try the stage again."""
        self._spark.interruptTag(self._tag)
