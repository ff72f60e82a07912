"""Reading of the owner's event log in any format: mapped columns, and a reason for each rejected row."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow.compute as pc
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import EventSource, Source
from userrep.errors import UsageError, first_line
from userrep.sources.columns import as_text, event_columns, find_column, id_text, named, type_of
from userrep.sources.listing import base_folder, check_local, is_pattern
from userrep.sources.partitions import partition_day
from userrep.spark.paths import not_a_pattern
from userrep.store.sql import sql_name

CORRUPT = "_corrupt_record"
EARLIEST = "1971-01-01"  # 1970 is excluded, since an epoch time of 0 means a missing time
LATEST = "2200-01-01"
_NAIVE = r"^\s*[+-]?\d+(-\d+(-\d+([T ]\d+(:\d+(:\d+(\.\d*)?)?)?)?)?)?\s*$"  # a time in text without a zone
DATE = r"^\s*\+?\d{4}(-\d{1,2}(-\d{1,2})?)?\s*$"  # a date in text
TEXT_OPTIONS: dict[str, dict[str, Any]] = {
    "csv": {"header": True, "enforceSchema": False},  # a file with another order of columns is an error
    "json": {"primitivesAsString": True, "columnNameOfCorruptRecord": CORRUPT},
}
WEIGHT_UNIT = 2**8  # weights are multiples of 1/256, so that sums of weight x vector are exact in float64


def read_source(
    spark: SparkSession,
    source: Source,
    *,
    what: str,
    files: Sequence[str] | None = None,
    schema: T.StructType | None = None,
    version: int | None = None,
) -> DataFrame:
    """Read a source, or only its ``files``, which may have only some of the columns of ``schema``.

    ``version``: of a Delta table, by its path or name; by default the newest at each read.

    CSV (with a header) and JSON values are read as text, since a type inferred from a sample could be wrong. For
    Parquet, Spark takes the columns of one file for all; if a log lacks a mapped column there, all footers are read.
    The frame is lazy. Cost: a listing of the files, and for JSON without ``schema`` a read of them to find the fields.

    Raises
    ------
    UsageError
        If the path does not exist, or cannot be read in this format.
    """
    if source.format == "table":
        with readable(source, what):
            at_version = f"SELECT * FROM {table_name(source)} VERSION AS OF {version}"
            return spark.table(table_name(source)) if version is None else spark.sql(at_version)
    reader = spark.read.format(source.format).options(**TEXT_OPTIONS.get(source.format, {}))
    if version is not None:
        reader = reader.option("versionAsOf", version)
    if source.format == "csv" and isinstance(source, EventSource):  # whose headers the inventory checks
        reader = reader.option("enforceSchema", True)
    if schema is not None:
        reader = reader.schema(schema)  # some files may lack a column, or have it in another type
    if files is not None or is_pattern(source.path):
        is_file = files is not None and source.path in files  # one file of a store that this process does not list
        base = source.path.rpartition("/")[0] if is_file else base_folder(source.path)
        reader = reader.option("basePath", base)
    with readable(source, what):
        frame = reader.load(source.path if files is None else list(map(not_a_pattern, files)))
        if source.format == "parquet" and schema is None and files is None and isinstance(source, EventSource):
            names = event_columns(source).values()
            if any(find_column(frame.schema, name) is None for name in names):
                frame = reader.option("mergeSchema", True).load(source.path)
        return frame


def table_name(source: Source) -> str:
    """Return the name of a catalog's table in SQL, in which each part is quoted."""
    return ".".join(map(sql_name, source.path.split(".")))


@contextmanager
def readable(source: Source, what: str) -> Iterator[None]:
    """Convert Spark's errors about a missing or unreadable source to a UsageError of one line."""
    if source.format != "table":
        check_local(source.path, what)
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:  # Py4JJavaError: a job over the files failed
        text = str(error.java_exception.getMessage()) if isinstance(error, Py4JJavaError) else str(error)
        raise UsageError(f"{what}.path {source.path}: not readable as {source.format} ({first_line(text)}).") from None


def has_naive_time(source: DataFrame, log: EventSource) -> bool:
    """Return whether the log's times have no time zone. They are read in ``time_zone``, UTC by default.

    A column of texts is judged by its first value, which a small Spark job reads.
    """
    at, kind = named(source, log.columns.event_at), type_of(source, log.columns.event_at)
    if not isinstance(kind, T.StringType):
        return isinstance(kind, T.TimestampNTZType)
    first = source.where(at.isNotNull()).select(at.rlike(_NAIVE)).first()
    return first is not None and bool(first[0])


def with_validity(
    source: DataFrame, log: EventSource, context: Sequence[str] | None = None, *, pass_through: Sequence[str] = ()
) -> DataFrame:
    """Map the log's rows to events, and give the reason for each rejected row.

    Parameters
    ----------
    context : the context columns to return, the log's own by default. A column that the log lacks is null.
    pass_through : columns of ``source`` that do not belong to the log, returned unchanged.

    Returns
    -------
    One row per row of the log: user_id, item_id, event_type (``event`` by default), event_at (UTC), event_date, weight
    (rounded to 1/256; 1 by default), one ``context_K`` per context column, event_id (null if blank), reason (null for
    a valid row), raw (an orderable struct of all the log's columns), and corrupt (the text of an unparsable row).
    No shuffle. A row without a plausible time has no event_date; in a partitioned log, it and a row outside of its
    partition get the partition's day. Rows in the future are valid here; the inventory holds them back.
    """
    context = log.columns.context if context is None else context
    mapped = source.select(*_mapped(source, log, context, pass_through))
    day = F.when(is_plausible("event_at"), F.to_date("event_at"))
    fits = F.lit(True)
    if log.partition:
        partition = F.col("partition_day")
        fits = F.coalesce(day.between(F.date_sub(partition, log.partition.late_days), partition), F.lit(False))
        day = F.when(fits, day).otherwise(partition)
    return mapped.select(
        "user_id",
        "item_id",
        "event_type",
        "event_at",
        day.alias("event_date"),
        (F.rint(F.col("weight") * WEIGHT_UNIT) / WEIGHT_UNIT).alias("weight"),
        *(f"context_{k}" for k in range(len(context))),
        "event_id",
        _reason(fits).alias("reason"),
        "raw",
        "corrupt",
        *pass_through,
    )


def _mapped(
    source: DataFrame, log: EventSource, context: Sequence[str], pass_through: Sequence[str]
) -> list[Column | str]:
    """Return the columns of an event before validation; ``partition_day`` only if the log has partitions."""
    columns = log.columns
    fields = [field for field in source.schema.fields if field.name not in (CORRUPT, *pass_through)]
    event_type = as_text(source, columns.event_type) if columns.event_type else F.lit(log.event_type or "event")
    event_id = id_text(source, columns.event_id) if columns.event_id else F.lit(None).cast("string")
    return [
        id_text(source, columns.user_id).alias("user_id"),
        id_text(source, columns.item_id).alias("item_id"),
        event_type.alias("event_type"),
        utc_time(source, columns.event_at, log.time_zone).alias("event_at"),
        (named(source, columns.weight).try_cast("double") if columns.weight else F.lit(1.0)).alias("weight"),
        *(_context(source, log, name).alias(f"context_{k}") for k, name in enumerate(context)),
        F.when(~is_missing_id(event_id), event_id).alias("event_id"),
        (F.col(CORRUPT) if CORRUPT in source.columns else F.lit(None).cast("string")).alias("corrupt"),
        F.struct(*(_orderable(field) for field in fields)).alias("raw"),
        *pass_through,
        *([partition_day(source, log.partition).alias("partition_day")] if log.partition else []),
    ]


def _reason(fits_partition: Column) -> Column:
    """Return the first reason to reject an event."""
    weight = F.col("weight")
    return first_broken(
        {
            "unparsable_row": F.col("corrupt").isNotNull(),
            "unreadable_event_at": F.col("event_at").isNull(),
            "implausible_event_at": ~is_plausible("event_at"),
            "outside_its_partition": ~fits_partition,
            "missing_user_id": is_missing_id("user_id"),
            "missing_item_id": is_missing_id("item_id"),
            "missing_event_type": F.col("event_type").isNull(),
            "unreadable_weight": weight.isNull() | F.isnan(weight) | (F.abs(weight) * WEIGHT_UNIT == float("inf")),
            "negative_weight": weight < 0,
        }
    )


def first_broken(rules: Mapping[str, Column]) -> Column:
    """Return the name of the first rule, a condition to reject a row, that applies; null for a valid row."""
    return F.coalesce(*(F.when(is_broken, F.lit(name)) for name, is_broken in rules.items()))


def is_missing_id(column: str | Column) -> Column:
    """Return whether an id is null, empty or only spaces."""
    return F.coalesce(F.trim(column), F.lit("")) == ""


def is_blank(texts: Any) -> Any:
    """Return whether texts of an Arrow column are null or have only spaces, which makes an id missing."""
    return pc.fill_null(pc.equal(pc.binary_length(pc.ascii_trim(texts, characters=" ")), 0), True)


def is_weight(numbers: Any) -> Any:
    """Return whether numbers of an Arrow column are weights: finite in units of 1/256, and at least 0."""
    limit = 2.0**1023 / WEIGHT_UNIT * 2  # from here on, a weight in units is infinite
    return pc.fill_null(pc.and_(pc.greater_equal(numbers, 0.0), pc.less(numbers, limit)), False)


def is_plausible(column: str) -> Column:
    """Return whether a time is in [``EARLIEST``, ``LATEST``]; null for null."""
    return F.col(column).between(F.lit(EARLIEST).cast("timestamp"), F.lit(LATEST).cast("timestamp"))


def utc_time(source: DataFrame, column: str, zone: str = "UTC") -> Column:
    """Convert a column of times to UTC; null if a time cannot be parsed.

    A text must begin with a year, since Spark would read ``12:30`` as a time of today. A date without a time is its
    00:00 UTC in any zone, because its midnight in a zone east of UTC belongs to the day before. Other times without a
    zone are in ``zone``. As in ``to_utc_timestamp``, a local time that the clocks skip becomes an hour later, and of a
    local time that occurs twice, the first applies.
    """
    value, kind = named(source, column), type_of(source, column)
    if isinstance(kind, T.StringType):
        value = F.when(value.rlike(r"^\s*[+-]?\d{4}"), value)
    at = value.try_cast("timestamp")
    if zone == "UTC" or isinstance(kind, (T.TimestampType, T.DateType)):
        return at
    converted = F.to_utc_timestamp(at, zone)
    if not isinstance(kind, T.StringType):
        return converted
    return F.when(value.rlike(_NAIVE) & ~value.rlike(DATE), converted).otherwise(at)


def _context(source: DataFrame, log: EventSource, name: str) -> Column:
    if name not in log.columns.context:
        return F.lit(None).cast("string")
    return F.coalesce(as_text(source, name), F.lit("(null)"))


def _orderable(field: T.StructField) -> Column:
    """Return a column that rows can be ordered by: atomic types unchanged, all others (maps, variants) as JSON."""
    column, plain = F.col(sql_name(field.name)), (T.AtomicType, T.NullType)
    if isinstance(field.dataType, plain) and not isinstance(field.dataType, T.VariantType):
        return column.alias(field.name)
    return F.to_json(F.struct(column.alias("value"))).alias(field.name)
