"""Measurement of Spark's work for a stage of userrep: task time, bytes read and data shuffled."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from pyspark.sql import SparkSession


class SparkWork:
    """Counters of the work of a session's application since the creation of this object, by any caller.

    Cost: a few milliseconds, and one millisecond per counted Spark stage. Spark keeps the newest
    ``spark.ui.retainedStages`` stages (default 1,000); older ones are not counted. Under Spark Connect there are no
    counters.
    """

    def __init__(self, spark: SparkSession) -> None:
        is_remote = type(spark).__module__.startswith("pyspark.sql.connect")
        self._context: Any = None if is_remote else spark.sparkContext
        self._last = next((stage.stageId() for stage in self._newest_first()), -1)

    def found(self) -> dict[str, float]:
        """Return ``task_seconds`` (sum over tasks), ``input_bytes``, ``shuffle_bytes`` and ``shuffle_rows``.

        ``input_bytes`` does not include files that tasks read through pyarrow. Empty under Spark Connect.
        """
        if self._context is None:
            return {}
        new_stages = list(takewhile(lambda stage: stage.stageId() > self._last, self._newest_first()))
        seconds = sum(stage.executorRunTime() for stage in new_stages) / 1000
        return {
            "task_seconds": round(seconds, 3),
            "input_bytes": sum(stage.inputBytes() for stage in new_stages),
            "shuffle_bytes": sum(stage.shuffleWriteBytes() for stage in new_stages),
            "shuffle_rows": sum(stage.shuffleWriteRecords() for stage in new_stages),
        }

    def _newest_first(self) -> Iterator[Any]:
        if self._context is None:
            return
        no_quantiles = self._context._gateway.new_array(self._context._jvm.double, 0)
        stages = self._context._jsc.sc().statusStore().stageList(None, False, False, no_quantiles, None)
        yield from (stages.apply(k) for k in range(stages.size()))
