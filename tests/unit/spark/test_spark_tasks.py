"""Rows of the driver are dealt to tasks, and come back as what the tasks make of them."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from userrep.spark.session import shuffle_partitions
from userrep.spark.tasks import map_in_tasks

pytestmark = pytest.mark.default


def test_each_task_gets_its_rows_and_their_results_come_back(spark: SparkSession) -> None:
    def joined(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        yield {"names": sorted(row["name"] for row in rows)}

    rows, returns = [("a", 1), ("b", 2), ("c", 3)], pa.schema([("names", pa.list_(pa.string()))])

    def found(**how: Any) -> list[list[str]]:
        made = map_in_tasks(spark, rows, "name STRING, number INT", joined, returns, **how)
        return sorted(row.names for row in made)

    assert found(task_of=[0, 2, 0]) == [[], ["a", "c"], ["b"]]  # no row has task 1
    num_tasks = min(3, shuffle_partitions(spark))
    assert found() == sorted([name for name, _ in rows[k::num_tasks]] for k in range(num_tasks))
