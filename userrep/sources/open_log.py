"""The sources of the log, opened once for a run: the listing of their files, their columns, what Delta says of them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from userrep.config import Events, EventSource
from userrep.errors import UsageError
from userrep.ids import short_hash
from userrep.sources.columns import find_column, leaves
from userrep.sources.source import CORRUPT, check_events, event_columns, read_source, readable
from userrep.store.storage import absolute

KEY = ("path", "size", "modified_at", "mapping")


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
    def of(cls, spark: SparkSession, log: EventSource) -> "DeltaLog":
        """Look at the log's table. Cost: one or two looks at Delta's own log."""
        name = log.path if log.format == "table" else f"delta.`{absolute(log.path)}`"
        detail = spark.sql(f"DESCRIBE DETAIL {name}").first()
        facts = detail.asDict() if detail else {}
        features = facts.get("tableFeatures") or []
        hides = "deletionVectors" in features
        newest = spark.sql(f"DESCRIBE HISTORY {name} LIMIT 1").first() if hides else None
        return cls(
            table_id=str(facts.get("id")),
            hides_deletes=hides,
            is_plain=not hides and "columnMapping" not in features,
            has_changes=(facts.get("properties") or {}).get("delta.enableChangeDataFeed") == "true",
            version=int(newest.version) if newest else 0,
            bytes_per_file=int((facts.get("sizeInBytes") or 0) / max(1, facts.get("numFiles") or 0)),
        )


@dataclass(frozen=True)
class OpenLog:
    """A source as it was when it was opened.

    source : a frame with its columns; of Delta and of a table all its rows, of plain files those of some. files : path,
    size, modified_at and mapping of each file, kept by the executors. columns : names to types, as one file has them.
    """

    what: str
    settings: EventSource
    source: DataFrame
    files: DataFrame
    columns: dict[str, str]
    delta: DeltaLog | None

    @property
    def is_table(self) -> bool:
        """Whether Delta or a catalog says which files and rows there are."""
        return self.settings.format in ("delta", "table")

    def rows_of(self, paths: Sequence[str]) -> DataFrame:
        """Read some of the plain files, with the columns of the whole."""
        if not paths:
            return self.source.limit(0)
        return read_source(self.source.sparkSession, self.settings, what=self.what, files=paths, like=self.source)


def open_logs(spark: SparkSession, events: Events) -> list[OpenLog]:
    """Open all sources. Raises UsageError with every fault of all of them; nothing of the rows is read before."""
    opened, faults = [], []
    for what, log in events.all_sources.items():
        try:
            opened.append(_opened(spark, log, what))
        except UsageError as error:
            faults += error.faults
    if faults:
        raise UsageError(faults)
    return opened


def _opened(spark: SparkSession, log: EventSource, what: str) -> OpenLog:
    """Open a source. Cost: one listing, a look at each file's size, and the schemas of two files; of JSON, of all.

    Of Parquet and CSV one file stands for all in ``source``, as for Spark: the first by name, in folders of partitions
    if there are any. Where it lacks a mapped column, the footers of all Parquet files are read.
    """
    delta = None
    if log.format in ("delta", "table"):
        source = read_source(spark, log, what=what)
        delta = DeltaLog.of(spark, log)
        files = _list_table(log, source, delta)
        columns = _columns(source, log)
    else:
        files = _list_files(spark, log, what)
        first, newest = _first_and_newest(files)
        source = _like(spark, log, what, files, first)
        is_like = first == newest or log.format == "json"
        columns = _columns(source if is_like else _like(spark, log, what, files, newest), log)
        columns = {name: kind for name, kind in columns.items() if f"/{name}=" not in newest}  # but for folders'
        wanted = event_columns(log).values()
        if log.format == "parquet" and any(find_column(source.schema, name) is None for name in wanted):
            source = read_source(spark, log, what=what)
    check_events(source, log, what)
    return OpenLog(what, log, source, files, columns, delta)


def _first_and_newest(files: DataFrame) -> tuple[str, str]:
    """Return the paths of the first file by name and of the newest; of no files, nothing."""
    num_folders = F.size(F.split("path", "/[^/]*=[^/]*(?=/)"))
    row = files.agg(
        F.min_by("path", F.struct(-num_folders, "path")).alias("first"),
        F.max_by("path", F.struct("modified_at", "path")).alias("newest"),
    ).first()
    return (row["first"], row["newest"]) if row and row["newest"] else ("", "")


def _like(spark: SparkSession, log: EventSource, what: str, files: DataFrame, path: str) -> DataFrame:
    """Return a frame with the columns of a file; of JSON, whose fields may be absent from any file, of all."""
    paths = [row.path for row in files.select("path").collect()] if log.format == "json" else [path]
    return read_source(spark, log, what=what, files=[path for path in paths if path] or None)


def _columns(source: DataFrame, log: EventSource) -> dict[str, str]:
    columns = {name: kind for name, kind in leaves(source.schema).items() if name != CORRUPT}
    if log.format == "csv":  # whose values are told apart by their place in the line
        columns = {name: f"{kind} in place {k}" for k, (name, kind) in enumerate(columns.items(), start=1)}
    return columns


def meaning_hash(log: EventSource) -> str:
    """Hash what the columns mean: a change of it changes every day, as a change of the rows does."""
    return short_hash(log.meaning)


def _list_table(log: EventSource, source: DataFrame, delta: DeltaLog) -> DataFrame:
    """List the files of a table, in the columns of KEY.

    Delta's files never change, so their path says all; but where rows are deleted by deletion vectors, beside the
    files, every new version of the table counts as a change of all of them: the whole log is read anew.
    """
    listed = source.sparkSession.createDataFrame([(path,) for path in source.inputFiles()], "path STRING")
    return listed.select(
        one_slash("path").alias("path"),
        F.lit(delta.version if delta.hides_deletes else 0).cast("bigint").alias("size"),
        F.timestamp_seconds(F.lit(0)).alias("modified_at"),
        F.lit(meaning_hash(log)).alias("mapping"),
    )


def _list_files(spark: SparkSession, log: EventSource, what: str) -> DataFrame:
    """List the files of a folder once, in the columns of KEY; the list is cached by the executors."""
    with readable(log, what):
        files = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(log.path)
    listed = files.select(
        one_slash("path").alias("path"),
        F.col("length").alias("size"),
        F.col("modificationTime").alias("modified_at"),
        F.lit(meaning_hash(log)).alias("mapping"),
    )
    # A lost part is made again from the same listing. Without the unique column, Spark would take the cached list of an
    # earlier run for this one, whose plan is the same.
    return listed.withColumn("listing", F.lit(uuid.uuid4().hex)).persist(StorageLevel.MEMORY_AND_DISK).drop("listing")


def one_slash(path: str) -> Column:
    """Write a file's path in one way: listings and scans differ in slashes."""
    return F.regexp_replace(path, r"^file:/+", "file:/")
