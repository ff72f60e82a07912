"""The mapping of a log's columns to paths in its files, for logs that tasks can read without Spark."""

from collections.abc import Iterable
from typing import NamedTuple

from pyspark.sql import types as T

from userrep.config import EventSource
from userrep.sources.columns import find_column
from userrep.sources.read import CORRUPT

Path = tuple[str, ...]  # the names of nested fields from the outermost in; one name for a top-level column

_PLAIN = (T.IntegralType, T.FractionalType, T.BooleanType, T.DateType, T.TimestampType, T.TimestampNTZType)


class LogColumns(NamedTuple):
    """The paths of an event's values in a file.

    ``context`` : the names of context columns in the configuration. ``context_paths``: their paths; if empty, the
    columns have these names. ``fixed_type``: the event type of all rows if no column is mapped to it. ``source``: all
    columns of the log, by which copies without an event id are recognized; if empty, the columns of the files.
    ``integers``: the mapped columns that are integers in the log's schema; a file in which another set of mapped
    columns are integers needs Spark. None: ids may be texts or integers.
    """

    user_id: Path
    item_id: Path
    event_at: Path
    event_id: Path | None = None
    event_type: Path | None = None
    weight: Path | None = None
    context: tuple[str, ...] = ()
    fixed_type: str = "event"
    context_paths: tuple[Path, ...] = ()
    source: tuple[str, ...] = ()
    integers: tuple[Path, ...] | None = None

    @property
    def texts(self) -> dict[str, Path]:
        """The columns that are read as text, except event_id, by their name in rows."""
        paths = self.context_paths or tuple((name,) for name in self.context)
        kinds = {} if self.event_type is None else {"event_type": self.event_type}
        contexts = {f"context_{k}": path for k, path in enumerate(paths)}
        return {"user_id": self.user_id, "item_id": self.item_id, **kinds, **contexts}

    @property
    def mapped(self) -> dict[str, Path]:
        """All mapped columns by their name in rows."""
        single = {"event_at": self.event_at, "event_id": self.event_id, "weight": self.weight}
        return {**self.texts, **{name: path for name, path in single.items() if path is not None}}


def columns_of(schema: T.StructType, log: EventSource) -> LogColumns | None:
    """Map the columns of a log that ``check_events`` has accepted; None if reading its files needs Spark.

    That is so if

    - the format is neither Parquet nor Delta, or the log is partitioned by ingestion date;
    - times are texts or dates, or in another time zone than UTC;
    - ids, event types or context values are neither texts nor integers;
    - weights are texts or decimals;
    - rows have no event id, and a column is nested.

    A schema does not reveal whether a Delta table renames columns in its files or uses deletion vectors. The caller
    must leave such tables to Spark.
    """
    names = log.columns
    resolved = {name: find_column(schema, name) for name in _names(log)}
    by_ingestion = log.partition is not None and log.partition.holds != "event_date"
    if log.format not in ("parquet", "delta") or by_ingestion or CORRUPT in schema.names:
        return None
    if None in resolved.values() or _ambiguous(names.context) or (names.event_id is None and not _comparable(schema)):
        return None
    columns = {name: (tuple(column[0]), column[1]) for name, column in resolved.items() if column is not None}
    if not _types_fit(log, {name: kind for name, (_, kind) in columns.items()}):
        return None

    def path(name: str | None) -> Path | None:
        return None if name is None else columns[name][0]

    return LogColumns(
        user_id=columns[names.user_id][0],
        item_id=columns[names.item_id][0],
        event_at=columns[names.event_at][0],
        event_id=path(names.event_id),
        event_type=path(names.event_type),
        weight=path(names.weight),
        context=tuple(names.context),
        fixed_type=log.event_type or "event",
        context_paths=tuple(columns[name][0] for name in names.context),
        source=tuple(schema.names),
        integers=tuple(path for path, kind in columns.values() if _is_integer(kind)),
    )


def _types_fit(log: EventSource, types: dict[str, T.DataType]) -> bool:
    """Return whether the mapped columns have types that tasks read as Spark does."""
    names = log.columns
    texts = [names.user_id, names.item_id, names.event_id, names.event_type, *names.context]
    time = types[names.event_at]
    return (
        all(_is_text(types[name]) or _is_integer(types[name]) for name in texts if name is not None)
        and (isinstance(time, T.TimestampType) or (isinstance(time, T.TimestampNTZType) and log.time_zone == "UTC"))
        and (names.weight is None or isinstance(types[names.weight], T.IntegralType | T.FloatType | T.DoubleType))
    )


def _names(log: EventSource) -> Iterable[str]:
    columns = log.columns
    single = (columns.user_id, columns.item_id, columns.event_at, columns.event_id, columns.event_type, columns.weight)
    return [*(name for name in single if name is not None), *columns.context]


def _ambiguous(context: list[str]) -> bool:
    """Return whether two columns' values may give the same key ``name=value``, which Spark refuses to count."""
    return any(longer.startswith(f"{name}=") for name in context for longer in context)


def _comparable(schema: T.StructType) -> bool:
    return all(isinstance(field.dataType, _PLAIN) or _is_text(field.dataType) for field in schema.fields)


def _is_text(kind: T.DataType) -> bool:
    return kind == T.StringType()  # texts with a collation compare differently


def _is_integer(kind: T.DataType) -> bool:
    return isinstance(kind, T.IntegralType)
