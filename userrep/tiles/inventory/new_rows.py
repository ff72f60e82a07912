"""What is new in a log: files, by their footers or by a read, and changes of a Delta log by its change data feed.

The change data feed is needed if deletion vectors hide which rows of a file are deleted: inserted rows are added,
deleted rows subtracted. Each range of versions that was read is recorded in ``source_files`` like a file, with path
``ID@FIRST`` and the last version as size. The range that starts at version 0 is a read of the whole table.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal

import pyarrow as pa
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from userrep.config import EventSource
from userrep.sources.columns import column_of
from userrep.sources.open_log import KEY, DeltaLog, OpenLog, meaning_hash, one_slash
from userrep.sources.partitions import folder_day, in_partitions
from userrep.sources.read import CORRUPT, with_validity
from userrep.spark.session import shuffle_partitions
from userrep.store.schemas import SOURCE_FILES
from userrep.store.tables import Tables
from userrep.tiles.column_paths import is_utc
from userrep.tiles.inventory.day_files import exact_sum, row_hash, summed
from userrep.tiles.inventory.footers import day_of_file

_READERS = 8  # footers that a task reads at the same time


def days_by_files(tables: Tables, log: OpenLog) -> tuple[DataFrame, int]:
    """Read new files; return the log's days, as ``summed`` does, and the number of new files.

    A Parquet file is not read if its footer proves that all its rows have the same day. Its name, size and time then
    stand for its rows, and malformed rows are found when the day's tiles are built. Cost: the footers of new files, and
    one read of the other new files, or of the whole log if it is a Delta log without partitions. Driver memory: one
    entry per new file.
    """
    listed, delta = log.files, log.delta
    new = listed.join(tables.read(SOURCE_FILES).select(*KEY).distinct(), on=list(KEY), how="left_anti").collect()
    days = _days_by_footers(tables, log.settings, log.source, new) if delta is None or delta.is_plain else {}
    if days:
        tables.add(SOURCE_FILES, [_source_file(row, *days[row.path]) for row in new if row.path in days])
    unread = [row for row in new if row.path not in days]
    if unread:
        frame = tables.spark.createDataFrame(unread, listed.schema)
        tables.append(_read_days(log, frame), SOURCE_FILES)
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
    paths = tables.spark.createDataFrame(numbered, "task INT, path STRING").repartitionById(num_tasks, "task")
    rows = paths.mapInArrow(read_footers, "path STRING, day DATE, num_rows BIGINT").collect()
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


def _read_days(log: OpenLog, new: DataFrame) -> DataFrame:
    """Read new files; return one row per file and day with counts and the sum of row hashes."""
    paths = [row.path for row in new.select("path").collect()]
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


_CHANGE = ("_change_type", "_commit_version", "_commit_timestamp")


def days_by_changes(tables: Tables, log: EventSource, delta: DeltaLog) -> tuple[DataFrame, int]:
    """Read the changes since the last recorded version; return the days, as ``summed`` does, and the number of reads.

    The number is 0 or 1. If changes can no longer be read, because the feed was off or its files were removed, the
    whole table is read instead. Cost otherwise: a read of the changed rows.
    """
    ranges = _known(tables, log, delta).select("path", "size").distinct().collect()
    chain = _chain([(int(row.path.rpartition("@")[2]), row.size) for row in ranges])
    first = chain[-1][1] + 1 if chain else 0
    num_read = int(first <= delta.version)
    if num_read:
        try:
            tables.append(_counted(tables, log, delta, first), SOURCE_FILES)
        except (
            PySparkException,
            Py4JJavaError,
        ):  # of many kinds; if the table cannot be read at all, the next line fails
            first, chain = 0, []
            tables.append(_counted(tables, log, delta, first), SOURCE_FILES)
        chain.append((first, delta.version))
    paths = [(f"{delta.table_id}@{start}", end) for start, end in chain]
    chosen = tables.spark.createDataFrame(paths, "path STRING, size BIGINT")
    known_days = _known(tables, log, delta).dropDuplicates(["path", "size", "event_date"])
    return summed(known_days.join(F.broadcast(chosen), on=["path", "size"], how="left_semi")), num_read


def _known(tables: Tables, log: EventSource, delta: DeltaLog) -> DataFrame:
    of_table = F.col("path").startswith(f"{delta.table_id}@") & (F.col("mapping") == meaning_hash(log))
    return tables.read(SOURCE_FILES).where(of_table)


def _chain(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Choose consecutive ranges from version 0; of ranges with the same start, by concurrent runs, the longest."""
    chain: list[tuple[int, int]] = []
    start = 0
    while ends := [end for first, end in ranges if first == start]:
        chain.append((start, max(ends)))
        start = max(ends) + 1
    return chain


def _counted(tables: Tables, log: EventSource, delta: DeltaLog, first: int) -> DataFrame:
    """Count by day the rows inserted less those deleted, from version ``first`` to the version of ``delta``."""
    reader = tables.spark.read.format("delta")
    if first == 0:
        reader = reader.option("versionAsOf", delta.version)
    else:
        reader = reader.option("readChangeFeed", True)
        reader = reader.option("startingVersion", first).option("endingVersion", delta.version)
    rows = reader.table(log.path) if log.format == "table" else reader.load(log.path)
    columns = [name for name in rows.columns if name not in _CHANGE]
    is_insert = F.col("_change_type").isin("insert", "update_postimage") if first else F.lit(True)
    signed = rows.select(*(F.col(f"`{name}`") for name in columns), F.when(is_insert, 1).otherwise(-1).alias("__sign"))
    counts = with_validity(signed, log).select(
        "event_date",
        F.col("raw.__sign").cast("bigint").alias("num_rows"),
        F.when(F.col("reason").isNotNull(), F.col("raw.__sign")).otherwise(0).cast("bigint").alias("num_rejected"),
        (row_hash(columns) * F.col("raw.__sign")).cast("decimal(38,0)").alias("checksum"),
    )
    # A row without a day is always written, because it records that the range was read.
    marker = tables.spark.createDataFrame([(None, 0, 0)], "event_date DATE, num_rows BIGINT, num_rejected BIGINT")
    with_marker = counts.unionByName(marker, allowMissingColumns=True)
    by_day = with_marker.groupBy("event_date").agg(*(F.sum(name).alias(name) for name in with_marker.columns[1:]))
    return by_day.select(
        F.lit(f"{delta.table_id}@{first}").alias("path"),
        F.lit(delta.version).cast("bigint").alias("size"),
        F.timestamp_seconds(F.lit(0)).alias("modified_at"),
        F.lit(meaning_hash(log)).alias("mapping"),
        *by_day.columns,
    )
