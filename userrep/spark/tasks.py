"""Tasks that work on rows of the driver, such as the paths of files."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from userrep.spark.releases import repartition_by_number
from userrep.spark.session import shuffle_partitions


def map_in_tasks(
    spark: SparkSession,
    rows: Sequence[tuple[Any, ...]],
    columns: str,
    work: Callable[[Iterator[dict[str, Any]]], Iterable[dict[str, Any]]],
    returns: pa.Schema,
    *,
    task_of: Sequence[int] | None = None,
) -> list[Row]:
    """Return the rows that ``work`` makes of the rows of each task, as dictionaries by column.

    ``columns``: DDL of ``rows``, of which there is at least one. ``task_of``: the number of each row's task; by
    default, the session's shuffle partitions get the rows in turn.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        results = work(row for batch in batches for row in batch.to_pylist())
        yield pa.RecordBatch.from_pylist(list(results), returns)

    if task_of is None:
        num_tasks = min(len(rows), shuffle_partitions(spark))
        task_of = [number % num_tasks for number in range(len(rows))]
    numbered = [(task, *row) for task, row in zip(task_of, rows, strict=True)]
    frame = repartition_by_number(
        spark.createDataFrame(numbered, f"task INT, {columns}"), 1 + max(task_of), F.col("task")
    )
    return frame.drop("task").mapInArrow(run, from_arrow_schema(returns)).collect()
