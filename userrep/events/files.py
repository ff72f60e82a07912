"""The files of a log: which there are, which days they carry, and what of each day's content."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep.config import EventSource
from userrep.errors import UsageError, UserrepError
from userrep.events.partitions import folder_day
from userrep.ids import short_hash
from userrep.schemas import SOURCE_FILES
from userrep.storage import absolute
from userrep.tables import Tables

KEY = ("path", "size", "modified_at", "mapping")
BYTES_PER_ROW = 32  # of a log in columns, for a guess at how many rows there are that nobody has counted


@dataclass(frozen=True)
class DeltaLog:
    """What Delta says of a log.

    ``hides_deletes``: rows may be deleted by vectors beside the files. ``is_plain``: files hold the table's rows and
    columns as they are.
    """

    table_id: str
    hides_deletes: bool
    is_plain: bool
    has_changes: bool
    version: int
    bytes_per_file: int

    @classmethod
    def of(cls, tables: Tables, log: EventSource) -> "DeltaLog | None":
        """Look at the log's table; None for plain files. Cost: one or two looks at Delta's own log."""
        if log.format not in ("delta", "table"):
            return None
        name = log.path if log.format == "table" else f"delta.`{absolute(log.path)}`"
        detail = tables.spark.sql(f"DESCRIBE DETAIL {name}").first()
        facts = detail.asDict() if detail else {}
        features = facts.get("tableFeatures") or []
        hides = "deletionVectors" in features
        newest = tables.spark.sql(f"DESCRIBE HISTORY {name} LIMIT 1").first() if hides else None
        return cls(
            table_id=str(facts.get("id")),
            hides_deletes=hides,
            is_plain=not hides and "columnMapping" not in features,
            has_changes=(facts.get("properties") or {}).get("delta.enableChangeDataFeed") == "true",
            version=int(newest.version) if newest else 0,
            bytes_per_file=int((facts.get("sizeInBytes") or 0) / max(1, facts.get("numFiles") or 0)),
        )


def meaning_hash(log: EventSource) -> str:
    """Hash what the columns mean: a change of it changes every day, as a change of the rows does."""
    return short_hash(log.meaning)


def list_files(tables: Tables, log: EventSource, source: DataFrame, delta: DeltaLog | None) -> DataFrame:
    """List the log's files: path, size, modified_at, mapping.

    Delta's files never change, so their path says all; but where rows are deleted by deletion vectors, beside the
    files, every new version of the table counts as a change of all of them: the whole log is read anew.
    """
    mapping = F.lit(meaning_hash(log)).alias("mapping")
    if delta is not None:
        listed = tables.spark.createDataFrame([(path,) for path in source.inputFiles()], "path STRING")
        return listed.select(
            one_slash("path").alias("path"),
            F.lit(delta.version if delta.hides_deletes else 0).cast("bigint").alias("size"),
            F.timestamp_seconds(F.lit(0)).alias("modified_at"),
            mapping,
        )
    files = tables.spark.read.format("binaryFile").option("recursiveFileLookup", True).load(log.path)
    return files.select(
        one_slash("path").alias("path"),
        F.col("length").alias("size"),
        F.col("modificationTime").alias("modified_at"),
        mapping,
    )


def days_by_partition(
    tables: Tables, log: EventSource, source: DataFrame, delta: DeltaLog | None, what: str
) -> DataFrame:
    """Return the days of a log that is partitioned by them, in the columns of ``summed``, from a listing alone.

    A day's fingerprint is that of its files, so moving rows among files changes it. How many rows there are is not
    known. Of a Delta log with deletion vectors, every new version changes all days.

    Raises
    ------
    UsageError
        If files lie in no folder of a day.
    """
    assert log.partition is not None
    listed = list_files(tables, log, source, delta)
    dated = listed.select(
        "*", folder_day(F.col("path"), log.partition).alias("event_date"), F.xxhash64(*KEY[:3]).alias("hash")
    )
    num_bytes = F.sum("size") if delta is None else F.count("*") * delta.bytes_per_file
    by_day = dated.groupBy("event_date").agg(
        F.concat_ws(":", F.count("*"), exact_sum("hash")).alias("content"),
        num_bytes.alias("num_bytes"),
        F.min("path").alias("path"),
    )
    lost = by_day.where("event_date IS NULL").first()
    if lost is not None:
        raise UsageError(
            f"{what}.partition.column: {lost.content.split(':')[0]} files lie in no folder such as "
            f"{log.partition.column}=2024-05-01, {lost.path} among them. Move them there, or take partition out."
        )
    unknown = F.lit(None).cast("bigint")
    return by_day.select(
        "event_date",
        unknown.alias("num_rows"),
        unknown.alias("num_rejected"),
        F.concat(F.lit("files:"), "content").alias("fingerprint"),
        "num_bytes",
    )


def summed(counts: DataFrame) -> DataFrame:
    """Add up counts of files: one row per day (null: without a readable time) with rows, counts and fingerprint.

    Rejects are null where those of a file are not known.
    """
    by_day = counts.groupBy("event_date").agg(
        F.sum("num_rows").alias("num_rows"),
        F.when(F.count("num_rejected") == F.count("*"), F.sum("num_rejected")).alias("num_rejected"),
        F.sum("checksum").alias("checksum"),
    )
    return by_day.where("num_rows > 0").select(
        "event_date",
        "num_rows",
        "num_rejected",
        F.concat_ws(":", "num_rows", "checksum").alias("fingerprint"),
        F.lit(0).cast("bigint").alias("num_bytes"),
    )


class FileDay(NamedTuple):
    """How many rows of a day a file holds (``date.min``: without a readable time), and how many rows of all days."""

    path: str
    day: date
    num_rows: int
    file_rows: int


def files_by_day(
    tables: Tables, log: EventSource, source: DataFrame, days: Collection[date], *, undated: bool = False
) -> list[FileDay]:
    """List the files that hold rows of these days, or rows ``undated``.

    Nothing of a Delta log whose files don't tell what is in it.

    Driver memory: one entry for each file and day.

    Raises
    ------
    UserrepError
        If the log has files that the inventory has not seen.
    """
    delta = DeltaLog.of(tables, log)
    if delta is not None and not delta.is_plain:
        return []
    held = list_files(tables, log, source, delta).join(tables.read(SOURCE_FILES), on=list(KEY), how="left")
    wanted = F.coalesce(F.col("event_date").isin(list(days)), F.lit(undated)) & (F.col("num_rows") > 0)
    of_day = F.when(wanted, F.struct("event_date", "num_rows"))
    by_file = held.groupBy("path").agg(F.sum("num_rows").alias("file_rows"), F.collect_set(of_day).alias("days"))
    rows = by_file.where("file_rows IS NULL OR size(days) > 0").collect()
    if any(row.file_rows is None for row in rows):
        raise UserrepError("events: the log's files changed while they were being read. Run the command again.")
    return [FileDay(row.path, of.event_date or date.min, of.num_rows, row.file_rows) for row in rows for of in row.days]


def files_by_folder(tables: Tables, log: EventSource, source: DataFrame, days: Collection[date]) -> list[FileDay]:
    """List the files of these days of a log in partitions by event date, by a listing alone; rows are a guess.

    Nothing of a Delta log whose files don't tell what is in it. Driver memory: one entry for each file.
    """
    assert log.partition is not None
    delta = DeltaLog.of(tables, log)
    if delta is not None and not delta.is_plain:
        return []
    num_bytes = F.col("size") if delta is None else F.lit(delta.bytes_per_file)
    listed = list_files(tables, log, source, delta).select(
        "path", folder_day(F.col("path"), log.partition).alias("day"), num_bytes.alias("num_bytes")
    )
    rows = listed.where(F.col("day").isin(list(days))).collect()
    return [FileDay(row.path, row.day, *[1 + row.num_bytes // BYTES_PER_ROW] * 2) for row in rows]


def row_hash(columns: list[str]) -> Column:
    """Hash a row; which columns are null is hashed beside the values, since xxhash64 passes over nulls."""
    values = [F.col("raw").getField(name) for name in columns]
    nulls = F.concat(*(F.when(value.isNull(), "1").otherwise("0") for value in values))
    return F.xxhash64(*values, nulls, "corrupt")


def exact_sum(number: str) -> Column:
    """Sum 64-bit numbers beyond 64 bits: as two halves, since decimals are slow to add row by row."""
    high, low = F.sum(F.shiftright(number, 32)), F.sum(F.col(number).bitwiseAND(2**32 - 1))
    return (high.cast("decimal(28,0)") * 2**32 + low).cast("decimal(38,0)")


def one_slash(path: str) -> Column:
    """Write a file's path in one way: listings and scans differ in slashes."""
    return F.regexp_replace(path, r"^file:/+", "file:/")
