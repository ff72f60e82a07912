"""How a pooling job is spread over a cluster: tasks by ranges of user buckets, very full ranges in parts.

Very full ranges are taken in parts by day. Where the item vectors are too large for a worker, all ranges are taken in
parts by item (features/sums/item_parts.py). Parts of sums are shuffled by user and added up.

Of ``FileTables``, a task is a list of files, nothing is shuffled but that list, and what tasks make they write into
files of the tables themselves. Otherwise rows come to their task by one shuffle, and Spark writes them. With items in
parts, each of which would read all tiles, rows are shuffled, too. Both give the same rows, to the bit.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from userrep.features.sums.batches import SUMS_DDL
from userrep.features.sums.bucketed import BucketedFile, steps
from userrep.features.sums.inputs import Inputs, listed_files, rows_of_inputs
from userrep.features.sums.item_parts import by_item_part
from userrep.features.sums.plan import Plan, Task
from userrep.features.sums.pooling import Made, Output, PoolingJob
from userrep.features.sums.shuffled import of_kind, steps_of_rows
from userrep.features.sums.writing import Destination, Writing, Written
from userrep.store.buckets import BucketRange, range_of, slice_number
from userrep.store.file_tables import FileTables


def written(inputs: Inputs, job: PoolingJob, plan: Plan, destinations: Mapping[Output, Destination]) -> list[Written]:
    """Run a job over all users; tasks write its outputs into files, sorted by user bucket, that nothing refers to yet.

    Cost: each row of the inputs is read once; no shuffle of rows, but of very full ranges one of partial sums. With
    items in parts, rows are shuffled, and so are partial sums of all users: for each user as many rows as there are
    parts with an item of theirs. Driver memory: one entry a file.
    """
    frames = _frames(inputs, job, plan, Writing(dict(destinations), plan.num_ranges))
    return [Written.of(row) for frame in frames for row in frame.collect()]


def pooled(inputs: Inputs, job: PoolingJob, plan: Plan, schema: StructType) -> DataFrame:
    """Run a job of one output over all users, for Spark to write.

    Returns
    -------
    Rows of the job's output, in ``schema``; of a range, sorted by user bucket. Cost: each row of the inputs is read
    once; one shuffle of rows; of very full ranges, and with items in parts of all, one more of partial sums.
    """
    first, *more = _frames(inputs, job, plan, schema)
    return first.unionByName(more[0]) if more else first


def _frames(inputs: Inputs, job: PoolingJob, plan: Plan, writing: StructType | Writing) -> list[DataFrame]:
    """Return what is made of ranges that are taken whole, and what of those that are not; one or both."""
    job = replace(job, item_parts=plan.item_parts)
    frames = []
    if whole := plan.tasks(in_parts=False):
        frames.append(_tasks(inputs, job, plan, whole, writing))
    if in_parts := plan.tasks(in_parts=True):
        rows = _partial_sums(inputs, job, plan, in_parts)
        frames.append(_shuffled(rows, job.for_adding_up(), slice_number(plan.num_ranges), plan.num_ranges, writing))
    return frames


def _rows(made: Iterable[Made]) -> Iterator[pa.RecordBatch]:
    return (rows for _, _, rows in made)


def _partial_sums(inputs: Inputs, job: PoolingJob, plan: Plan, tasks: Sequence[Task]) -> DataFrame:
    """Make parts of the sums of the ranges that are taken in parts, and bring along the profiles of their users."""
    sums = cast(StructType, StructType.fromDDL(SUMS_DDL))
    with_profiles = inputs.has_profiles and job.outputs != ("sums",)
    sums_picks = with_profiles and plan.item_parts > 1 and job.spec.onboarding
    of_parts = inputs if sums_picks else inputs.without_profiles()
    parts = _tasks(of_parts, job.for_parts(), plan, tasks, sums)
    rows = of_kind(parts.withColumn("day", F.unix_date("as_of")), "sums")
    if with_profiles:
        profiles = of_kind(inputs.profile_rows(), "profiles")
        if plan.item_parts == 1:
            profiles = profiles.where(slice_number(plan.num_ranges).isin(list(plan.parts)))
        rows = rows.unionByName(profiles)
    return rows


def _tasks(
    inputs: Inputs, job: PoolingJob, plan: Plan, tasks: Sequence[Task], writing: StructType | Writing
) -> DataFrame:
    """Run a job over ranges, or over parts of them."""
    tables = inputs.tables
    if isinstance(tables, FileTables) and plan.item_parts == 1:
        return _direct(tables.spark, listed_files(tables, inputs), job, plan, tasks, writing=writing)
    rows, number = rows_of_inputs(inputs), slice_number(plan.num_ranges)
    is_full = number.isin(list(plan.parts))
    if plan.item_parts == 1 and all(task.num_parts == 1 for task in tasks):  # the ranges that are taken whole
        return _shuffled(rows.where(~is_full), job, number, plan.num_ranges, writing)
    if plan.item_parts == 1:
        rows, first = rows.where(is_full), _looked_up(_first_tasks(tasks), number)
    else:
        rows, first = by_item_part(rows, plan.item_parts), number
        for full, num_parts in plan.parts.items():
            first += F.when(number > full, num_parts - 1).otherwise(0)
        first += F.col("item_part") * (len(tasks) // plan.item_parts)
    part = F.when(is_full & (F.col("kind") == "tiles"), F.pmod("day", _looked_up(plan.parts, number))).otherwise(0)
    return _shuffled(rows, job, first + part, len(tasks), writing)


def _first_tasks(tasks: Sequence[Task]) -> dict[int, int]:
    """Map each range to its first task."""
    return {task.range: k for k, task in reversed(list(enumerate(tasks)))}


def _direct(
    spark: SparkSession,
    listed: pa.Table,
    job: PoolingJob,
    plan: Plan,
    tasks: Sequence[Task],
    *,
    writing: StructType | Writing,
) -> DataFrame:
    """Let each task read its part of the files by itself. The list of files goes to all tasks, as Arrow."""
    finish = _finish(writing)

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in (number for batch in batches for number in batch.column("id").to_pylist()):
            within = range_of(tasks[number].range, plan.num_ranges)
            files = _files_of(tasks[number], within, listed)
            yield from finish(job.run(steps(files, within, context=bool(job.spec.context))))

    return spark.range(0, len(tasks), 1, max(1, len(tasks))).mapInArrow(work, _schema(writing))


def _files_of(task: Task, within: BucketRange, listed: pa.Table) -> list[BucketedFile]:
    meets = pc.and_(pc.less(listed["first"], within.stop), pc.greater(listed["end"], within.start))
    files = [
        BucketedFile(*row)
        for row in zip(*listed.filter(meets).select(BucketedFile._fields).to_pydict().values(), strict=True)
    ]
    return [file for file in files if _is_of(task, file)]


def _is_of(task: Task, file: BucketedFile) -> bool:
    if file.kind == "tiles":
        return file.day % task.num_parts == task.part
    return task.part == 0


def _shuffled(
    rows: DataFrame, job: PoolingJob, task: Column, num_tasks: int, writing: StructType | Writing
) -> DataFrame:
    """Bring rows to their tasks; all rows of a task have one ``item_part``, if any."""
    finish = _finish(writing)

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        filled = (batch for batch in batches if batch.num_rows)
        first = next(filled, None)
        if first is not None:
            item_part = first.column("item_part")[0].as_py() if "item_part" in first.schema.names else None
            mine = replace(job, item_part=item_part)
            yield from finish(mine.run(steps_of_rows(chain([first], filled), context=bool(job.spec.context))))

    in_order = rows.repartitionById(num_tasks, task.cast("int")).sortWithinPartitions("user_bucket")
    return in_order.mapInArrow(work, _schema(writing))


def _finish(writing: StructType | Writing) -> Callable[[Iterable[Made]], Iterator[pa.RecordBatch]]:
    return writing if isinstance(writing, Writing) else _rows


def _schema(writing: StructType | Writing) -> StructType | str:
    return writing.SCHEMA if isinstance(writing, Writing) else writing


def _looked_up(numbers: dict[int, int], key: Column) -> Column:
    if not numbers:
        return F.lit(None).cast("int")
    return F.create_map(*(F.lit(value) for pair in numbers.items() for value in pair))[key]
