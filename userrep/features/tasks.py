"""How a pooling job is spread over a cluster: tasks by ranges of user buckets, very full ranges in parts.

Where the tables' files can be read beside Spark, a task is a list of files, nothing is shuffled but that list, and what
tasks make they write into files of the tables themselves. Otherwise rows come to their task by one shuffle, and Spark
writes them. Both give the same rows, to the bit.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from userrep.events.buckets import BucketRange, power_of_two, range_of, slice_number
from userrep.features.bucketed import BucketedFile, steps
from userrep.features.columns import SUMS_DDL
from userrep.features.inputs import Inputs, listed_files, profile_rows, rows_of_inputs
from userrep.features.pooling import Made, Output, PoolingJob
from userrep.features.shuffled import of_kind, steps_of_rows
from userrep.features.writing import Destination, Writing, Written

ROWS_PER_TASK = 16_000_000  # that many, since a task reads a row group of each file more than its rows fill
_FULL = 3  # a range with that many times the mean of all is taken in parts ...
_FULL_ROWS = 1_000_000  # ... unless it is small all the same


@dataclass(frozen=True)
class Plan:
    """Ranges of user buckets, equal and a power of two in number; those in ``parts`` are taken in so many parts."""

    num_ranges: int
    parts: dict[int, int]


def plan_ranges(rows_by_cell: NDArray[np.int64], *, min_ranges: int) -> Plan:
    """Spread rows over tasks. ``rows_by_cell``: rows to be read, by equal cells of user buckets.

    Users are hashed to buckets, so that ranges differ in rows only by users who are far from the mean.
    """
    total, num_cells = int(rows_by_cell.sum()), len(rows_by_cell)
    num_ranges = power_of_two(max(min_ranges, total / ROWS_PER_TASK))
    if num_ranges <= num_cells:
        rows_by_range = rows_by_cell.reshape(num_ranges, -1).sum(axis=1)
    else:
        rows_by_range = np.repeat(rows_by_cell * num_cells / num_ranges, num_ranges // num_cells)
    mean = total / num_ranges
    is_full = (rows_by_range > _FULL * mean) & (rows_by_range > _FULL_ROWS)
    return Plan(num_ranges, {int(k): int(np.ceil(rows_by_range[k] / mean)) for k in np.flatnonzero(is_full)})


def written(inputs: Inputs, job: PoolingJob, plan: Plan, destinations: Mapping[Output, Destination]) -> list[Written]:
    """Run a job over all users; tasks write its outputs into files, sorted by user bucket, that nothing refers to yet.

    Cost: each row of the inputs is read once; no shuffle of rows, but of very full ranges one of partial sums. Driver
    memory: one entry a file.
    """
    writing = Writing(dict(destinations), plan.num_ranges)
    frames = [_tasks(inputs, job, plan, full=False, writing=writing)]
    if plan.parts:
        parts = _partial_sums(inputs, job, plan)
        frames.append(_shuffled(parts, job.for_adding_up(), slice_number(plan.num_ranges), plan.num_ranges, writing))
    return [Written.of(row) for frame in frames for row in frame.collect()]


def pooled(inputs: Inputs, job: PoolingJob, plan: Plan, schema: StructType) -> DataFrame:
    """Run a job of one output over all users, for Spark to write.

    Returns
    -------
    Rows of the job's output, in ``schema``; of a range, sorted by user bucket. Cost: each row of the inputs is read
    once; one shuffle of rows; of very full ranges one more of partial sums.
    """
    whole = _tasks(inputs, job, plan, full=False, writing=schema)
    if not plan.parts:
        return whole
    parts = _partial_sums(inputs, job, plan)
    added_up = _shuffled(parts, job.for_adding_up(), slice_number(plan.num_ranges), plan.num_ranges, schema)
    return whole.unionByName(added_up)


def _rows(made: Iterable[Made]) -> Iterator[pa.RecordBatch]:
    return (rows for _, _, rows in made)


def _partial_sums(inputs: Inputs, job: PoolingJob, plan: Plan) -> DataFrame:
    """Make parts of the sums of the ranges that are taken in parts, and bring along the profiles of their users."""
    sums = cast(StructType, StructType.fromDDL(SUMS_DDL))
    parts = _tasks(replace(inputs, profiles=None), job.for_parts(), plan, full=True, writing=sums)
    rows = of_kind(parts.withColumn("day", F.unix_date("as_of")), "sums")
    if inputs.profiles is not None and "features" in job.outputs:
        profiles = of_kind(profile_rows(inputs), "profiles")
        rows = rows.unionByName(profiles.where(slice_number(plan.num_ranges).isin(list(plan.parts))))
    return rows


def _tasks(inputs: Inputs, job: PoolingJob, plan: Plan, *, full: bool, writing: StructType | Writing) -> DataFrame:
    """Run a job over the ranges that are taken whole, or over the parts of those that are not."""
    if full:
        tasks = [_Task(number, part, num) for number, num in plan.parts.items() for part in range(num)]
    else:
        tasks = [_Task(number, 0, 1) for number in range(plan.num_ranges) if number not in plan.parts]
    if inputs.tables.has_files:
        return _direct(inputs, job, plan, tasks, writing)
    rows = rows_of_inputs(inputs)
    number = slice_number(plan.num_ranges)
    first_task = {task.range: k for k, task in reversed(list(enumerate(tasks)))}
    task = _looked_up(first_task, number)
    if full:
        day = F.when(F.col("kind") == "tiles", F.pmod("day", _looked_up(plan.parts, number))).otherwise(0)
        task += day
    return _shuffled(rows.where(number.isin(list(first_task))), job, task, len(tasks), writing)


class _Task(NamedTuple):
    """A range of user buckets, or of its tiles those of each ``num_parts``-th day, and the rest with part 0."""

    range: int
    part: int
    num_parts: int


def _direct(
    inputs: Inputs, job: PoolingJob, plan: Plan, tasks: Sequence[_Task], writing: StructType | Writing
) -> DataFrame:
    """Let each task read its part of the files by itself. The list of files goes to all tasks, as Arrow."""
    listed, finish = listed_files(inputs), _finish(writing)

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in (number for batch in batches for number in batch.column("id").to_pylist()):
            within = range_of(tasks[number].range, plan.num_ranges)
            files = _files_of(tasks[number], within, listed)
            yield from finish(job.run(steps(files, within, context=bool(job.spec.context))))

    return inputs.tables.spark.range(0, len(tasks), 1, max(1, len(tasks))).mapInArrow(work, _schema(writing))


def _files_of(task: _Task, within: BucketRange, listed: pa.Table) -> list[BucketedFile]:
    meets = pc.and_(pc.less(listed["first"], within.stop), pc.greater(listed["end"], within.start))
    files = [
        BucketedFile(*row)
        for row in zip(*listed.filter(meets).select(BucketedFile._fields).to_pydict().values(), strict=True)
    ]
    return [file for file in files if (file.day % task.num_parts if file.kind == "tiles" else 0) == task.part]


def _shuffled(
    rows: DataFrame, job: PoolingJob, task: Column, num_tasks: int, writing: StructType | Writing
) -> DataFrame:
    finish = _finish(writing)

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return finish(job.run(steps_of_rows(batches, context=bool(job.spec.context))))

    in_order = rows.repartitionById(num_tasks, task.cast("int")).sortWithinPartitions("user_bucket")
    return in_order.mapInArrow(work, _schema(writing))


def _finish(writing: StructType | Writing) -> Callable[[Iterable[Made]], Iterator[pa.RecordBatch]]:
    return writing if isinstance(writing, Writing) else _rows


def _schema(writing: StructType | Writing) -> StructType | str:
    return writing.SCHEMA if isinstance(writing, Writing) else writing


def _looked_up(numbers: dict[int, int], key: Column) -> Column:
    return F.create_map(*(F.lit(value) for pair in numbers.items() for value in pair))[key]
