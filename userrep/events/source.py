"""Reading an owner's event log: any format, its columns mapped, each row valid or rejected with a reason."""

from collections.abc import Sequence
from pathlib import Path

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import Events, Source
from userrep.errors import UsageError

CORRUPT = "_corrupt_record"
EARLIEST = "1971-01-01"  # a time of 0 is a missing time, not an event of 1970
LATEST = "2200-01-01"
WEIGHT_UNIT = 2**8  # weights are multiples of 1/256, so that sums of weight x vector are exact in float64


def read_source(
    spark: SparkSession, source: Source, *, what: str, files: Sequence[str] | None = None, like: DataFrame | None = None
) -> DataFrame:
    """Read a source as it is, or only some of its files, with the columns of ``like``, the whole of it.

    CSV (with a header) and JSON values are read as text: what a value means is decided where it is used, not guessed
    from a sample. Lazy, but for the listing of files and, with JSON, one pass that finds the fields.

    Raises
    ------
    UsageError
        If the path is not there, or not readable in this format.
    """
    if source.format == "table":
        reader, target = spark.read, None
    else:
        _check_local(source.path, what)
        reader, target = spark.read.format(source.format), source.path
        if source.format == "csv":
            reader = reader.option("header", True).option("mode", "PERMISSIVE")
        if source.format == "json":
            reader = reader.option("primitivesAsString", True).option("columnNameOfCorruptRecord", CORRUPT)
    if like is not None:
        reader = reader.schema(like.schema)  # some files alone may lack a column, or hold it in another type
    if target is not None and (files is not None or "*" in target):
        reader = reader.option("basePath", _base(target))
    try:
        if target is None:
            return spark.table(source.path)
        return reader.load(target if files is None else list(files))
    except (PySparkException, Py4JJavaError) as error:  # the latter: a job that looks into the files failed
        text = str(error.java_exception.getMessage()) if isinstance(error, Py4JJavaError) else str(error)
        reason = text.strip().splitlines()[0][:200]
        raise UsageError(f"{what}.path {source.path}: not readable as {source.format} ({reason}).") from None


def check_columns(frame: DataFrame, wanted: dict[str, str], what: str) -> None:
    """Refuse a source that lacks a mapped column.

    ``wanted`` maps configuration keys to column names. Raises UsageError with all that are missing and those found.
    """
    missing = [f"{what}.{key}: no column {name!r}" for key, name in wanted.items() if name not in frame.columns]
    if missing:
        raise UsageError([f"{fault}; columns found: {', '.join(frame.columns)}." for fault in missing])


def event_columns(events: Events) -> dict[str, str]:
    """Map configuration keys to the log's columns, for those that are set."""
    columns = events.columns
    single = columns.model_dump(exclude={"context"}, exclude_none=True)
    keys = {f"columns.{key}": name for key, name in single.items()}
    return keys | {f"columns.context[{k}]": name for k, name in enumerate(columns.context)}


def check_events(source: DataFrame, events: Events) -> None:
    """Refuse a log whose mapped columns are missing or of a type that cannot mean what they are mapped to."""
    check_columns(source, event_columns(events), "events")
    types = {field.name: field.dataType for field in source.schema.fields}
    columns, faults = events.columns, []
    readable_time = (T.TimestampType, T.TimestampNTZType, T.DateType, T.StringType)
    if not isinstance(types[columns.event_at], readable_time):
        faults.append(
            f"events.columns.event_at: column {columns.event_at!r} is {types[columns.event_at].simpleString()}; "
            "wanted a timestamp, a date, or text such as 2024-05-01T12:00:00Z. Convert epoch numbers before that."
        )
    for key in ("user_id", "item_id", "event_id", "event_type"):
        name = getattr(columns, key)
        if name is not None and isinstance(types[name], T.ArrayType | T.MapType | T.StructType | T.BinaryType):
            faults.append(
                f"events.columns.{key}: column {name!r} is {types[name].simpleString()}; wanted text or a number."
            )
    if columns.weight is not None and not isinstance(types[columns.weight], T.NumericType | T.StringType):
        kind = types[columns.weight].simpleString()
        faults.append(f"events.columns.weight: column {columns.weight!r} is {kind}; wanted a number.")
    if faults:
        raise UsageError(faults)


def has_naive_time(source: DataFrame, events: Events) -> bool:
    """Say whether the log's times carry no time zone; they are read as UTC."""
    return isinstance(source.schema[events.columns.event_at].dataType, T.TimestampNTZType)


def with_validity(source: DataFrame, events: Events) -> DataFrame:
    """Map the log's rows to events and say of each why it is rejected, if it is.

    Returns
    -------
    One row per row of the log: user_id, item_id, event_type (text; ``event`` where the log has none), event_at (UTC),
    event_date (null where the time is unreadable), weight (rounded to 1/256; 1 where the log has none), one
    ``context_K`` per context column, event_id (null where the log has none), reason (null: valid), and ``raw``: a
    struct of all columns of the log, orderable. Narrow: no shuffle.
    """
    columns = events.columns
    fields = [field for field in source.schema.fields if field.name != CORRUPT]
    raw = F.struct(*(_orderable(field) for field in fields))
    corrupt = F.col(CORRUPT) if CORRUPT in source.columns else F.lit(None).cast("string")
    mapped = source.select(
        id_text(source, columns.user_id).alias("user_id"),
        id_text(source, columns.item_id).alias("item_id"),
        (_text(columns.event_type) if columns.event_type else F.lit("event")).alias("event_type"),
        _time(source, columns.event_at).try_cast("timestamp").alias("event_at"),
        (named(columns.weight).try_cast("double") if columns.weight else F.lit(1.0)).alias("weight"),
        *(F.coalesce(_text(name), F.lit("(null)")).alias(f"context_{k}") for k, name in enumerate(columns.context)),
        (id_text(source, columns.event_id) if columns.event_id else F.lit(None).cast("string")).alias("event_id"),
        corrupt.alias("corrupt"),
        raw.alias("raw"),
    )
    return mapped.select(
        "user_id",
        "item_id",
        "event_type",
        "event_at",
        F.when(_plausible("event_at"), F.to_date("event_at")).alias("event_date"),
        (F.rint(F.col("weight") * WEIGHT_UNIT) / WEIGHT_UNIT).alias("weight"),
        *(f"context_{k}" for k in range(len(columns.context))),
        "event_id",
        _reason().alias("reason"),
        "raw",
        "corrupt",
    )


def _reason() -> Column:
    """Say why a row is rejected: the first that holds; null for a valid row."""
    rules = [
        ("unparsable_row", F.col("corrupt").isNotNull()),
        ("unreadable_event_at", F.col("event_at").isNull()),
        ("implausible_event_at", ~_plausible("event_at")),
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


def _plausible(column: str) -> Column:
    return F.col(column).between(F.lit(EARLIEST).cast("timestamp"), F.lit(LATEST).cast("timestamp"))


def named(column: str) -> Column:
    """Take a top-level column by its name as it is, dots and all."""
    return F.col(f"`{column.replace('`', '``')}`")


def _time(source: DataFrame, column: str) -> Column:
    """Take a column of times; of texts only those that begin with a year, since Spark reads ``12:30`` as today's."""
    if not isinstance(source.schema[column].dataType, T.StringType):
        return named(column)
    return F.when(named(column).rlike(r"^\s*[+-]?\d{4}"), named(column))


def id_text(source: DataFrame, column: str) -> Column:
    """Read an id as text; whole numbers in a floating-point column (as pandas makes them) lose their dot."""
    if not isinstance(source.schema[column].dataType, T.FractionalType):
        return _text(column)
    is_whole = named(column) == F.rint(named(column))
    return F.when(is_whole, named(column).try_cast("decimal(38,0)").cast("string")).otherwise(_text(column))


def _text(column: str) -> Column:
    return named(column).cast("string")


def _orderable(field: T.StructField) -> Column:
    """Take a column as it is if rows can be compared by it, as JSON where they cannot (maps, variants)."""
    plain = (T.AtomicType, T.NullType)
    if isinstance(field.dataType, plain) and not isinstance(field.dataType, T.VariantType):
        return named(field.name).alias(field.name)
    return F.to_json(F.struct(named(field.name).alias("value"))).alias(field.name)


def _check_local(path: str, what: str) -> None:
    if "://" not in path and "*" not in path and not path.startswith(("dbfs:", "file:")) and not Path(path).exists():
        raise UsageError(f"{what}.path {path}: not there. Paths are relative to the working directory ({Path.cwd()}).")


def _base(path: str) -> str:
    """Return the folder below which partition columns are read from folder names."""
    if "*" in path:
        return path.split("*", maxsplit=1)[0].rpartition("/")[0] or "."
    return str(Path(path).parent) if Path(path).is_file() else path
