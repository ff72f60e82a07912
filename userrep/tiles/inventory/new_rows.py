"""The days of a log's new files, by their footers or by a read."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep.errors import NeedsSparkError
from userrep.ids import short_hash
from userrep.sources.columns import type_of
from userrep.sources.open_log import ListedFile, OpenLog, one_slash
from userrep.sources.partitions import folder_day, in_partitions
from userrep.sources.read import CORRUPT, with_validity
from userrep.sources.text_blocks import is_splittable
from userrep.spark.tasks import map_in_tasks
from userrep.store.tables import Tables
from userrep.tiles.column_paths import TEXT_FORMATS, LogColumns, columns_of, is_utc
from userrep.tiles.inventory.csv_headers import check_headers
from userrep.tiles.inventory.footers import day_of_file
from userrep.tiles.inventory.log_days import NO_DAY, Counts, DaysOfFile, LogDay, record, recorded, summed
from userrep.tiles.text_file import days_of_lines

_READERS = 8  # footers that a task reads at the same time
_PART_BYTES = 1 << 26  # of a large text file, read by one task
_COUNTED = pa.schema([("path", pa.string()), ("day", pa.date32()), ("num_rows", pa.int64()), ("hash", pa.int64())])


def days_by_files(tables: Tables, log: OpenLog) -> tuple[list[LogDay], int]:
    """Read new files; return the log's days, as ``summed`` does, and the number of new files.

    A Parquet file is not read if its footer proves that all its rows have the same day. Its name, size and time then
    stand for its rows. Of text files, tasks read only the times. Malformed rows of both are counted when the day's
    tiles are built. Cost: the footers of new files, and one read of the other new files, or of the whole log if it is a
    Delta log without partitions. Driver memory: one entry per file, part of a large text file and day. Raises
    UsageError if the header of a CSV file differs.
    """
    known = recorded(tables, log.mapping)
    new = [file for file in log.files if file not in known]
    check_headers(log, new)
    for read in (_by_lines if log.settings.format in TEXT_FORMATS else _by_footers, _by_spark):
        if unread := [file for file in log.files if file not in known]:
            days_by_path = read(log, unread)
            read_now = {file: days_by_path[file.path] for file in unread if file.path in days_by_path}
            record(tables, log.mapping, read_now)
            known |= read_now
    return summed(known[file] for file in log.files), len(new)


def _by_footers(log: OpenLog, new: Sequence[ListedFile]) -> dict[str, DaysOfFile]:
    """Return the days of the files whose footers prove them, by path. Tasks read the footers."""
    settings, event_at = log.settings, log.settings.columns.event_at
    is_whole = settings.format in ("parquet", "delta") and settings.partition is None and log.is_plain
    if not is_whole or not is_utc(type_of(log.source, event_at), settings.time_zone):
        return {}

    def read_footers(files: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(_READERS) as readers:
            return [row for row in readers.map(lambda file: _footer_row(file["path"], event_at), files) if row]

    paths = [(file.path,) for file in new]
    rows = map_in_tasks(log.source.sparkSession, paths, "path STRING", read_footers, _COUNTED)
    checksums = {file.path: _checksum(file) for file in new}
    return {row.path: {row.day: Counts(row.num_rows, None, checksums[row.path])} for row in rows}


def _footer_row(path: str, event_at: str) -> dict[str, Any] | None:
    try:
        day_and_rows = day_of_file(path, event_at)
    except (OSError, pa.ArrowInvalid):  # Spark may have access, and reports errors better
        return None
    return day_and_rows and {"path": path, "day": day_and_rows[0], "num_rows": day_and_rows[1]}


def _checksum(file: ListedFile) -> int:
    """Return a number that stands for the rows of a file."""
    return int(short_hash(file, 16), 16)


def _by_lines(log: OpenLog, new: Sequence[ListedFile]) -> dict[str, DaysOfFile]:
    """Return the days of the JSON and CSV files that do not need Spark, by path. Tasks read the times.

    Malformed rows with a readable time are not counted. The checksum of a day in a file depends on the order of its
    lines.
    """
    columns = columns_of(log.source.schema, log.settings)
    if columns is None:
        return {}
    parts = [(file.path, *part) for file in new for part in _parts(file)]

    def read_times(parts: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for part in parts:
            yield from _rows_of_part(part, columns)

    columns_of_parts = "path STRING, start BIGINT, stop BIGINT"
    rows = map_in_tasks(log.source.sparkSession, parts, columns_of_parts, read_times, _COUNTED)
    by_spark = {row.path for row in rows if row.num_rows is None}
    days: dict[str, dict[Any, Counts]] = {file.path: {} for file in new if file.path not in by_spark}
    for row in rows:
        if row.path in days:
            day = row.day or NO_DAY
            before = days[row.path].get(day, Counts(0, None, 0))
            days[row.path][day] = Counts(before.num_rows + row.num_rows, None, before.checksum + row.hash)
    return dict(days)


def _parts(file: ListedFile) -> list[tuple[int, int | None]]:
    """Split a file into ranges of bytes, each with its end, or None for the end of the file."""
    starts = range(0, max(1, file.size), _PART_BYTES) if is_splittable(file.path) else [0]
    return list(zip(starts, [*starts[1:], None], strict=True))


def _rows_of_part(part: dict[str, Any], columns: LogColumns) -> Iterator[dict[str, Any]]:
    """Yield the days of a part of a file; one entry without counts if the file needs Spark."""
    try:
        days = days_of_lines(part["path"], columns, start=part["start"], stop=part["stop"])
    except (NeedsSparkError, OSError, pa.ArrowInvalid):  # Spark may have access, and reports errors better
        yield {"path": part["path"]}
        return
    for day, (num_rows, line_hash) in days.items():
        yield {"path": part["path"], "day": day, "num_rows": num_rows, "hash": line_hash}


def _by_spark(log: OpenLog, new: Sequence[ListedFile]) -> dict[str, DaysOfFile]:
    """Return the days of files by a read of their rows, by path."""
    source = _in_partitions_of(new, log) if log.is_table else log.rows_of([file.path for file in new])
    with_path = source.withColumn("__path", F.col("_metadata.file_path"))
    rows = with_validity(with_path, log.settings).select(
        F.col("raw.__path").alias("path"),
        "event_date",
        F.col("reason").isNotNull().cast("bigint").alias("rejected"),
        row_hash([name for name in log.source.columns if name != CORRUPT]).alias("hash"),
    )
    counted = rows.groupBy("path", "event_date").agg(
        F.count("*").alias("num_rows"), F.sum("rejected").alias("num_rejected"), exact_sum("hash").alias("checksum")
    )
    days: dict[str, dict[Any, Counts]] = {file.path: {} for file in new}
    for row in counted.collect():
        path = unquote(one_slash(row.path))  # scans escape paths, listings do not
        if path in days:
            days[path][row.event_date or NO_DAY] = Counts(row.num_rows, row.num_rejected, int(row.checksum))
    return dict(days)


def _in_partitions_of(new: Sequence[ListedFile], log: OpenLog) -> DataFrame:
    """Restrict a table to the partitions of its new files, if the folders show them."""
    partition = log.settings.partition
    days = {folder_day(file.path, partition) if partition else None for file in new}
    known = [day for day in days if day is not None]
    if partition is None or len(known) < len(days):
        return log.source
    return log.source.where(in_partitions(log.source, partition, known, late_days=0))


def row_hash(columns: list[str]) -> Column:
    """Hash a row, with the names of its columns and which of them are null, because xxhash64 skips nulls."""
    values = [F.col("raw").getField(name) for name in columns]
    nulls = F.concat(*(F.when(value.isNull(), "1").otherwise("0") for value in values))
    return F.xxhash64(F.lit("\n".join(columns)), *values, nulls, "corrupt")


def exact_sum(number: str) -> Column:
    """Sum 64-bit integers without overflow, as two halves, because sums of decimals are slow."""
    high, low = F.sum(F.shiftright(number, 32)), F.sum(F.col(number).bitwiseAND(2**32 - 1))
    return (high.cast("decimal(28,0)") * 2**32 + low).cast("decimal(38,0)")
