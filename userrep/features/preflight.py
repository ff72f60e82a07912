"""Checks that need no Spark session: missing paths, missing columns and as-of dates outside the log."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError
from pyspark.errors import PySparkException
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StringType, StructField, StructType

from userrep.config import Config, EventSource, Source
from userrep.errors import UsageError
from userrep.features.profiles import mapped_columns, source_of
from userrep.sources.columns import check_columns, find_column
from userrep.sources.listing import DataFile, list_files
from userrep.sources.read import check_events, check_local
from userrep.sources.text_sample import csv_header
from userrep.store.delta_files import DeltaFiles
from userrep.store.filesystem import file_system
from userrep.tiles.inventory.footers import earliest_time, latest_time, times_of_group
from userrep.tiles.inventory.inventory import check_within
from userrep.utc import DAY_US, last_event_day, numbered_day, utc_now

Footers = list[tuple[DataFile, pq.FileMetaData]]

_MAX_FILES = 100  # footers read per source; folders with more files are not checked


class ColumnsOnly(NamedTuple):
    """The columns of a source that is not open in Spark."""

    schema: StructType


def check_before_spark(config: Config, as_ofs: Sequence[date] = ()) -> None:
    """Check local sources for their path, mapped columns and types, and as-of dates against the log.

    Other stores, JSON, and folders of more than 100 Parquet files are checked later by the run.
    The log's first and last day come from file footers; if these do not contain them, the run checks the dates too.
    Cost: one listing and at most 100 footers of each local source.

    Raises
    ------
    UsageError
        With every fault of all sources, or with the first date outside the log.
    LogIncompleteError
        If the log does not reach a date yet; see ``check_within``.
    """
    faults: dict[str, None] = {}  # ordered and unique: a missing path is one fault, however many sections map it
    footers: dict[str, Footers] = {}  # by path
    for section, source, columns in mapped_columns(config):
        try:
            if source.format != "table":
                check_local(source.path, source_of(section))
            if source.path not in footers:
                footers[source.path] = _footers(source)
            schema = local_schema(source, footers[source.path])
            if schema is not None and isinstance(source, EventSource):
                check_events(ColumnsOnly(schema), source, section)
            elif schema is not None:
                check_columns(ColumnsOnly(schema), columns, section)
        except UsageError as error:
            faults |= dict.fromkeys(error.faults)
    if faults:
        raise UsageError(list(faults))
    span = log_span(config, footers) if as_ofs else None
    if span is not None:
        for as_of in as_ofs:
            check_within(as_of, *span, retry_within=config.freshness.error_after)


def log_span(config: Config, footers: Mapping[str, Footers] | None = None) -> tuple[date, date] | None:
    """Return the first and last day of the log, except days after tomorrow; None if its footers do not contain them.

    ``footers``: by path, those that have been read already.
    """
    spans = [days_of(log, (footers or {}).get(log.path)) for log in config.events.all_sources.values()]
    known = [span for span in spans if span is not None]
    if not known or len(known) < len(spans):
        return None
    first, last = min(span[0] for span in known), min(last_event_day(utc_now()), max(span[1] for span in known))
    return (first, last) if first <= last else None


def local_path(source: Source) -> str | None:
    """Return the path or pattern of a local source, without a scheme; None for a table or another store."""
    if source.format == "table" or ("://" in source.path and not source.path.startswith("file:")):
        return None
    return file_system(source.path)[1] if source.path.startswith(("file:", "dbfs:")) else source.path


def local_schema(source: Source, footers: Footers | None = None) -> StructType | None:
    """Return the columns of a local source; None if finding them needs Spark. ``footers``: if read already."""
    path = local_path(source)
    if path is None:
        return None
    if source.format == "delta" and Path(path).is_dir() and DeltaFiles(path).exists():
        with suppress(DeltaError):
            return DeltaFiles(path).fields()
    if source.format == "csv":
        return _csv_schema(source)
    footers = _footers(source) if footers is None else footers
    if not footers or source.format != "parquet":
        return None
    try:
        schemas = [footer.schema.to_arrow_schema() for _, footer in footers]
        schema = from_arrow_schema(pa.unify_schemas(schemas, promote_options="permissive"))
    except (pa.ArrowException, PySparkException):
        return None
    folders = {name for file, _ in footers for name in file.partitions}
    return StructType([*schema.fields, *(StructField(name, StringType()) for name in folders - {*schema.names})])


def _csv_schema(source: Source) -> StructType | None:
    """Return the columns of a CSV source, all of them text: those of its first file, as in Spark."""
    try:
        first = list_files(source.path, source.format, "source")[0]
        return StructType([StructField(name, StringType()) for name in [*csv_header(first), *first.partitions]])
    except (UsageError, OSError, ValueError):
        return None


def _footers(source: Source) -> Footers:
    """Read the Parquet footers of a local source; empty if there are too many files or one is unreadable."""
    if local_path(source) is None or source.format not in ("parquet", "delta"):
        return []
    try:
        files = list_files(source.path, source.format, "source")
        return [(file, pq.read_metadata(file.path)) for file in files] if len(files) <= _MAX_FILES else []
    except (UsageError, pa.ArrowException, OSError):
        return []


def days_of(log: EventSource, footers: Footers | None = None) -> tuple[date, date] | None:
    """Return the first and last day of a local log's events; None if its footers do not contain them.

    ``footers``: if read already.
    """
    times = []
    for _, footer in _footers(log) if footers is None else footers:
        column = find_column(from_arrow_schema(footer.schema.to_arrow_schema()), log.columns.event_at)
        groups = [group for group in range(footer.num_row_groups) if footer.row_group(group).num_rows]
        times += [times_of_group(footer, group, tuple(column[0])) if column else None for group in groups]
    known = [span for span in times if span is not None]
    if log.time_zone != "UTC" or not known or len(known) < len(times):
        return None
    first, last = min(span.first for span in known), max(span.last for span in known)
    if first < earliest_time() or last > latest_time():  # the time of a row that will be rejected
        return None
    return numbered_day(first // DAY_US), numbered_day(last // DAY_US)
