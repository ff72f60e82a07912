"""How the columns of a log's files map to events, and whether tasks may read them without Spark."""

from collections.abc import Iterable
from typing import NamedTuple

from pyspark.sql import types as T

from userrep.config import EventSource
from userrep.sources.columns import find_column
from userrep.sources.read import CORRUPT

Path = tuple[str, ...]  # the names on the way into structs; one name for a column

_PLAIN = (T.IntegralType, T.FractionalType, T.BooleanType, T.DateType, T.TimestampType, T.TimestampNTZType)


class LogColumns(NamedTuple):
    """Where in a file the values of an event are.

    ``context`` : names as the configuration has them; their columns are ``context_paths``, or columns of these names
    if that is empty. ``fixed_type``: every row's event type where no column is mapped. ``source``: all columns of the
    log, by which rows without an id are told apart; none: whatever columns the files have. ``integers``: those mapped
    columns that are whole numbers in the log's schema; a file where they are not, or others are, is not read here;
    None: ids may be text or numbers.
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
        """The columns that are read as text, but for event_id, by their name in rows."""
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
    """Map the columns of a log that ``check_events`` has accepted; None where its files need Spark to be read.

    They do in other formats than Parquet and Delta, in partitions by ingestion date, with times that are text, days or
    in another zone than UTC, with ids, types or contexts that are neither text nor whole numbers, with weights that are
    text or decimals, and, where rows have no event id, with a column that has parts. A schema does not tell whether a
    Delta table maps names to others in its files or deletes rows by vectors beside them: leave such tables to Spark.
    """
    names = log.columns
    found = {name: find_column(schema, name) for name in _names(log)}
    by_ingestion = log.partition is not None and log.partition.holds != "event_date"
    if log.format not in ("parquet", "delta") or by_ingestion or CORRUPT in schema.names:
        return None
    if None in found.values() or _ambiguous(names.context) or (names.event_id is None and not _comparable(schema)):
        return None
    paths = {name: (tuple(place[0]), place[1]) for name, place in found.items() if place is not None}
    texts = [names.user_id, names.item_id, names.event_id, names.event_type, *names.context]
    time = paths[names.event_at][1]
    fits = (
        all(_is_text(paths[name][1]) or _is_integer(paths[name][1]) for name in texts if name is not None)
        and (isinstance(time, T.TimestampType) or (isinstance(time, T.TimestampNTZType) and log.time_zone == "UTC"))
        and (names.weight is None or isinstance(paths[names.weight][1], T.IntegralType | T.FloatType | T.DoubleType))
    )
    if not fits:
        return None

    def path(name: str | None) -> Path | None:
        return None if name is None else paths[name][0]

    return LogColumns(
        user_id=paths[names.user_id][0],
        item_id=paths[names.item_id][0],
        event_at=paths[names.event_at][0],
        event_id=path(names.event_id),
        event_type=path(names.event_type),
        weight=path(names.weight),
        context=tuple(names.context),
        fixed_type=log.event_type or "event",
        context_paths=tuple(paths[name][0] for name in names.context),
        source=tuple(schema.names),
        integers=tuple(place for place, kind in paths.values() if _is_integer(kind)),
    )


def _names(log: EventSource) -> Iterable[str]:
    columns = log.columns
    single = (columns.user_id, columns.item_id, columns.event_at, columns.event_id, columns.event_type, columns.weight)
    return [*(name for name in single if name is not None), *columns.context]


def _ambiguous(context: list[str]) -> bool:
    """Say whether two columns' values may make one key ``name=value``, which Spark refuses to count."""
    return any(other.startswith(f"{name}=") for name in context for other in context)


def _comparable(schema: T.StructType) -> bool:
    return all(isinstance(field.dataType, _PLAIN) or _is_text(field.dataType) for field in schema.fields)


def _is_text(kind: T.DataType) -> bool:
    return kind == T.StringType()  # collations compare otherwise


def _is_integer(kind: T.DataType) -> bool:
    return isinstance(kind, T.IntegralType)
