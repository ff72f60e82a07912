"""The distribution of a pooling job over a cluster: one task per range of user buckets, skewed ranges in parts.

Skewed ranges are split into parts by day. If the item vectors are too large for a worker, all ranges are split into
parts by item (``Chunk.only_items``). Partial sums are shuffled by user and added up.

With ``FileTables``, each task reads a list of files, only that list is distributed, and tasks write their outputs
directly into files of the tables. Otherwise rows reach their task by one shuffle and Spark writes them. With items in
parts, rows are shuffled as well, because each part would otherwise read all tiles. Both ways give the same bits.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import reduce
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from userrep.features.sums.batches import SUMS_DDL
from userrep.features.sums.bucket_files import BucketedFile, chunks_of_files
from userrep.features.sums.inputs import PoolingInputs, listed_files, rows_of_inputs
from userrep.features.sums.plan import PoolingPlan, PoolingTask
from userrep.features.sums.pooling import Output, OutputRows, PoolingJob
from userrep.features.sums.shuffled import by_item_part, chunks_of_rows, in_common_schema
from userrep.spark.releases import repartition_by_number
from userrep.store.buckets import NUM_BUCKETS, BucketRange, range_of, slice_number
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import TableWriter, Target


class Written(NamedTuple):
    """A file written by a task. ``num_inexact``: the rows of features whose sums are not exact."""

    output: Output
    file: TableFile
    num_inexact: int

    @classmethod
    def of(cls, row: Row) -> "Written":
        """Read a row returned by ``Writing``."""
        return cls(row.output, TableFile.from_json(row.file), row.num_inexact)


@dataclass(frozen=True)
class Writing:
    """Writes the outputs of a task to files and returns a row for each file.

    ``values``: the values of partition columns that are the same for all rows.
    """

    targets: Mapping[Output, Target]
    values: Mapping[str, Any]
    num_ranges: int

    SCHEMA = "output STRING, file STRING, num_inexact BIGINT"

    def __call__(self, outputs: Iterable[OutputRows]) -> Iterator[pa.RecordBatch]:
        writers = {output: TableWriter(target) for output, target in self.targets.items()}
        num_inexact: dict[date | None, int] = defaultdict(int)
        for output, as_of, rows in outputs:
            if not rows.num_rows:
                continue
            values = {**self.values, "as_of": as_of}
            if "user_slice" in self.targets[output].partition_by:
                number = rows.column("user_bucket")[0].as_py() // (NUM_BUCKETS // self.num_ranges)
                values["user_slice"] = f"{number}-of-{self.num_ranges}"
            writers[output].write(pa.Table.from_batches([rows]), values)
            if output == "features":
                num_inexact[as_of] += rows.column("is_exact").false_count
        written = [
            {"output": output, "file": file.to_json(), "num_inexact": num_inexact[file.values.get("as_of")]}
            for output, writer in writers.items()
            for file in writer.close()
        ]
        if written:
            yield pa.RecordBatch.from_pylist(written)


@dataclass(frozen=True)
class _Rows:
    """Passes the rows of outputs on to Spark."""

    SCHEMA: StructType | str

    def __call__(self, outputs: Iterable[OutputRows]) -> Iterator[pa.RecordBatch]:
        return (output.rows for output in outputs)


Sink = _Rows | Writing


@dataclass(frozen=True)
class Pooling:
    """A pooling job over all users, or a sample, with its inputs and its distribution over tasks.

    Cost: each input row of these users is read once. Only partial sums of skewed ranges are shuffled. With items in
    parts or in a catalog, rows are shuffled as well. With items in parts, so are partial sums of all these users: per
    user one row for each part with one of the user's items.
    """

    inputs: PoolingInputs
    job: PoolingJob
    plan: PoolingPlan

    def write(self, targets: Mapping[Output, Target], **values: Any) -> list[Written]:
        """Let tasks write the outputs to files sorted by user bucket, for the caller to commit.

        ``values``: the values of partition columns that are the same for all rows. Driver memory: one entry per file.
        """
        frames = self._frames(Writing(targets, values, self.plan.num_ranges))
        return [Written.of(row) for frame in frames for row in frame.collect()]

    def rows(self, schema: StructType) -> DataFrame:
        """Return the rows of the job's only output, sorted by user bucket within a range, for Spark to write."""
        return reduce(DataFrame.unionByName, self._frames(_Rows(schema)))

    def _frames(self, sink: Sink) -> list[DataFrame]:
        """Return the outputs of the undivided ranges and those of the divided ranges; one or both."""
        plan, frames = self.plan, []
        if plan.undivided:
            frames.append(self._tasks(plan.undivided, sink))
        if plan.divided:
            job, number = self.job.for_adding_up(), slice_number(plan.num_ranges)
            frames.append(_shuffled_tasks(self._partial_sums(), job, number, plan.num_wanted, sink))
        return frames

    def _partial_sums(self) -> DataFrame:
        """Return partial sums of the divided ranges, together with the profiles of their users."""
        inputs, job, plan = self.inputs, self.job, self.plan
        with_profiles = inputs.profiles_version is not None and job.outputs != ("sums",)
        sums_picks = with_profiles and job.item_parts > 1 and job.spec.onboarding
        part_inputs = inputs if sums_picks else inputs._replace(profiles_version=None)
        parts = Pooling(part_inputs, job.for_parts(), plan)._tasks(plan.divided, _Rows(SUMS_DDL))
        rows = in_common_schema(parts.withColumn("day", F.unix_date("as_of")), "sums")
        if with_profiles:
            profiles = inputs.profile_rows().where(slice_number(plan.num_ranges).isin(list(plan.parts)))
            rows = rows.unionByName(in_common_schema(profiles, "profiles"))
        return rows

    def _tasks(self, tasks: Sequence[PoolingTask], sink: Sink) -> DataFrame:
        """Run the job over ranges or parts of ranges."""
        inputs, item_parts, plan = self.inputs, self.job.item_parts, self.plan
        if isinstance(inputs.tables, FileTables) and item_parts == 1:
            return self._file_tasks(inputs.tables, tasks, sink)

        def by_range(values: Mapping[int, int]) -> Column:
            """Return the value of each row's range, -1 without one."""
            listed = ", ".join(str(values.get(k, -1)) for k in range(plan.num_wanted))
            return F.element_at(F.expr(f"array({listed})"), slice_number(plan.num_ranges) + 1)

        first = by_range({task.range: k for k, task in enumerate(tasks) if task.part == 0})
        num_parts = by_range({task.range: task.num_parts for task in tasks})
        rows = rows_of_inputs(inputs)
        if plan.num_wanted < plan.num_ranges:
            rows = rows.where(F.col("user_bucket") < range_of(plan.num_wanted, plan.num_ranges).start)
        rows = rows.where(first >= 0)
        index = first + F.when(F.col("kind") == "tiles", F.pmod("day", num_parts)).otherwise(0)
        if item_parts > 1:  # adjacent tasks share vectors, so a worker rarely reads others
            rows, index = by_item_part(rows, item_parts), index + F.col("item_part") * len(tasks)
        return _shuffled_tasks(rows, self.job, index, len(tasks) * item_parts, sink)

    def _file_tasks(self, tables: FileTables, tasks: Sequence[PoolingTask], sink: Sink) -> DataFrame:
        """Run the job in tasks that read their files themselves.

        All tasks receive the list of files: one entry per file of all inputs.
        """
        job, listed = self.job, listed_files(tables, self.inputs)
        ranges = [(task, range_of(task.range, self.plan.num_ranges)) for task in tasks]

        def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for task, within in (ranges[number] for batch in batches for number in batch.column("id").to_pylist()):
                files = files_of_task(task, within, listed)
                yield from sink(job.run(chunks_of_files(files, within, context=bool(job.spec.context))))

        return tables.spark.range(0, len(tasks), 1, len(tasks)).mapInArrow(work, sink.SCHEMA)


def files_of_task(task: PoolingTask, within: BucketRange, listed: Sequence[BucketedFile]) -> list[BucketedFile]:
    """Return the files that a task reads. ``within``: the buckets of its range."""
    overlaps = [file for file in listed if file.buckets.start < within.stop and file.buckets.stop > within.start]
    return [file for file in overlaps if (file.day % task.num_parts if file.kind == "tiles" else 0) == task.part]


def _shuffled_tasks(rows: DataFrame, job: PoolingJob, task: Column, num_tasks: int, sink: Sink) -> DataFrame:
    """Run a job in tasks that receive their rows by a shuffle. All rows of a task share one ``item_part``, if any."""

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        nonempty = (batch for batch in batches if batch.num_rows)
        first = next(nonempty, None)
        if first is not None:
            item_part = first.column("item_part")[0].as_py() if "item_part" in first.schema.names else None
            task_job = replace(job, item_part=item_part)
            yield from sink(task_job.run(chunks_of_rows(chain([first], nonempty))))

    in_order = repartition_by_number(rows, num_tasks, task.cast("int")).sortWithinPartitions("user_bucket")
    return in_order.mapInArrow(work, sink.SCHEMA)
