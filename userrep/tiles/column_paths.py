"""The mapping of a log's columns to paths in its files, for logs that tasks can read without Spark."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import types as T

from userrep.config import EventSource
from userrep.sources.columns import column_of, is_comparable
from userrep.sources.read import CORRUPT

Path = tuple[str, ...]  # the names of nested fields from the outermost in; one name for a top-level column

TEXT_FORMATS = ("csv", "json")
_ACCEPTED = {"event_at": ("time", "text"), "weight": ("integer", "number", "text")}  # kinds
_ACCEPTED_OTHERS = ("text", "integer", "decimal")


class LogColumns(NamedTuple):
    """The paths of an event's values in a file.

    ``mapped`` : by name in rows: user_id, item_id, event_at, and, if they are mapped, event_id, event_type, weight and
    ``context_K`` per context column. ``kinds``: by the same names, the kinds of values in the log's schema: text,
    integer, decimal (without decimal places), number or time. ``context``: the names of context columns in the
    configuration. ``fixed_type``: the event type of all rows if no column is mapped to it. ``source``: all columns of
    the log, by which copies without an event id are recognized. ``time_zone``: of times without one. ``in_folders``:
    whether the log is partitioned by event date; each file then has one day, that of its folder.
    """

    mapped: dict[str, Path]
    kinds: Mapping[str, str]
    context: tuple[str, ...]
    fixed_type: str
    source: tuple[str, ...]
    time_zone: str = "UTC"
    format: str = "parquet"
    in_folders: bool = False

    @property
    def texts(self) -> dict[str, Path]:
        """The columns that are read as text, except event_id."""
        return {name: path for name, path in self.mapped.items() if name not in ("event_at", "event_id", "weight")}

    @property
    def unmapped(self) -> list[str]:
        """The columns that are not mapped, and texts of times and weights, which can differ if these are equal."""
        parsed = {name for name in ("event_at", "weight") if self.kinds.get(name) == "text"}
        mapped = {path[0] for name, path in self.mapped.items() if len(path) == 1 and name not in parsed}
        return [name for name in self.source if name not in mapped]


def columns_of(schema: T.StructType, log: EventSource) -> LogColumns | None:
    """Map the columns of a log that ``check_columns`` has accepted; None if reading its files needs Spark.

    That is so if

    - the log is a table of a catalog, or is partitioned by ingestion date;
    - times are dates, or in another time zone than UTC without being texts;
    - ids, event types or context values are neither texts nor whole numbers;
    - weights are decimals;
    - rows of Parquet files have no event id, and a column is nested.

    A schema does not reveal whether a Delta table renames columns in its files or uses deletion vectors. The caller
    must leave such tables to Spark.
    """
    names = log.columns.model_dump(exclude={"context"}, exclude_none=True)
    names |= {f"context_{k}": name for k, name in enumerate(log.columns.context)}
    columns = {key: column_of(schema, name) for key, name in names.items()}
    by_ingestion = log.partition is not None and log.partition.holds != "event_date"
    is_text = log.format in TEXT_FORMATS
    if log.format == "table" or by_ingestion or (CORRUPT in schema.names and not is_text):
        return None
    if is_ambiguous(log.columns.context) or not (is_text or "event_id" in columns or _comparable(schema)):
        return None
    kinds = {key: _kind(type_, log.time_zone) for key, (_, type_) in columns.items()}
    if any(kind not in _ACCEPTED.get(key, _ACCEPTED_OTHERS) for key, kind in kinds.items()):
        return None
    return LogColumns(
        mapped={key: tuple(path) for key, (path, _) in columns.items()},
        kinds=kinds,
        context=tuple(log.columns.context),
        fixed_type=log.event_type or "event",
        source=tuple(name for name in schema.names if name != CORRUPT),
        time_zone=log.time_zone,
        format=log.format,
        in_folders=log.partition is not None,
    )


def taken(table: pa.Table, path: Path) -> pa.ChunkedArray:
    """Return a column, or a field of a struct, which is null where the struct is null."""
    return pc.struct_field(table[path[0]], list(path[1:])) if len(path) > 1 else table[path[0]]


def is_utc(kind: T.DataType, time_zone: str) -> bool:
    """Return whether a column has times that need no conversion to UTC. ``time_zone``: of times without one."""
    return isinstance(kind, T.TimestampType) or (isinstance(kind, T.TimestampNTZType) and time_zone == "UTC")


def _kind(type_: T.DataType, time_zone: str) -> str:
    """Return the kind of a type's values; ``other`` if tasks do not read them as Spark does."""
    if type_ == T.StringType():  # texts with a collation compare differently
        return "text"
    if isinstance(type_, T.IntegralType):
        return "integer"
    if isinstance(type_, T.DecimalType) and type_.scale == 0:
        return "decimal"
    if isinstance(type_, T.FloatType | T.DoubleType):
        return "number"
    return "time" if is_utc(type_, time_zone) else "other"


def is_ambiguous(context: Sequence[str]) -> bool:
    """Return whether two columns' values may give the same key ``name=value``, which Spark refuses to count."""
    return any(longer.startswith(f"{name}=") for name in context for longer in context)


def _comparable(schema: T.StructType) -> bool:
    return all(is_comparable(field.dataType) for field in schema.fields)
