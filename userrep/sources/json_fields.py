"""The fields of a JSON log, by a sample: the first lines of at most 20 files."""

from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import types as T

from userrep.sources.listing import spread
from userrep.sources.text_blocks import blocks_of, json_object

_FILES = 20
_LINES = 500  # of a file
_BYTES = 1 << 17


def sampled_fields(paths: Sequence[str], names: Collection[str] = ()) -> T.StructType:
    """Return the fields in a sample, as Spark infers them with ``primitivesAsString``, without those that are null.

    A field with one of ``names`` below it is an object if any of its values is one; lines with others are malformed.
    Cost: one read of some lines.
    """
    return _struct([value for path in spread(paths, _FILES) for value in _objects(path)], names)


def with_texts(fields: T.StructType, names: Collection[str]) -> T.StructType:
    """Return the schema to read all lines with: objects and arrays are texts, unless one of ``names`` is below them.

    A line that is not in the sample may have another type there, which Spark would reject.
    """
    schema = T.StructType()
    for field in fields.fields:
        below = [name.removeprefix(f"{field.name}.") for name in names if name.startswith(f"{field.name}.")]
        kind: T.DataType = T.StringType()
        if isinstance(field.dataType, T.StructType) and below and field.name not in names:
            kind = with_texts(field.dataType, below)
        schema.add(field.name, kind)
    return schema


def _objects(path: str) -> list[dict[str, Any]]:
    """Parse the first lines of a file."""
    try:
        block = next(blocks_of(path, has_header=False, stop=_BYTES), None)
        lines = block.lines if block else b""
    except (OSError, pa.ArrowInvalid):  # Spark may have access, and reports errors better
        return []
    values = map(json_object, lines.split(b"\n", _LINES)[:_LINES])
    return [value for value in values if value is not None]


def _struct(objects: Sequence[dict[str, Any]], names: Collection[str] = ()) -> T.StructType:
    schema = T.StructType()
    for name in sorted({name for value in objects for name, inner in value.items() if inner is not None}):
        values = [value[name] for value in objects if value.get(name) is not None]
        below = [each.removeprefix(f"{name}.") for each in names if each.startswith(f"{name}.")]
        inner = [value for value in values if isinstance(value, dict)]
        kind = _struct(inner, below) if inner and below and name not in names else _kind(values)
        if kind != T.StructType():  # Spark does not infer objects without fields
            schema.add(name, kind)
    return schema


def _kind(values: Sequence[Any]) -> T.DataType:
    if values and all(isinstance(value, dict) for value in values):
        return _struct(values)
    if values and all(isinstance(value, list) for value in values):
        return T.ArrayType(_kind([inner for value in values for inner in value if inner is not None]))
    return T.StringType()
