"""How a pooling job is spread over a cluster: tasks by ranges of user buckets, very full ranges in parts.

Where the tables' files can be read beside Spark, a task is a list of files, nothing is shuffled but that list, and what
tasks make they write into files of the tables themselves. Otherwise rows come to their task by one shuffle, and Spark
writes them. Both give the same rows, to the bit.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from userrep.delta_files import TableFile
from userrep.events.buckets import NUM_BUCKETS, BucketRange, power_of_two, range_of_slice, slice_number
from userrep.events.tiles import rows_of_revisions
from userrep.features.accumulate import day_number
from userrep.features.bucketed import BucketedFile, steps
from userrep.features.columns import SUMS_DDL
from userrep.features.pooling import Made, Output, PoolingJob
from userrep.features.shuffled import of_kind, steps_of_rows
from userrep.schemas import USER_ITEM_DAYS, USER_PROFILES, USER_WINDOW_SUMS
from userrep.table_writer import TableWriter, Target
from userrep.tables import Tables

ROWS_PER_TASK = 16_000_000  # that many, since a task reads a row group of each file more than its rows fill
_FULL = 3  # a range with that many times the mean of all is taken in parts ...
_FULL_ROWS = 1_000_000  # ... unless it is small all the same


class TileDays(NamedTuple):
    """Tiles of some days, each in one revision, and whether they count in the sums before and after."""

    revision_by_day: Mapping[date, int]
    before: bool
    after: bool


class SumsOf(NamedTuple):
    """A generation of window sums, of an as-of date."""

    lineage_id: str
    generation: int
    as_of: date


@dataclass(frozen=True)
class Inputs:
    """What a pooling job reads. ``profiles``: the hash of their content; None: there are none."""

    tables: Tables
    tiles: Sequence[TileDays]
    sums: SumsOf | None
    profiles: str | None


class Destination(NamedTuple):
    """Where tasks write an output, and the values of partition columns that are the same for all of its rows."""

    target: Target
    values: Mapping[str, Any]


class Written(NamedTuple):
    """A file that a task has written. ``num_inexact``: of features, rows beyond exact sums."""

    output: Output
    as_of: date
    file: TableFile
    num_inexact: int


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
    writing = _Writing(dict(destinations), plan.num_ranges)
    frames = [_tasks(inputs, job, plan, full=False, writing=writing)]
    if plan.parts:
        parts = _partial_sums(inputs, job, plan)
        frames.append(_shuffled(parts, job.for_adding_up(), slice_number(plan.num_ranges), plan.num_ranges, writing))
    found = []
    for frame in frames:
        for row in frame.collect():
            file = TableFile(row.path, row.size, row.num_rows, json.loads(row.partition_values))
            found.append(Written(row.output, row.as_of, file, row.num_inexact))
    return found


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


@dataclass(frozen=True)
class _Writing:
    """Has tasks write what they make, and return what they have written."""

    destinations: dict[Output, Destination]
    num_ranges: int

    SCHEMA = (
        "output STRING, as_of DATE, path STRING, size BIGINT, num_rows BIGINT, partition_values STRING, "
        "num_inexact BIGINT"
    )

    def __call__(self, made: Iterable[Made]) -> Iterator[pa.RecordBatch]:
        writers: dict[tuple[Output, date, str], TableWriter] = {}
        num_inexact: dict[tuple[Output, date, str], int] = {}
        for output, as_of, rows in made:
            if not rows.num_rows:
                continue
            target, values = self.destinations[output]
            user_slice = self._slice(rows) if "user_slice" in target.partition_by else ""
            key = (output, as_of, user_slice)
            writer = writers.setdefault(key, TableWriter(target))
            writer.write(pa.Table.from_batches([rows]), {**values, "as_of": as_of, "user_slice": user_slice})
            if output == "features":
                num_inexact[key] = num_inexact.get(key, 0) + rows.column("is_exact").false_count
        files = [(key, file) for key, writer in writers.items() for file in writer.close()]
        if files:
            yield pa.RecordBatch.from_pylist(
                [
                    {
                        "output": key[0],
                        "as_of": key[1],
                        "path": file.path,
                        "size": file.size,
                        "num_rows": file.num_rows,
                        "partition_values": json.dumps(file.values, default=str),
                        "num_inexact": num_inexact.get(key, 0),
                    }
                    for key, file in files
                ]
            )

    def _slice(self, rows: pa.RecordBatch) -> str:
        number = rows.column("user_bucket")[0].as_py() // (NUM_BUCKETS // self.num_ranges)
        return f"{number}-of-{self.num_ranges}"


def _rows(made: Iterable[Made]) -> Iterator[pa.RecordBatch]:
    return (rows for _, _, rows in made)


def _partial_sums(inputs: Inputs, job: PoolingJob, plan: Plan) -> DataFrame:
    """Make parts of the sums of the ranges that are taken in parts, and bring along the profiles of their users."""
    sums = cast(StructType, StructType.fromDDL(SUMS_DDL))
    parts = _tasks(replace(inputs, profiles=None), job.for_parts(), plan, full=True, writing=sums)
    rows = of_kind(parts.withColumn("day", F.unix_date("as_of")), "sums")
    if inputs.profiles is not None and "features" in job.outputs:
        profiles = of_kind(_profiles(inputs), "profiles")
        rows = rows.unionByName(profiles.where(slice_number(plan.num_ranges).isin(list(plan.parts))))
    return rows


def _tasks(inputs: Inputs, job: PoolingJob, plan: Plan, *, full: bool, writing: StructType | _Writing) -> DataFrame:
    """Run a job over the ranges that are taken whole, or over the parts of those that are not."""
    is_direct = inputs.tables.has_files
    rows = _files_by_range(inputs, plan) if is_direct else _rows_by_range(inputs, plan)
    task, num_tasks = F.col("range"), plan.num_ranges
    if plan.parts:
        rows = rows.where(F.col("range").isin(list(plan.parts)) == F.lit(full))
    if full:
        ends = np.cumsum(list(plan.parts.values())).tolist()
        starts = dict(zip(plan.parts, [0, *ends[:-1]], strict=True))
        part = F.when(F.col("kind") == "tiles", F.pmod("day", _looked_up(plan.parts))).otherwise(0)
        task, num_tasks = _looked_up(starts) + part, ends[-1]
    if not is_direct:
        return _shuffled(rows.drop("range"), job, task, num_tasks, writing)
    finish = _finish(writing)

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        listed = [row for batch in batches for row in batch.to_pylist()]
        files = [BucketedFile(**{name: row[name] for name in BucketedFile._fields}) for row in listed]
        if files:
            within = BucketRange(listed[0]["start"], listed[0]["stop"])
            yield from finish(job.run(steps(files, within, context=bool(job.spec.context))))

    return rows.repartitionById(num_tasks, task.cast("int")).mapInArrow(work, _schema(writing))


def _shuffled(
    rows: DataFrame, job: PoolingJob, task: Column, num_tasks: int, writing: StructType | _Writing
) -> DataFrame:
    finish = _finish(writing)

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return finish(job.run(steps_of_rows(batches, context=bool(job.spec.context))))

    in_order = rows.repartitionById(num_tasks, task.cast("int")).sortWithinPartitions("user_bucket")
    return in_order.mapInArrow(work, _schema(writing))


def _finish(writing: StructType | _Writing) -> Callable[[Iterable[Made]], Iterator[pa.RecordBatch]]:
    return writing if isinstance(writing, _Writing) else _rows


def _schema(writing: StructType | _Writing) -> StructType | str:
    return writing.SCHEMA if isinstance(writing, _Writing) else writing


def _files_by_range(inputs: Inputs, plan: Plan) -> DataFrame:
    """List the files that may hold users of each range. Driver memory: one entry a file."""
    tables, spark = inputs.tables, inputs.tables.spark
    files = [(*file, *range_of_slice(user_slice)) for file, user_slice in _files(inputs)]
    schema = "kind STRING, path STRING, day INT, before BOOLEAN, after BOOLEAN, first INT, end INT"
    width = NUM_BUCKETS // plan.num_ranges
    ranges = spark.range(plan.num_ranges).select(
        F.col("id").cast("int").alias("range"),
        (F.col("id") * width).cast("int").alias("start"),
        ((F.col("id") + 1) * width).cast("int").alias("stop"),
    )
    listed = F.broadcast(tables.spark.createDataFrame(files, schema))
    meets = (F.col("first") < F.col("stop")) & (F.col("start") < F.col("end"))
    return ranges.join(listed, on=meets, how="inner").drop("first", "end")


def _files(inputs: Inputs) -> Iterator[tuple[BucketedFile, str]]:
    """List the files of all inputs, and the slice of users that each is of."""
    tables, sums = inputs.tables, inputs.sums
    wanted = {pair: tiles for tiles in inputs.tiles for pair in tiles.revision_by_day.items()}
    if wanted:
        uri = tables.uri(USER_ITEM_DAYS)
        for path, _, _, of in tables.files(USER_ITEM_DAYS, lambda of: (of["event_date"], of["revision"]) in wanted):
            tiles = wanted[of["event_date"], of["revision"]]
            day = day_number(of["event_date"])
            yield BucketedFile("tiles", f"{uri}/{path}", day, tiles.before, tiles.after), of["user_slice"]
    if sums is not None:
        uri, key = tables.uri(USER_WINDOW_SUMS), (sums.lineage_id, sums.generation)
        for path, _, _, of in tables.files(USER_WINDOW_SUMS, lambda of: (of["lineage_id"], of["generation"]) == key):
            yield BucketedFile("sums", f"{uri}/{path}", day_number(sums.as_of), True, False), of["user_slice"]
    if inputs.profiles is not None:
        uri = tables.uri(USER_PROFILES)
        for path, _, _, of in tables.files(USER_PROFILES, lambda _: True):
            yield BucketedFile("profiles", f"{uri}/{path}", 0, True, True), of["user_slice"]


def _rows_by_range(inputs: Inputs, plan: Plan) -> DataFrame:
    """Bring all rows to one schema."""
    tables = inputs.tables
    frames = []
    for tiles in inputs.tiles:
        marks = {"day": F.unix_date("event_date"), "before": F.lit(tiles.before), "after": F.lit(tiles.after)}
        frames.append(of_kind(rows_of_revisions(tables, tiles.revision_by_day).withColumns(marks), "tiles"))
    if inputs.sums is not None:
        sums = tables.read(USER_WINDOW_SUMS).where(
            f"lineage_id = '{inputs.sums.lineage_id}' AND generation = {inputs.sums.generation}"
        )
        frames.append(of_kind(sums.withColumn("day", F.lit(day_number(inputs.sums.as_of))), "sums"))
    if inputs.profiles is not None:
        frames.append(of_kind(_profiles(inputs), "profiles"))
    rows = frames[0]
    for more in frames[1:]:
        rows = rows.unionByName(more)
    return rows.withColumn("range", slice_number(plan.num_ranges))


def _profiles(inputs: Inputs) -> DataFrame:
    return inputs.tables.read(USER_PROFILES).where(f"content_hash = '{inputs.profiles}'")


def _looked_up(numbers: dict[int, int]) -> Column:
    """Look up the number of a row's range."""
    return F.create_map(*(F.lit(value) for pair in numbers.items() for value in pair))[F.col("range")]
