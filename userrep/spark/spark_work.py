"""What Spark counts of its own work: core seconds, what is read and shuffled, for the record of a stage of ours."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from pyspark.sql import SparkSession


class SparkWork:
    """The work of a session's application since this was made, whoever asked for it.

    Cost: milliseconds, and one for each Spark stage that is counted. Spark remembers ``spark.ui.retainedStages``
    (1,000): of more, the last are counted. Under Spark Connect nothing is told.
    """

    def __init__(self, spark: SparkSession) -> None:
        is_remote = type(spark).__module__.startswith("pyspark.sql.connect")
        self._context: Any = None if is_remote else spark.sparkContext
        self._last = next((stage.stageId() for stage in self._newest_first()), -1)

    def found(self) -> dict[str, float]:
        """Return ``task_seconds``, of all tasks together, the bytes that Spark read for them, and what they shuffled.

        Files that tasks read by themselves, through pyarrow, are not in ``input_bytes``.
        """
        if self._context is None:
            return {}
        mine = list(takewhile(lambda stage: stage.stageId() > self._last, self._newest_first()))
        seconds = sum(stage.executorRunTime() for stage in mine) / 1000
        return {
            "task_seconds": round(seconds, 3),
            "input_bytes": sum(stage.inputBytes() for stage in mine),
            "shuffle_bytes": sum(stage.shuffleWriteBytes() for stage in mine),
            "shuffle_rows": sum(stage.shuffleWriteRecords() for stage in mine),
        }

    def _newest_first(self) -> Iterator[Any]:
        if self._context is None:
            return
        no_numbers = self._context._gateway.new_array(self._context._jvm.double, 0)
        stages = self._context._jsc.sc().statusStore().stageList(None, False, False, no_numbers, None)
        yield from (stages.apply(k) for k in range(stages.size()))
