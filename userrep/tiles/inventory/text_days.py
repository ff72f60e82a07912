"""The days of new JSON and CSV files, which tasks read without Spark."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyspark.sql import Row
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from userrep.sources.open_log import OpenLog
from userrep.sources.text_blocks import is_splittable
from userrep.spark.releases import repartition_by_number
from userrep.spark.session import shuffle_partitions
from userrep.store.tables import Tables
from userrep.tiles.column_paths import LogColumns, columns_of
from userrep.tiles.text_file import days_of_lines
from userrep.utc import numbered_day

_PART_BYTES = 1 << 26  # of a large file, read by one task
_FOUND = pa.schema([("path", pa.string()), ("day", pa.int64()), ("num_rows", pa.int64()), ("hash", pa.int64())])


def rows_of_text(tables: Tables, log: OpenLog, new: Sequence[Row]) -> list[dict[str, Any]]:
    """Read the times in text files; return the rows of ``source_files``, without those of files that need Spark.

    Malformed rows with a readable time are not counted. The checksum of a day in a file depends on the order of its
    lines. Cost: one read of the files. Driver memory: one entry per file, part of 64 MB, and day.
    """
    columns = columns_of(log.source.schema, log.settings)
    if columns is None or not new:
        return []
    parts = [(file.path, *part) for file in new for part in _parts(file)]

    def read_days(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for part in (part for batch in batches for part in batch.to_pylist()):
            yield pa.RecordBatch.from_pylist(list(_found(part, columns)), _FOUND)

    num_tasks = min(len(parts), shuffle_partitions(tables.spark))
    numbered = [(number % num_tasks, *part) for number, part in enumerate(parts)]
    listed = tables.spark.createDataFrame(numbered, "task INT, path STRING, start BIGINT, stop BIGINT")
    tasks = repartition_by_number(listed, num_tasks, F.col("task"))
    return _summed(new, tasks.mapInArrow(read_days, from_arrow_schema(_FOUND)).collect())


def _parts(file: Row) -> list[tuple[int, int | None]]:
    """Split a file into ranges of bytes, each with its end, or None for the end of the file."""
    starts = range(0, max(1, file.size), _PART_BYTES) if is_splittable(file.path) else [0]
    return list(zip(starts, [*starts[1:], None], strict=True))


def _found(part: dict[str, Any], columns: LogColumns) -> Iterator[dict[str, Any]]:
    """Yield the days of a part of a file; one entry without counts if the file needs Spark."""
    try:
        days = days_of_lines(part["path"], columns, start=part["start"], stop=part["stop"])
    except (OSError, pa.ArrowInvalid):  # Spark may have access, and reports errors better
        days = None
    if days is None:
        yield {"path": part["path"]}
    for day, (num_rows, line_hash) in (days or {}).items():
        yield {"path": part["path"], "day": day, "num_rows": num_rows, "hash": line_hash}


def _summed(files: Sequence[Row], found: Sequence[Row]) -> list[dict[str, Any]]:
    """Add up the parts of each file and day. A file without rows has one entry without a day."""
    by_spark = {row.path for row in found if row.num_rows is None}
    counts, checksums = Counter[tuple[str, int | None]](), Counter[tuple[str, int | None]]()
    for row in found:
        if row.path not in by_spark:
            counts[row.path, row.day] += row.num_rows
            checksums[row.path, row.day] += row.hash
    with_rows = {path for path, _ in counts}
    counts.update({(file.path, None): 0 for file in files if file.path not in with_rows | by_spark})
    by_path = {file.path: file for file in files}
    return [
        by_path[path].asDict()
        | {
            "event_date": None if day is None else numbered_day(day),
            "num_rows": num_rows,
            "num_rejected": None,
            "checksum": Decimal(checksums[path, day]),
        }
        for (path, day), num_rows in counts.items()
    ]
