"""Look-up of the owner's columns by name, and of fields of structs by dotted path."""

from collections.abc import Callable, Iterable

import pyarrow.parquet as pq
from pydantic import BaseModel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import EventSource
from userrep.errors import UsageError, did_you_mean
from userrep.store.sql import sql_name

_PARTS = T.ArrayType | T.MapType | T.StructType | T.BinaryType
_TIMES = T.TimestampType | T.TimestampNTZType | T.DateType | T.StringType
_Expected = tuple[Callable[[T.DataType], bool], str]
_SCALAR: _Expected = lambda kind: not isinstance(kind, _PARTS), "text or a number"
_TIME: _Expected = (
    lambda kind: isinstance(kind, _TIMES),
    "a timestamp, a date, or text such as 2024-05-01T12:00:00Z. Convert epoch numbers first",
)
_TYPES: dict[str, _Expected] = {
    "columns.registered_at": _TIME,
    "columns.event_at": _TIME,
    **{f"columns.{name}": _SCALAR for name in ("user_id", "item_id", "event_id", "event_type")},
    "columns.weight": (lambda kind: isinstance(kind, T.NumericType | T.StringType), "a number"),
    "partition.column": (
        lambda kind: isinstance(kind, T.DateType | T.IntegralType | T.StringType),
        "a date, 2024-05-01 or 20240501",
    ),
}


def check_times(footers: Iterable[pq.FileMetaData], where: str) -> None:
    """Check that Spark can read the times in Parquet files; ``where`` begins the message. Raises UsageError."""
    if nanoseconds := sorted({name for footer in footers for name in _nanosecond_columns(footer)}):
        raise UsageError(
            f"{where}: Spark cannot read times in nanoseconds ({', '.join(nanoseconds)}). Write microseconds, for "
            "example with pandas' to_parquet(coerce_timestamps='us')."
        )


def _nanosecond_columns(footer: pq.FileMetaData) -> list[str]:
    """Return the columns that hold nanoseconds as INT64. Spark reads those of INT96."""
    columns = map(footer.schema.column, range(footer.num_columns))
    return [column.path for column in columns if "nanoseconds" in str(column.logical_type)]


def find_column(schema: T.StructType, name: str) -> tuple[list[str], T.DataType] | None:
    """Find a column by its name, or a field of a struct by its dotted path.

    A column whose name contains the dots takes precedence over a path into structs.

    Returns
    -------
    The names along the path, and the type; None if there is no such column.
    """
    if name in schema.names:
        return [name], schema[name].dataType
    for field in schema.fields:
        if isinstance(field.dataType, T.StructType) and name.startswith(f"{field.name}."):
            inner = find_column(field.dataType, name.removeprefix(f"{field.name}."))
            if inner is not None:
                return [field.name, *inner[0]], inner[1]
    return None


def column_of(schema: T.StructType, name: str) -> tuple[list[str], T.DataType]:
    """Return what ``find_column`` does for a column that exists, as ``check_columns`` has verified."""
    column = find_column(schema, name)
    assert column is not None, name
    return column


def type_of(frame: DataFrame, name: str) -> T.DataType:
    """Return the type of a column that exists."""
    return column_of(frame.schema, name)[1]


def named(frame: DataFrame, name: str) -> Column:
    """Return a column that exists."""
    path, _ = column_of(frame.schema, name)
    return F.col(".".join(map(sql_name, path)))


def leaves(schema: T.StructType) -> dict[str, str]:
    """Map columns to their SQL types, in order. Structs are replaced by their fields, named by dotted path."""
    types: dict[str, str] = {}
    for field in schema.fields:
        if isinstance(field.dataType, T.StructType):
            types |= {f"{field.name}.{name}": kind for name, kind in leaves(field.dataType).items()}
        else:
            types[field.name] = field.dataType.simpleString()
    return types


def configured(columns: BaseModel) -> dict[str, str]:
    """Return the columns of a section by configuration key, for the keys that are set, except ``context``."""
    names = columns.model_dump(exclude={"context"}, exclude_none=True)
    return {f"columns.{key}": name for key, name in names.items()}


def event_columns(log: EventSource) -> dict[str, str]:
    """Return the log's columns by configuration key, for the keys that are set."""
    context = {f"columns.context[{k}]": name for k, name in enumerate(log.columns.context)}
    return configured(log.columns) | context | ({"partition.column": log.partition.column} if log.partition else {})


def check_columns(schema: T.StructType, wanted: dict[str, str], what: str) -> None:
    """Check that a source has all mapped columns, with suitable types.

    ``wanted`` maps configuration keys to column names; ``what`` is the configuration section of the source.

    Raises
    ------
    UsageError
        With one fault per missing column, the nearest column, and the columns found; or one per column of another type.
    """
    known, faults = leaves(schema), []
    for key, name in wanted.items():
        if find_column(schema, name) is None:
            near = did_you_mean(name, known, cutoff=0.7)
            columns = f"{f'{near} C' if near else 'c'}olumns found: {', '.join(known)}."
            faults.append(f"{what}.{key}: no column {name!r}; {columns}")
    for key in [key for key in _TYPES if key in wanted and not faults]:
        (fits, expected), kind = _TYPES[key], column_of(schema, wanted[key])[1]
        if not fits(kind):
            faults.append(f"{what}.{key}: column {wanted[key]!r} is {kind.simpleString()}; expected {expected}.")
    if faults:
        raise UsageError(faults)


def as_text(frame: DataFrame, name: str) -> Column:
    """Cast a column to text."""
    return named(frame, name).cast("string")


def id_text(frame: DataFrame, name: str) -> Column:
    """Cast a column of ids to text.

    Whole numbers in a floating-point column, which pandas writes for integers with nulls, or in a decimal column, which
    warehouses write, become text without ``.0``.
    """
    if not isinstance(type_of(frame, name), T.FractionalType):
        return as_text(frame, name)
    number = named(frame, name)
    return F.when(number == F.rint(number), number.try_cast("decimal(38,0)").cast("string")).otherwise(
        as_text(frame, name)
    )


def is_comparable(kind: T.DataType) -> bool:
    """Return whether tasks compare values of a type as Spark does. Texts with a collation compare differently."""
    plain = (T.IntegralType, T.FractionalType, T.BooleanType, T.DateType, T.TimestampType, T.TimestampNTZType)
    return isinstance(kind, plain) or kind == T.StringType()
