"""Checks that need no Spark session: missing paths, other formats, missing columns and as-of dates outside the log."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from functools import partial

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyspark.errors import PySparkException
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StringType, StructField, StructType

from userrep.config import Config, EventSource, Source
from userrep.errors import UsageError, results_of
from userrep.features.profiles import mapped_columns, source_of
from userrep.sources.columns import check_columns, check_times
from userrep.sources.listing import (
    Listings,
    as_spark_reads,
    check_local,
    format_of_file,
    is_delta,
    is_pattern,
    no_delta,
    reads_below,
)
from userrep.sources.text_blocks import csv_header
from userrep.store.data_files import spark_schema
from userrep.store.open import artifacts_root
from userrep.tiles.inventory.footers import FIRST_TIME, LAST_TIME, Times, times_of_footer
from userrep.tiles.inventory.inventory import check_within
from userrep.utc import DAY_US, last_event_day, numbered_day, utc_now


def check_before_spark(config: Config, as_ofs: Sequence[date], listings: Listings) -> None:
    """Check local sources for their path, format, mapped columns and types, and as-of dates against the log.

    Also check that no source contains the root. Other stores, columns of JSON, and sources of more than 2,000 Parquet
    files are checked later by the run.
    The log's first and last day come from file footers; if these do not contain them, the run checks the dates too.
    Cost: one listing and at most 2,000 footers of each local source, about half a millisecond each.

    Raises
    ------
    UsageError
        With every fault of all sources, or with the first date outside the log.
    LogIncompleteError
        If the log does not reach a date yet; see ``check_within``.
    """
    root = artifacts_root(config)
    results_of(partial(_check_source, *mapped, listings, root) for mapped in mapped_columns(config))
    first_day, last_day = log_days(config, listings) if as_ofs else (None, None)
    if last_day is not None:
        for as_of in (max(as_ofs), *as_ofs):  # waiting for more of the log is no cure if it will not reach the last
            check_within(as_of, first_day, last_day, retry_within=config.freshness.retry_within)


def _check_source(section: str, source: Source, columns: dict[str, str], listings: Listings, root: str) -> None:
    if source.format != "table":
        check_local(source.path, source_of(section))
        if reads_below(source.path, root):
            raise UsageError(
                f"{source_of(section)}.path {source.path}: also reads the tables and models in {root}. Choose a root "
                "that is not inside it."
            )
    check_format(source, source_of(section), listings)
    schema = local_schema(source, source_of(section), listings)
    if schema is not None:
        check_columns(schema, columns, section)


def check_format(source: Source, what: str, listings: Listings) -> None:
    """Check that the first file of a local source is of the configured format. Raises UsageError.

    The files of a Delta table are not a source of their own: some of them may have been removed from it.
    """
    if not is_on_disk(source):
        return
    if source.format == "delta":
        if not is_delta(source.path):
            raise no_delta(source.path, what)
        return
    if not is_pattern(source.path) and is_delta(source.path):
        raise UsageError(f"{what}.format: {source.format}, but {source.path} is a Delta table. Set format: delta.")
    try:
        first = listings.files(source, what)[0]
    except (UsageError, OSError):  # the run reports what cannot be listed
        return
    try:
        actual = format_of_file(first)
    except OSError:  # nor read
        return
    if source.format != actual:
        raise UsageError(f"{what}.format: {source.format}, but {first.path} looks like {actual}. Set format: {actual}.")


def log_days(config: Config, listings: Listings) -> tuple[date | None, date | None]:
    """Return the first and last day of the log, except days after tomorrow; each None if footers do not contain it."""
    first, last = _days(config.events.all_sources, listings)
    last = min(last, last_event_day(utc_now())) if last is not None else None
    return (first if first is not None and last is not None and first <= last else None), last


def is_on_disk(source: Source) -> bool:
    """Return whether a source is on the local file system."""
    return source.format != "table" and ("://" not in source.path or source.path.startswith("file:"))


def local_schema(source: Source, what: str, listings: Listings) -> StructType | None:
    """Return the columns of a local source; None if finding them needs Spark.

    Raises UsageError if Spark cannot read a Parquet file's times.
    """
    if not is_on_disk(source):
        return None
    if source.format == "delta":
        with suppress(DeltaError):
            return spark_schema(DeltaTable(as_spark_reads(source.path)))
    if source.format == "csv":
        return _csv_schema(source, what, listings)
    footers = listings.footers(source, what)
    if not footers or source.format != "parquet":
        return None
    check_times(footers, f"{what}.path {source.path}")
    try:
        schemas = [footer.schema.to_arrow_schema() for footer in footers]
        schema = from_arrow_schema(pa.unify_schemas(schemas, promote_options="permissive"))
    except (pa.ArrowException, PySparkException):
        return None
    folders = {name for file in listings.files(source, what) for name in file.partitions}
    return StructType([*schema.fields, *(StructField(name, StringType()) for name in folders - {*schema.names})])


def _csv_schema(source: Source, what: str, listings: Listings) -> StructType | None:
    """Return the columns of a CSV source, all of them text: those of its first file with a header, as in Spark."""
    try:
        for file in listings.files(source, what):
            if header := csv_header(file.store, file.path):
                return StructType([StructField(name, StringType()) for name in (*header, *file.partitions)])
        return StructType()
    except (UsageError, OSError, ValueError):
        return None


def days_of(log: EventSource, what: str, listings: Listings) -> tuple[date, date] | None:
    """Return the first and last day of a local log's events; None if its footers do not contain them."""
    first, last = _days({what: log}, listings)
    return (first, last) if first is not None and last is not None else None


def _days(logs: Mapping[str, EventSource], listings: Listings) -> tuple[date | None, date | None]:
    """Return the first and last day of local logs, each None if it is unknown or an implausible time hides it."""
    times = [_times_of(log, what, listings) for what, log in logs.items()]
    if not all(times):
        return None, None
    spans = [span for of_log in times for span in of_log]
    first, last = min(span.first for span in spans), max(span.last for span in spans)
    return (
        numbered_day(first // DAY_US) if first >= FIRST_TIME else None,
        numbered_day(last // DAY_US) if last <= LAST_TIME else None,
    )


def _times_of(log: EventSource, what: str, listings: Listings) -> list[Times]:
    """Return the times of all row groups of a local log in UTC; empty if its footers do not contain all of them."""
    footers = listings.footers(log, what) if is_on_disk(log) and log.time_zone == "UTC" else []
    times = [span for footer in footers for span, _ in times_of_footer(footer, log.columns.event_at)]
    known = [span for span in times if span is not None]
    return known if len(known) == len(times) else []
