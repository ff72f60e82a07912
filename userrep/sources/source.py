"""Reading an owner's event log: any format, its columns mapped, each row valid or rejected with a reason."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import EventSource, Source
from userrep.errors import UsageError
from userrep.sources.columns import as_text, check_columns, find_column, id_text, named, type_of
from userrep.sources.partitions import partition_day

CORRUPT = "_corrupt_record"
EARLIEST = "1971-01-01"  # a time of 0 is a missing time, not an event of 1970
LATEST = "2200-01-01"
_NAIVE = r"^\s*[+-]?\d+(-\d+(-\d+([T ]\d+(:\d+(:\d+(\.\d*)?)?)?)?)?)?\s*$"  # a time in text without a zone
# Reasons for rejecting a row that leave it without a day.
UNDATED = ("unparsable_row", "unreadable_event_at", "implausible_event_at")
WEIGHT_UNIT = 2**8  # weights are multiples of 1/256, so that sums of weight x vector are exact in float64


def read_source(
    spark: SparkSession, source: Source, *, what: str, files: Sequence[str] | None = None, like: DataFrame | None = None
) -> DataFrame:
    """Read a source as it is, or only some of its files, with the columns of ``like``, the whole of it.

    CSV (with a header) and JSON values are read as text: what a value means is decided where it is used, not guessed
    from a sample. Lazy, but for the listing of files and, with JSON, one pass that finds the fields. Of Parquet Spark
    takes one file's columns for all; where a log lacks a mapped column in that file, all footers are read.

    Raises
    ------
    UsageError
        If the path is not there, or not readable in this format.
    """
    if source.format == "table":
        reader, target = spark.read, None
    else:
        reader, target = spark.read.format(source.format), source.path
        if source.format == "csv":
            reader = reader.option("header", True).option("mode", "PERMISSIVE")
        if source.format == "json":
            reader = reader.option("primitivesAsString", True).option("columnNameOfCorruptRecord", CORRUPT)
    if like is not None:
        reader = reader.schema(like.schema)  # some files alone may lack a column, or hold it in another type
    if target is not None and (files is not None or "*" in target):
        reader = reader.option("basePath", _base(target))
    with readable(source, what):
        if target is None:
            return spark.table(source.path)
        frame = reader.load(target if files is None else list(files))
        if source.format == "parquet" and like is None and files is None and isinstance(source, EventSource):
            names = event_columns(source).values()
            if any(find_column(frame.schema, name) is None for name in names):
                frame = reader.option("mergeSchema", True).load(target)
        return frame


@contextmanager
def readable(source: Source, what: str) -> Iterator[None]:
    """Say in one line that a source is not there or not readable, where Spark finds so."""
    if source.format != "table":
        check_local(source.path, what)
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:  # the latter: a job that looks into the files failed
        text = str(error.java_exception.getMessage()) if isinstance(error, Py4JJavaError) else str(error)
        reason = text.strip().splitlines()[0][:200]
        raise UsageError(f"{what}.path {source.path}: not readable as {source.format} ({reason}).") from None


def event_columns(log: EventSource) -> dict[str, str]:
    """Map configuration keys to the log's columns, for those that are set."""
    columns = log.columns
    single = columns.model_dump(exclude={"context"}, exclude_none=True)
    keys = {f"columns.{key}": name for key, name in single.items()}
    keys |= {f"columns.context[{k}]": name for k, name in enumerate(columns.context)}
    return keys | ({"partition.column": log.partition.column} if log.partition else {})


def check_events(source: DataFrame, log: EventSource, what: str = "events") -> None:
    """Refuse a log whose mapped columns are missing or of a type that cannot mean what they are mapped to."""
    check_columns(source, event_columns(log), what)
    columns, faults = log.columns, []

    def check(key: str, name: str | None, fits: Callable[[T.DataType], bool], wanted: str) -> None:
        if name is not None and not fits(kind := type_of(source, name)):
            faults.append(f"{what}.{key}: column {name!r} is {kind.simpleString()}; wanted {wanted}.")

    check(
        "columns.event_at",
        columns.event_at,
        lambda kind: isinstance(kind, T.TimestampType | T.TimestampNTZType | T.DateType | T.StringType),
        "a timestamp, a date, or text such as 2024-05-01T12:00:00Z. Convert epoch numbers before that",
    )
    for key in ("user_id", "item_id", "event_id", "event_type"):
        check(f"columns.{key}", getattr(columns, key), _is_single, "text or a number")
    check("columns.weight", columns.weight, lambda kind: isinstance(kind, T.NumericType | T.StringType), "a number")
    check(
        "partition.column",
        log.partition.column if log.partition else None,
        lambda kind: isinstance(kind, T.DateType | T.IntegralType | T.StringType),
        "a date, 2024-05-01 or 20240501",
    )
    if faults:
        raise UsageError(faults)


def _is_single(kind: T.DataType) -> bool:
    return not isinstance(kind, T.ArrayType | T.MapType | T.StructType | T.BinaryType)


def has_naive_time(source: DataFrame, log: EventSource) -> bool:
    """Say whether the log's times carry no time zone; they are read as of ``time_zone``, UTC by default."""
    return isinstance(type_of(source, log.columns.event_at), T.TimestampNTZType)


def with_validity(
    source: DataFrame, log: EventSource, context: Sequence[str] | None = None, *, beside: Sequence[str] = ()
) -> DataFrame:
    """Map the log's rows to events and say of each why it is rejected, if it is.

    Parameters
    ----------
    context : the context columns to give; by default the log's own. One that it has not is null in all rows.
    beside : columns of ``source`` that are none of the log's, to be passed on.

    Returns
    -------
    One row per row of the log: user_id, item_id, event_type (text; ``event`` where the log has none), event_at (UTC),
    event_date, weight (rounded to 1/256; 1 where the log has none), one ``context_K`` per context column, event_id
    (null where the log has none), reason (null: valid), and ``raw``: a struct of all columns of the log, orderable.
    Narrow: no shuffle.

    A row without a plausible time has no event_date. In a log with partitions such a row, and one whose day its
    partition may not hold, stands under its partition's day. No clock is asked: rows of the future are held back by
    the inventory.
    """
    columns, names = log.columns, log.columns.context if context is None else context
    fields = [field for field in source.schema.fields if field.name not in (CORRUPT, *beside)]
    raw = F.struct(*(_orderable(field) for field in fields))
    corrupt = F.col(CORRUPT) if CORRUPT in source.columns else F.lit(None).cast("string")
    event_type = as_text(source, columns.event_type) if columns.event_type else F.lit(log.event_type or "event")
    mapped = source.select(
        id_text(source, columns.user_id).alias("user_id"),
        id_text(source, columns.item_id).alias("item_id"),
        event_type.alias("event_type"),
        _utc(source, columns.event_at, log.time_zone).alias("event_at"),
        (named(source, columns.weight).try_cast("double") if columns.weight else F.lit(1.0)).alias("weight"),
        *(_context(source, log, name).alias(f"context_{k}") for k, name in enumerate(names)),
        (id_text(source, columns.event_id) if columns.event_id else F.lit(None).cast("string")).alias("event_id"),
        corrupt.alias("corrupt"),
        raw.alias("raw"),
        *beside,
        *([partition_day(source, log.partition).alias("partition_day")] if log.partition else []),
    )
    day = F.when(is_plausible("event_at"), F.to_date("event_at"))
    fits = F.lit(True)
    if log.partition:
        held = F.col("partition_day")
        fits = F.coalesce(day.between(F.date_sub(held, log.partition.late_days), held), F.lit(False))
        day = F.when(fits, day).otherwise(held)
    return mapped.select(
        "user_id",
        "item_id",
        "event_type",
        "event_at",
        day.alias("event_date"),
        (F.rint(F.col("weight") * WEIGHT_UNIT) / WEIGHT_UNIT).alias("weight"),
        *(f"context_{k}" for k in range(len(names))),
        "event_id",
        _reason(fits).alias("reason"),
        "raw",
        "corrupt",
        *beside,
    )


def _reason(fits_partition: Column) -> Column:
    """Say why a row is rejected: the first that holds; null for a valid row."""
    rules = [
        ("unparsable_row", F.col("corrupt").isNotNull()),
        ("unreadable_event_at", F.col("event_at").isNull()),
        ("implausible_event_at", ~is_plausible("event_at")),
        ("outside_its_partition", ~fits_partition),
        ("missing_user_id", F.coalesce(F.trim("user_id"), F.lit("")) == ""),
        ("missing_item_id", F.coalesce(F.trim("item_id"), F.lit("")) == ""),
        ("missing_event_type", F.col("event_type").isNull()),
        (
            "unreadable_weight",
            F.col("weight").isNull() | F.isnan("weight") | (F.abs("weight") * WEIGHT_UNIT == float("inf")),
        ),
        ("negative_weight", F.col("weight") < 0),
    ]
    reason = F.lit(None).cast("string")
    for name, holds in reversed(rules):
        reason = F.when(holds, F.lit(name)).otherwise(reason)
    return reason


def is_plausible(column: str) -> Column:
    """Say whether a time may be an event's: neither a missing one nor one of centuries to come."""
    return F.col(column).between(F.lit(EARLIEST).cast("timestamp"), F.lit(LATEST).cast("timestamp"))


def _utc(source: DataFrame, column: str, zone: str) -> Column:
    """Read a column of times; of texts only those that begin with a year, since Spark reads ``12:30`` as today's.

    Times without a zone are those of ``zone``; one that its clocks skip is read as an hour later, of one that they
    show twice the first counts (as ``to_utc_timestamp`` has it).
    """
    value, kind = named(source, column), type_of(source, column)
    if isinstance(kind, T.StringType):
        value = F.when(value.rlike(r"^\s*[+-]?\d{4}"), value)
    at = value.try_cast("timestamp")
    if zone == "UTC" or isinstance(kind, T.TimestampType):
        return at
    converted = F.to_utc_timestamp(at, zone)
    return F.when(value.rlike(_NAIVE), converted).otherwise(at) if isinstance(kind, T.StringType) else converted


def _context(source: DataFrame, log: EventSource, name: str) -> Column:
    if name not in log.columns.context:
        return F.lit(None).cast("string")
    return F.coalesce(as_text(source, name), F.lit("(null)"))


def _orderable(field: T.StructField) -> Column:
    """Take a column as it is if rows can be compared by it, as JSON where they cannot (maps, variants)."""
    column, plain = F.col(f"`{field.name.replace('`', '``')}`"), (T.AtomicType, T.NullType)
    if isinstance(field.dataType, plain) and not isinstance(field.dataType, T.VariantType):
        return column.alias(field.name)
    return F.to_json(F.struct(column.alias("value"))).alias(field.name)


def check_local(path: str, what: str) -> None:
    """Refuse a path on a local disk that does not exist."""
    if "://" not in path and "*" not in path and not path.startswith(("dbfs:", "file:")) and not Path(path).exists():
        raise UsageError(f"{what}.path {path}: not there. Relative paths in a configuration file start at its folder.")


def _base(path: str) -> str:
    """Return the folder below which partition columns are read from folder names."""
    if "*" in path:
        return path.split("*", maxsplit=1)[0].rpartition("/")[0] or "."
    return str(Path(path).parent) if Path(path).is_file() else path
