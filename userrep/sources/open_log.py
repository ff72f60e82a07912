"""The sources of the log, opened once per run: the list of their files, their columns, and facts about Delta tables."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import NamedTuple
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from userrep.config import Events, EventSource, Source
from userrep.errors import results_of
from userrep.ids import short_hash
from userrep.sources.columns import check_columns, event_columns, find_column, is_comparable, leaves
from userrep.sources.json_fields import sampled_fields, with_texts
from userrep.sources.listing import (
    DataFile,
    Listings,
    base_folder,
    deletions_version,
    driver_lists,
    folders_of,
    listed_uri,
    no_files,
)
from userrep.sources.partitions import folder_day
from userrep.sources.read import CORRUPT, read_source, readable, table_name
from userrep.sources.text_blocks import csv_header
from userrep.spark.paths import not_a_pattern
from userrep.store.filesystem import absolute, file_system
from userrep.store.table_formats import NOT_IN_FILES
from userrep.utc import EPOCH

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_FOLDER_VALUES: dict[type[T.DataType], str] = {  # by the type that Spark infers
    T.IntegerType: r"[+-]?\d{1,9}", T.LongType: r"[+-]?\d{1,18}", T.DateType: r"\d{4}-\d\d-\d\d",
}  # fmt: skip
# Types that Spark infers from one folder's value. 4.10 and 4.1 would be the same number.
_INFERRED = (
    T.NullType, T.IntegerType, T.LongType, T.DateType, T.DoubleType, T.DecimalType, T.TimestampType, T.TimestampNTZType
)  # fmt: skip


class ListedFile(NamedTuple):
    """A file of the log, with its path in Spark's notation. Another size or time is another version of it."""

    path: str
    size: int
    modified_at: datetime

    @classmethod
    def of(cls, log: Source, file: DataFile) -> "ListedFile":
        """Return a file of a listing without Spark."""
        if driver_lists(log.path):
            path = f"file:{file.path}"
        else:  # scheme and bucket of the log, then the key
            path = "/".join([*log.path.split("/", 3)[:3], file.path.partition("/")[2]])
        return cls(path, file.size, file.modified_at)


@dataclass(frozen=True)
class DeltaLog:
    """Facts about a log that is a Delta table.

    ``hides_deletes``: deletion vectors may mark rows of the files as deleted. ``in_folders``: all files are in folders
    of their partitions, not below random prefixes, and in folders of the log's days. ``is_plain``: the files contain
    exactly the table's rows, under its column names, in such folders. ``has_changes``: the change data feed is on.
    ``newest``: the newest version; None for a table of a catalog that is not a Delta table.
    """

    table_id: str
    hides_deletes: bool
    is_plain: bool
    has_changes: bool
    newest: int | None
    bytes_per_file: int
    partition_columns: tuple[str, ...]
    location: str
    in_folders: bool = True

    @classmethod
    def of(cls, spark: SparkSession, log: Source) -> "DeltaLog":
        """Read the facts of the log's table. Cost: one or two reads of Delta's own log."""
        name = table_name(log) if log.format == "table" else f"delta.`{absolute(log.path)}`"
        detail = spark.sql(f"DESCRIBE DETAIL {name}").first()
        facts = detail.asDict() if detail else {}
        features = facts.get("tableFeatures") or []
        newest = spark.sql(f"DESCRIBE HISTORY {name} LIMIT 1").first() if facts.get("format") == "delta" else None
        return cls(
            table_id=str(facts.get("id")),
            hides_deletes="deletionVectors" in features,
            is_plain=not NOT_IN_FILES & set(features),
            has_changes=(facts.get("properties") or {}).get("delta.enableChangeDataFeed") == "true",
            newest=int(newest.version) if newest else None,
            bytes_per_file=int((facts.get("sizeInBytes") or 0) / max(1, facts.get("numFiles") or 0)),
            partition_columns=tuple(facts.get("partitionColumns") or ()),
            location=one_slash(str(facts.get("location") or "")),
        )

    @property
    def version(self) -> int:
        """The newest version, or 0 unless ``hides_deletes``."""
        return self.newest or 0 if self.hides_deletes else 0


@dataclass(frozen=True)
class OpenLog:
    """A source as it was when it was opened.

    what : its configuration key, such as ``events`` or ``events.sources[0]``. source : a frame with its columns; it has
    all rows of a table, but only those of some files of a log in plain files. columns : the types by name, as the
    newest file has them. delta : None for plain files.
    """

    what: str
    settings: EventSource
    source: DataFrame
    files: Sequence[ListedFile]
    columns: dict[str, str]
    delta: DeltaLog | None

    @property
    def is_table(self) -> bool:
        """Whether Delta or a catalog determines the files and rows, not a folder listing."""
        return self.settings.format in ("delta", "table")

    @property
    def mapping(self) -> str:
        """Hash of the mapping of the log's columns. If it changes, every day of the log counts as changed."""
        return short_hash(self.settings.reading)

    @property
    def is_plain(self) -> bool:
        """Whether the files contain exactly the log's rows, under its column names."""
        return self.delta is None or self.delta.is_plain

    def num_bytes(self, file: ListedFile) -> int:
        """Return the size of one of the files; for a Delta table, the mean."""
        return self.delta.bytes_per_file if self.delta and self.delta.newest is not None else file.size

    def columns_of(self, paths: Sequence[str]) -> dict[str, str]:
        """Return the columns of some of the files, as in ``columns``. Cost: for JSON, a read of these files."""
        schema = read_source(self.source.sparkSession, self.settings, what=self.what, files=paths).schema
        return {name: kind for name, kind in _columns(schema, self.settings).items() if f"/{name}=" not in paths[-1]}

    def rows_of(self, paths: Sequence[str]) -> DataFrame:
        """Read some of the plain files, with the columns of the whole source."""
        if not paths:
            return self.source.limit(0)
        return read_source(
            self.source.sparkSession, self.settings, what=self.what, files=paths, schema=self.source.schema
        )


def open_logs(spark: SparkSession, events: Events, listings: Listings | None = None) -> list[OpenLog]:
    """Open all sources, without reading rows. Raises UsageError with the faults of all of them."""
    listings = listings or Listings()
    return results_of(partial(_open_log, spark, log, what, listings) for what, log in events.all_sources.items())


def _open_log(spark: SparkSession, log: EventSource, what: str, listings: Listings) -> OpenLog:
    """Open a source. Cost: a listing, unless ``listings`` has it, and the schemas of up to three files.

    For Parquet and CSV, ``source`` has the columns of the first file by name, from partition folders if there are any.
    Without event ids, it also has those that only the newest file and the last one by name have. If these lack a mapped
    column, the footers of all Parquet files are read. The fields of JSON are those in a sample, or in all files if it
    lacks a mapped field.
    """
    mapped = event_columns(log)
    if log.format in ("delta", "table"):
        source, files, delta = _open_table(spark, log, what)
        check_columns(source.schema, mapped, what)
        return OpenLog(what, log, source, files, _columns(source.schema, log), delta)
    files = list_plain_files(spark, log, what, listings)
    first = with_columns(sorted(files, key=_depth_and_name), log)
    newest = with_columns(sorted(files, key=time_and_name, reverse=True), log)
    if log.format == "json":
        source, columns = _open_json(spark, log, what, [file.path for file in files], first)
    else:
        by_name = with_columns(sorted(files, key=lambda file: file.path, reverse=True), log)
        source, columns = _open_files(spark, log, what, (first, newest, by_name))
    typed = _with_folder_types(source.schema, first, files, log)
    if typed != source.schema:
        source = read_source(spark, log, what=what, files=[first], schema=typed)
    if log.format == "parquet" and any(find_column(source.schema, name) is None for name in mapped.values()):
        source = read_source(spark, log, what=what)
    check_columns(source.schema, mapped, what)
    in_files = {name: kind for name, kind in columns.items() if f"/{name}=" not in newest}  # no partition columns
    return OpenLog(what, log, source, files, in_files, None)


def _open_table(spark: SparkSession, log: EventSource, what: str) -> tuple[DataFrame, list[ListedFile], DeltaLog]:
    """Return the frame, the files and the facts of a Delta table or a table of a catalog, at its newest version.

    Delta's files never change, so the path identifies their content. In a table with deletion vectors, each new version
    counts as a change of all files, and the whole log is read again. Files of other tables of a catalog may be
    replaced, and their paths are escaped.
    """
    with readable(log, what):
        delta = DeltaLog.of(spark, log)
    source = read_source(spark, log, what=what, version=delta.newest)
    if delta.newest is None:
        files = list_table_files(spark, source.inputFiles())
    else:
        files = [ListedFile(one_slash(path), delta.version, EPOCH) for path in source.inputFiles()]
    paths = [file.path.removeprefix(delta.location) for file in files]
    in_folders = all(f"/{name}=" in path for path in paths for name in delta.partition_columns)
    in_folders &= log.partition is None or all(folder_day(path, log.partition) for path in paths)
    return source, files, replace(delta, in_folders=in_folders, is_plain=delta.is_plain and in_folders)


def _open_files(
    spark: SparkSession, log: EventSource, what: str, paths: tuple[str, str, str]
) -> tuple[DataFrame, dict[str, str]]:
    """Return the frame of a log in Parquet or CSV, and the columns of its newest file.

    ``paths``: the first file by name, the newest, and the last by name. An old file that was written again is the
    newest one, but lacks newer columns.
    """
    first, newest, last = paths
    frames = {
        path: read_source(spark, log, what=what, files=[path])
        for path in {first, newest, *([] if log.columns.event_id else [last])}
    }
    source, fields = frames[first], list(frames[first].schema)
    if log.columns.event_id is None:  # events may differ only in a newer column
        for path in (newest, last):
            known = {field.name.lower() for field in fields}
            in_rows = [field for field in frames[path].schema if f"/{field.name}=" not in path]
            fields += [f for f in in_rows if f.name.lower() not in known and is_comparable(f.dataType)]
    if len(fields) > len(source.columns):
        source = read_source(spark, log, what=what, files=[first], schema=T.StructType(fields))
    return source, _columns(frames[newest].schema, log)


def _open_json(
    spark: SparkSession, log: EventSource, what: str, paths: Sequence[str], first: str
) -> tuple[DataFrame, dict[str, str]]:
    """Return the frame and the columns of a JSON log, by a sample, or by all files if it lacks a mapped field."""
    folders = folders_of(first)
    mapped = [name for name in event_columns(log).values() if name.lower() not in folders]
    fields = sampled_fields(paths, mapped)
    if any(find_column(fields, name) is None for name in mapped):
        source = read_source(spark, log, what=what, files=paths)
        return source, _columns(source.schema, log)
    schema = with_texts(fields, mapped).add(CORRUPT, T.StringType())
    return read_source(spark, log, what=what, files=[first], schema=schema), _columns(fields, log)


def with_columns(files: Sequence[ListedFile], log: EventSource) -> str:
    """Return the first of some files that has columns: a CSV file without events may lack even the header."""
    if log.format != "csv":
        return files[0].path
    return next((file.path for file in files if _has_header(file)), files[0].path)


def _has_header(file: ListedFile) -> bool:
    try:
        return bool(csv_header(*file_system(listed_uri(file.path))))
    except (OSError, ValueError):  # Spark may have access
        return True


def _with_folder_types(schema: T.StructType, path: str, files: Sequence[ListedFile], log: EventSource) -> T.StructType:
    """Return the schema of a file with the types of partition columns that the folders of all files fit.

    Spark infers them from the folders that it reads: from ``12`` a number, although another folder may be ``12a``, and
    from ``__HIVE_DEFAULT_PARTITION__`` nothing.
    """
    base, values = f"{re.sub('^file:/+', '/', base_folder(log.path)).rstrip('/')}/", defaultdict[str, set[str]](set)
    names = folders_of(path.partition(base)[2])
    for file in files:
        for name, value in folders_of(file.path.partition(base)[2]).items():
            values[name].add(unquote(value))

    def kind(field: T.StructField) -> T.DataType:
        known = values[field.name.lower()] - {_NO_VALUE} if field.name.lower() in names else set()
        if not known or not isinstance(field.dataType, _INFERRED):
            return field.dataType
        fitting = (
            type_ for type_, pattern in _FOLDER_VALUES.items() if all(re.fullmatch(pattern, value) for value in known)
        )  # fmt: skip
        return next(fitting, T.StringType)()

    return T.StructType([T.StructField(field.name, kind(field), field.nullable) for field in schema.fields])


def _depth_and_name(file: ListedFile) -> tuple[int, str]:
    """Return a sort key that puts the files of the deepest partitions first, by path."""
    return -len(re.findall(r"/[^/]*=[^/]*(?=/)", file.path)), file.path


def time_and_name(file: ListedFile) -> tuple[datetime, str]:
    """Return a sort key that puts the newest file last."""
    return file.modified_at, file.path


def _columns(schema: T.StructType, log: EventSource) -> dict[str, str]:
    columns = {name: kind for name, kind in leaves(schema).items() if name != CORRUPT}
    if log.format == "json":  # a sample may lack a field of the objects in an array
        return {name: kind.partition("<")[0] for name, kind in columns.items()}
    if log.format == "csv":  # values belong to columns by their position in the line
        columns = {name: f"{kind} in place {k}" for k, (name, kind) in enumerate(columns.items(), start=1)}
    return columns


def version_of_deletions(spark: SparkSession, source: Source) -> int:
    """Return the newest version of a Delta table with deletion vectors, whose files do not show all changes; else 0.

    ``source``: of format delta or table. Cost: milliseconds for a path that the driver lists; otherwise one or two
    Spark queries of Delta's own log.
    """
    if source.format == "delta" and driver_lists(source.path):
        return deletions_version(source.path)
    try:
        return DeltaLog.of(spark, source).version
    except PySparkException:  # a table that is not a Delta table
        return 0


def list_plain_files(spark: SparkSession | None, source: Source, what: str, listings: Listings) -> list[ListedFile]:
    """List the files of a source that is no table, as Spark lists them. Driver memory: one entry per file.

    ``spark`` may be None if ``driver_lists`` the path.
    """
    if driver_lists(source.path):
        return [ListedFile.of(source, file) for file in listings.files(source, what)]
    assert spark is not None
    with readable(source, what):
        files = _listed_by_spark(spark, [source.path])
    if not files:
        raise no_files(source.path, what)
    return files


def list_table_files(spark: SparkSession, names: Sequence[str]) -> list[ListedFile]:
    """Return the files of a catalog's table that is not a Delta table, by their escaped paths.

    A session that may read the table, but not its files, does not see their sizes and times.
    """
    paths = [unquote(name) for name in names]
    try:
        return _listed_by_spark(spark, list(map(not_a_pattern, paths)))
    except (PySparkException, Py4JJavaError):
        return [ListedFile(one_slash(path), 0, EPOCH) for path in paths]


def _listed_by_spark(spark: SparkSession, paths: Sequence[str]) -> list[ListedFile]:
    """List files, and those of folders, that are not empty."""
    if not paths:
        return []
    files = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(list(paths))
    rows = files.where("length > 0").select("path", "length", "modificationTime").collect()
    return [ListedFile(one_slash(path), size, modified_at) for path, size, modified_at in rows]


def one_slash(path: str) -> str:
    """Normalize a file's path. Listings and scans differ in the number of slashes after ``file:``."""
    return re.sub("^file:/+", "file:/", path)
