"""The days of a log's new files, by their footers or by a read."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from userrep.config import EventSource
from userrep.sources.columns import column_of
from userrep.sources.open_log import KEY, OpenLog, one_slash
from userrep.sources.partitions import folder_day, in_partitions
from userrep.sources.read import CORRUPT, with_validity
from userrep.spark.releases import repartition_by_number
from userrep.spark.session import shuffle_partitions
from userrep.store.schemas import SOURCE_FILES
from userrep.store.tables import Tables
from userrep.tiles.column_paths import TEXT_FORMATS, is_utc
from userrep.tiles.inventory.day_files import exact_sum, row_hash, summed
from userrep.tiles.inventory.footers import day_of_file
from userrep.tiles.inventory.text_days import rows_of_text

_READERS = 8  # footers that a task reads at the same time


def days_by_files(tables: Tables, log: OpenLog) -> tuple[DataFrame, int]:
    """Read new files; return the log's days, as ``summed`` does, and the number of new files.

    A Parquet file is not read if its footer proves that all its rows have the same day. Its name, size and time then
    stand for its rows, and malformed rows are found when the day's tiles are built. So are those of text files, of
    which tasks read only the times here. Cost: the footers of new files, and one read of the other new files, or of the
    whole log if it is a Delta log without partitions. Driver memory: one entry per new file, part of a large text file
    and day.
    """
    listed, delta = log.files, log.delta
    new = listed.join(tables.read(SOURCE_FILES).select(*KEY).distinct(), on=list(KEY), how="left_anti").collect()
    days = _days_by_footers(tables, log.settings, log.source, new) if delta is None or delta.is_plain else {}
    rows = [_source_file(row, *days[row.path]) for row in new if row.path in days]
    if log.settings.format in TEXT_FORMATS and log.settings.partition is None:
        rows = rows_of_text(tables, log, new)
    if rows:
        tables.add(SOURCE_FILES, rows)
    known_paths = {row["path"] for row in rows}
    unread = [row for row in new if row.path not in known_paths]
    if unread:
        frame = tables.spark.createDataFrame(unread, listed.schema)
        tables.append(_read_days(log, frame, [row.path for row in unread]), SOURCE_FILES)
    known = listed.join(tables.read(SOURCE_FILES), on=list(KEY), how="inner")
    return summed(known.dropDuplicates([*KEY, "event_date"])), len(new)  # concurrent runs may both have read a file


def _days_by_footers(
    tables: Tables, log: EventSource, source: DataFrame, new: Sequence[Row]
) -> dict[str, tuple[date, int]]:
    """Return the day and the number of rows of the files whose footers prove them, by path. Tasks read the footers."""
    path, kind = column_of(source.schema, log.columns.event_at)
    is_plain = log.format in ("parquet", "delta") and log.partition is None and is_utc(kind, log.time_zone)
    if not is_plain or not new:
        return {}
    event_at = tuple(path)

    def read_footers(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        paths = [path for batch in batches for path in batch.column("path").to_pylist()]
        with ThreadPoolExecutor(_READERS) as readers:
            days = list(readers.map(lambda path: _day_or_none(path, event_at), paths))
        rows = [(path, *day) for path, day in zip(paths, days, strict=True) if day is not None]
        if rows:
            arrays = [pa.array(values) for values in zip(*rows, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, ["path", "day", "num_rows"])

    num_tasks = min(len(new), shuffle_partitions(tables.spark))
    numbered = [(number % num_tasks, file.path) for number, file in enumerate(new)]
    paths = tables.spark.createDataFrame(numbered, "task INT, path STRING")
    in_tasks = repartition_by_number(paths, num_tasks, F.col("task"))
    rows = in_tasks.mapInArrow(read_footers, "path STRING, day DATE, num_rows BIGINT").collect()
    return {row.path: (row.day, row.num_rows) for row in rows}


def _day_or_none(path: str, event_at: tuple[str, ...]) -> tuple[date, int] | None:
    try:
        return day_of_file(path, event_at)
    except (OSError, pa.ArrowInvalid):  # Spark may have access, and reports errors better
        return None


def _source_file(file: Row, day: date, num_rows: int) -> dict[str, object]:
    name = json.dumps([file.path, file.size, str(file.modified_at)]).encode()
    checksum = Decimal(int.from_bytes(hashlib.sha256(name).digest()[:8]))
    return file.asDict() | {"event_date": day, "num_rows": num_rows, "num_rejected": None, "checksum": checksum}


def _read_days(log: OpenLog, new: DataFrame, paths: Sequence[str]) -> DataFrame:
    """Read new files, with these paths; return one row per file and day with counts and the sum of row hashes."""
    source = _in_partitions_of(new, log.settings, log.source) if log.is_table else log.rows_of(paths)
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
    by_day = counted.withColumn("path", _decoded("path"))  # after the aggregation, not for every row
    by_day = by_day.where(F.col("path").isin(paths)) if log.is_table else by_day
    filled = new.join(by_day, on="path", how="left")
    return filled.withColumns(
        {"num_rows": F.coalesce("num_rows", F.lit(0)), "num_rejected": F.coalesce("num_rejected", F.lit(0))}
    )


def _in_partitions_of(new: DataFrame, log: EventSource, source: DataFrame) -> DataFrame:
    """Restrict a table to the partitions of its new files, if the folders show them."""
    if log.partition is None:
        return source
    days = [row.day for row in new.select(folder_day(F.col("path"), log.partition).alias("day")).distinct().collect()]
    return source if None in days else source.where(in_partitions(source, log.partition, days, late_days=0))


def _decoded(path: str) -> Column:
    """Convert the escaped path of a scan to the form that listings use."""
    return F.url_decode(F.regexp_replace(one_slash(path), r"\+", "%2B"))
