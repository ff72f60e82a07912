"""An owner's columns by their names, fields of structs among them by dotted paths."""

from typing import Protocol

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.errors import UsageError


class HasSchema(Protocol):
    """A data frame, or only the columns of one."""

    @property
    def schema(self) -> T.StructType: ...


def find_column(schema: T.StructType, name: str) -> tuple[list[str], T.DataType] | None:
    """Find a column, or a field of a struct by its dotted path: the names on the way, and its type.

    A name that is there as it is, dots and all, wins over a path.
    """
    if name in schema.names:
        return [name], schema[name].dataType
    for field in schema.fields:
        if isinstance(field.dataType, T.StructType) and name.startswith(f"{field.name}."):
            found = find_column(field.dataType, name.removeprefix(f"{field.name}."))
            if found is not None:
                return [field.name, *found[0]], found[1]
    return None


def type_of(frame: DataFrame, name: str) -> T.DataType:
    """Return the type of a column that ``check_columns`` has found."""
    found = find_column(frame.schema, name)
    assert found is not None, name
    return found[1]


def named(frame: DataFrame, name: str) -> Column:
    """Take a column that ``check_columns`` has found."""
    found = find_column(frame.schema, name)
    assert found is not None, name
    return F.col(".".join(f"`{part.replace('`', '``')}`" for part in found[0]))


def leaves(schema: T.StructType) -> dict[str, str]:
    """Map each column, and each field of a struct in its place by its dotted path, to its type in SQL."""
    types: dict[str, str] = {}
    for field in schema.fields:
        if isinstance(field.dataType, T.StructType):
            types |= {f"{field.name}.{name}": kind for name, kind in leaves(field.dataType).items()}
        else:
            types[field.name] = field.dataType.simpleString()
    return types


def check_columns(frame: HasSchema, wanted: dict[str, str], what: str) -> None:
    """Refuse a source that lacks a mapped column.

    ``wanted`` maps configuration keys to column names. Raises UsageError with all that are missing and those found.
    """
    missing = [
        f"{what}.{key}: no column {name!r}" for key, name in wanted.items() if find_column(frame.schema, name) is None
    ]
    if missing:
        found = ", ".join(leaves(frame.schema))
        raise UsageError([f"{fault}; columns found: {found}." for fault in missing])


def as_text(frame: DataFrame, name: str) -> Column:
    """Read a column as text."""
    return named(frame, name).cast("string")


def id_text(frame: DataFrame, name: str) -> Column:
    """Read an id as text; whole numbers in a floating-point column (as pandas makes them) lose their dot."""
    if not isinstance(type_of(frame, name), T.FractionalType):
        return as_text(frame, name)
    number = named(frame, name)
    return F.when(number == F.rint(number), number.try_cast("decimal(38,0)").cast("string")).otherwise(
        as_text(frame, name)
    )
