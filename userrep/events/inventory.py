"""What the log holds, day by day: which files carry which days, and a fingerprint of each day's content."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep.config import Events
from userrep.errors import RejectedShareError, UsageError, UserrepError
from userrep.events.source import CORRUPT, check_events, has_naive_time, read_source, with_validity
from userrep.ids import short_hash
from userrep.schemas import SOURCE_FILES
from userrep.storage import absolute
from userrep.tables import Tables

_KEY = ("path", "size", "modified_at", "mapping")


@dataclass(frozen=True)
class LogDay:
    """A UTC day of the log. ``fingerprint`` depends on the rows alone, not on how files hold them."""

    day: date
    num_rows: int
    num_rejected: int
    fingerprint: str


@dataclass(frozen=True)
class Inventory:
    """The log's days in order, and the rows whose time could not be read."""

    days: list[LogDay]
    num_undated: int
    num_new_files: int
    naive_time: bool
    undated_fingerprint: str = ""  # of the content of the undated rows; empty without any

    @property
    def first_day(self) -> date:
        return self.days[0].day

    @property
    def last_day(self) -> date:
        return self.days[-1].day

    def check_as_of(self, as_of: date) -> None:
        """Refuse an as-of date that has no event before it, or lies past the day after the log's last."""
        if not self.first_day < as_of <= date.fromordinal(self.last_day.toordinal() + 1):
            first, last = (
                date.fromordinal(self.first_day.toordinal() + 1),
                date.fromordinal(self.last_day.toordinal() + 1),
            )
            raise UsageError(
                f"--as-of {as_of}: outside the log, whose days are {self.first_day} to {self.last_day}; "
                f"choose a date from {first} to {last}."
            )

    def check_window(self, as_of: date, window_days: int) -> None:
        """Refuse an as-of date whose longest window, ``[as_of - window_days, as_of)``, holds no event."""
        before = max((day.day for day in self.days if day.day < as_of), default=None)
        if before is None or (as_of - before).days > window_days:
            raise UsageError(
                f"--as-of {as_of}: the longest window, {window_days} days, is empty; the last day with events before "
                f"it is {before}. Choose another date or a longer window in windows_days."
            )

    def check_rejects(self, limit: float, days: Collection[date]) -> None:
        """Refuse ``days`` if one of them, or the log's undated rows, are over the limit of malformed rows."""
        bad = [day for day in self.days if day.day in days and day.num_rejected > limit * day.num_rows]
        num_rows = sum(day.num_rows for day in self.days) + self.num_undated
        faults = [f"{d.day}: {d.num_rejected} of {d.num_rows} rows are malformed" for d in bad[:10]]
        if len(bad) > 10:
            faults.append(f"and {len(bad) - 10} more days")
        if self.num_undated > limit * num_rows:
            faults.append(f"{self.num_undated} of {num_rows} rows have no readable time")
        if faults:
            raise RejectedShareError(
                f"events: {'; '.join(faults)}; events.max_rejected_share allows {limit:.1%}. Nothing of these days is "
                "written. Mend the log or the columns' mapping, or raise the limit."
            )


def take_inventory(tables: Tables, events: Events) -> Inventory:
    """Bring ``source_files`` up to date and read the log's days from it.

    Files are told apart by path, size and time. Only files that are new or changed are read, once for each meaning of
    the columns; the files' days and the checksum of each day's rows are kept. A day's fingerprint adds up over files,
    so moving or compacting files changes no day. Cost: a listing of the log, and one read of its new files; driver
    memory grows with days.

    Raises
    ------
    UsageError
        If the log is not there, lacks mapped columns, has columns of wrong types, or is empty.
    """
    source = read_source(tables.spark, events, what="events")
    check_events(source, events)
    listed = _listing(tables, events, source)
    known = tables.read(SOURCE_FILES)
    new = listed.join(known.select(*_KEY).distinct(), on=list(_KEY), how="left_anti")
    num_new = new.count()
    if num_new:
        tables.append(_read_days(tables, events, new, source), SOURCE_FILES)
    return _summed(listed.join(tables.read(SOURCE_FILES), on=list(_KEY), how="inner"), events, source, num_new)


def mapping_of(events: Events) -> str:
    """Hash what the columns mean: a change of it changes every day, as a change of the rows does."""
    return short_hash(events.columns.model_dump())


def files_of_days(tables: Tables, events: Events, source: DataFrame, days: list[date], *, undated: bool) -> list[str]:
    """Return the files that hold rows of these days (and rows without a readable time). Driver memory: the list.

    Raises
    ------
    UserrepError
        If the log has files that the inventory has not seen.
    """
    listed = _listing(tables, events, source)
    known = tables.read(SOURCE_FILES)
    if not listed.join(known, on=list(_KEY), how="left_anti").isEmpty():
        raise UserrepError("events: the log's files changed while they were being read. Run the command again.")
    held = listed.join(known, on=list(_KEY), how="inner")
    wanted = F.col("event_date").isin(days)
    if undated:
        wanted = F.coalesce(wanted, F.col("num_rows") > 0)
    return sorted(row.path for row in held.where(wanted).select("path").distinct().collect())


def _listing(tables: Tables, events: Events, source: DataFrame) -> DataFrame:
    """List the log's files: path, size, modified_at.

    Delta's files never change, so their path says all; but where rows are deleted by deletion vectors, beside the
    files, every new version of the table counts as a change of all of them.
    """
    mapping = F.lit(mapping_of(events)).alias("mapping")
    if events.format in ("delta", "table"):
        listed = tables.spark.createDataFrame([(path,) for path in source.inputFiles()], "path STRING")
        return listed.select(
            _one_slash("path").alias("path"),
            F.lit(_version_if_files_hide_deletes(tables, events)).cast("bigint").alias("size"),
            F.timestamp_seconds(F.lit(0)).alias("modified_at"),
            mapping,
        )
    files = tables.spark.read.format("binaryFile").option("recursiveFileLookup", True).load(events.path)
    return files.select(
        _one_slash("path").alias("path"),
        F.col("length").alias("size"),
        F.col("modificationTime").alias("modified_at"),
        mapping,
    )


def _version_if_files_hide_deletes(tables: Tables, events: Events) -> int:
    """Return the version of a Delta log with deletion vectors; 0 for any other table."""
    name = events.path if events.format == "table" else f"delta.`{absolute(events.path)}`"
    detail = tables.spark.sql(f"DESCRIBE DETAIL {name}").first()
    if detail is None or "deletionVectors" not in (detail.asDict().get("tableFeatures") or []):
        return 0
    newest = tables.spark.sql(f"DESCRIBE HISTORY {name} LIMIT 1").first()
    return int(newest.version) if newest else 0


def _read_days(tables: Tables, events: Events, new: DataFrame, log: DataFrame) -> DataFrame:
    """Read new files once: one row per file and day with its counts and the sum of its rows' hashes."""
    paths = [row.path for row in new.select("path").collect()]
    if events.format in ("delta", "table"):
        source = log
    else:
        source = read_source(tables.spark, events, what="events", files=paths, like=log)
    with_path = source.withColumn("__path", _decoded("_metadata.file_path"))
    rows = with_validity(with_path, events).select(
        F.col("raw.__path").alias("path"),
        "event_date",
        F.col("reason").isNotNull().cast("bigint").alias("rejected"),
        _row_hash([name for name in log.columns if name != CORRUPT]).alias("checksum"),
    )
    by_day = rows.where(F.col("path").isin(paths)) if events.format in ("delta", "table") else rows
    by_day = by_day.groupBy("path", "event_date").agg(
        F.count("*").alias("num_rows"), F.sum("rejected").alias("num_rejected"), F.sum("checksum").alias("checksum")
    )
    filled = new.join(by_day, on="path", how="left")
    return filled.withColumns(
        {"num_rows": F.coalesce("num_rows", F.lit(0)), "num_rejected": F.coalesce("num_rejected", F.lit(0))}
    )


def _row_hash(columns: list[str]) -> Column:
    """Hash a row; which columns are null is hashed beside the values, since xxhash64 passes over nulls."""
    values = [F.col("raw").getField(name) for name in columns]
    nulls = F.concat(*(F.when(value.isNull(), "1").otherwise("0") for value in values))
    return F.xxhash64(*values, nulls, "corrupt").cast("decimal(38,0)")


def _summed(held: DataFrame, events: Events, source: DataFrame, num_new: int) -> Inventory:
    by_day = held.groupBy("event_date").agg(
        F.sum("num_rows").alias("num_rows"),
        F.sum("num_rejected").alias("num_rejected"),
        F.sum("checksum").alias("checksum"),
    )
    days, num_undated, undated_fingerprint = [], 0, ""
    for row in by_day.orderBy("event_date").collect():
        if row.event_date is None:
            num_undated, undated_fingerprint = row.num_rows, f"{row.num_rows}:{row.checksum}" if row.num_rows else ""
        else:
            days.append(LogDay(row.event_date, row.num_rows, row.num_rejected, f"{row.num_rows}:{row.checksum}"))
    if not days:
        raise UsageError(f"events.path {events.path}: no row with a readable time in it.")
    return Inventory(days, num_undated, num_new, has_naive_time(source, events), undated_fingerprint)


def _one_slash(path: str) -> Column:
    """Write a file's path in one way: listings and scans differ in slashes."""
    return F.regexp_replace(path, r"^file:/+", "file:/")


def _decoded(path: str) -> Column:
    """Write the path of a scan, which has escapes, as listings do."""
    return F.url_decode(F.regexp_replace(_one_slash(path), r"\+", "%2B"))
