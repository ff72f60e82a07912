"""How a pooling job is spread over a cluster: tasks by ranges of user buckets, very full ranges in parts.

Where the tables' files can be read beside Spark, a task is a list of files and nothing is shuffled but that list.
Otherwise rows come to their task by one shuffle. Both give the same rows, to the bit.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from userrep.events.buckets import NUM_BUCKETS, BucketRange, partition_values, power_of_two, range_in_path, slice_number
from userrep.features.accumulate import day_number
from userrep.features.bucketed import BucketedFile, steps
from userrep.features.columns import SUMS_DDL
from userrep.features.pooling import PoolingJob
from userrep.features.shuffled import of_kind, steps_of_rows

ROWS_PER_TASK = 16_000_000  # that many, since a task reads a row group of each file more than its rows fill
_FULL = 3  # a range with that many times the mean of all is taken in parts ...
_FULL_ROWS = 1_000_000  # ... unless it is small all the same


class TileRows(NamedTuple):
    """Tiles, and whether they count in the sums before and after."""

    rows: DataFrame
    before: bool
    after: bool


class SumRows(NamedTuple):
    """Window sums of an as-of date."""

    rows: DataFrame
    as_of: date


@dataclass(frozen=True)
class Inputs:
    """What a pooling job reads. ``is_direct``: tasks may read the tables' files themselves."""

    tiles: Sequence[TileRows]
    sums: SumRows | None
    profiles: DataFrame | None
    is_direct: bool

    @property
    def spark(self) -> SparkSession:
        """The session of the rows."""
        rows = [*(tiles.rows for tiles in self.tiles), *([self.sums.rows] if self.sums else [])]
        return rows[0].sparkSession


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


def pooled(inputs: Inputs, job: PoolingJob, plan: Plan, schema: StructType) -> DataFrame:
    """Run a job over all users.

    Returns
    -------
    Rows of the job's output, in ``schema``; of a range, sorted by user bucket. Cost: each row of the inputs is read
    once; no shuffle of rows if files are read directly, else one; of very full ranges one shuffle of partial sums.
    """
    whole = _rows_of_tasks(inputs, job, plan, schema, full=False)
    if not plan.parts:
        return whole
    sums = cast(StructType, StructType.fromDDL(SUMS_DDL))
    parts = _rows_of_tasks(replace(inputs, profiles=None), job.for_parts(), plan, sums, full=True)
    rows = of_kind(parts.withColumn("day", F.unix_date("as_of")), "sums")
    if inputs.profiles is not None and job.output == "features":
        profiles = of_kind(inputs.profiles, "profiles")
        rows = rows.unionByName(profiles.where(slice_number(plan.num_ranges).isin(list(plan.parts))))
    added_up = _shuffled(rows, job.for_adding_up(), slice_number(plan.num_ranges), plan.num_ranges, schema)
    return whole.unionByName(added_up)


def _rows_of_tasks(inputs: Inputs, job: PoolingJob, plan: Plan, schema: StructType, *, full: bool) -> DataFrame:
    """Run a job over the ranges that are taken whole, or over the parts of those that are not."""
    rows = _files_by_range(inputs, plan) if inputs.is_direct else _rows_by_range(inputs, plan)
    task, num_tasks = F.col("range"), plan.num_ranges
    if plan.parts:
        rows = rows.where(F.col("range").isin(list(plan.parts)) == F.lit(full))
    if full:
        ends = np.cumsum(list(plan.parts.values())).tolist()
        starts = dict(zip(plan.parts, [0, *ends[:-1]], strict=True))
        part = F.when(F.col("kind") == "tiles", F.pmod("day", _looked_up(plan.parts))).otherwise(0)
        task, num_tasks = _looked_up(starts) + part, ends[-1]
    if not inputs.is_direct:
        return _shuffled(rows.drop("range"), job, task, num_tasks, schema)

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        listed = [row for batch in batches for row in batch.to_pylist()]
        files = [BucketedFile(**{name: row[name] for name in BucketedFile._fields}) for row in listed]
        if files:
            within = BucketRange(listed[0]["start"], listed[0]["stop"])
            yield from job.run(steps(files, within, context=bool(job.spec.context)))

    return rows.repartitionById(num_tasks, task.cast("int")).mapInArrow(work, schema)


def _shuffled(rows: DataFrame, job: PoolingJob, task: Column, num_tasks: int, schema: StructType) -> DataFrame:
    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return job.run(steps_of_rows(batches, context=bool(job.spec.context)))

    return (
        rows.repartitionById(num_tasks, task.cast("int")).sortWithinPartitions("user_bucket").mapInArrow(work, schema)
    )


def _files_by_range(inputs: Inputs, plan: Plan) -> DataFrame:
    """List the files that may hold users of each range. Driver memory: one entry a file."""
    files: list[tuple[str, str, int, bool, bool]] = []
    for tiles in inputs.tiles:
        for path in tiles.rows.inputFiles():
            day = day_number(date.fromisoformat(partition_values(path)["event_date"]))
            files.append(("tiles", path, day, tiles.before, tiles.after))
    if inputs.sums is not None:
        as_of = day_number(inputs.sums.as_of)
        files += [("sums", path, as_of, True, False) for path in inputs.sums.rows.inputFiles()]
    files += [("profiles", p, 0, True, True) for p in (inputs.profiles.inputFiles() if inputs.profiles else [])]
    rows = [(*file, *range_in_path(file[1])) for file in files]
    schema = "kind STRING, path STRING, day INT, before BOOLEAN, after BOOLEAN, first INT, end INT"
    width = NUM_BUCKETS // plan.num_ranges
    ranges = inputs.spark.range(plan.num_ranges).select(
        F.col("id").cast("int").alias("range"),
        (F.col("id") * width).cast("int").alias("start"),
        ((F.col("id") + 1) * width).cast("int").alias("stop"),
    )
    listed = F.broadcast(ranges.sparkSession.createDataFrame(rows, schema))
    meets = (F.col("first") < F.col("stop")) & (F.col("start") < F.col("end"))
    return ranges.join(listed, on=meets, how="inner").drop("first", "end")


def _rows_by_range(inputs: Inputs, plan: Plan) -> DataFrame:
    """Bring all rows to one schema."""
    frames = [
        of_kind(
            tiles.rows.withColumns(
                {"day": F.unix_date("event_date"), "before": F.lit(tiles.before), "after": F.lit(tiles.after)}
            ),
            "tiles",
        )
        for tiles in inputs.tiles
    ]
    if inputs.sums is not None:
        as_of = day_number(inputs.sums.as_of)
        frames.append(of_kind(inputs.sums.rows.withColumn("day", F.lit(as_of)), "sums"))
    if inputs.profiles is not None:
        frames.append(of_kind(inputs.profiles, "profiles"))
    rows = frames[0]
    for more in frames[1:]:
        rows = rows.unionByName(more)
    return rows.withColumn("range", slice_number(plan.num_ranges))


def _looked_up(numbers: dict[int, int]) -> Column:
    """Look up the number of a row's range."""
    return F.create_map(*(F.lit(value) for pair in numbers.items() for value in pair))[F.col("range")]
