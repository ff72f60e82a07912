"""Rows of JSON and CSV files as Arrow tables, under the rules by which Spark reads such files line by line.

Most lines are parsed by Arrow. The few lines around one that Arrow does not read are parsed one by one. Lines that
Spark may read in a way of its own, such as JSON in single quotes or CSV with quotes inside quotes, are left to Spark.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

from userrep.errors import NeedsSparkError
from userrep.sources.text_blocks import TextBlock, csv_table, csv_values, json_object
from userrep.sources.text_numbers import numbers_of
from userrep.store.arrow import is_text
from userrep.tiles.column_paths import Path, taken

_FEW_LINES = 256  # that are parsed one by one if Arrow does not read one of them
_SAMPLED_LINES = 64  # of a block, from which the types of JSON values are inferred
# What only Spark's parser reads: arrays of rows, single quotes, infinity.
_BY_SPARK = re.compile(r"^\s*\[|[{,:\[]\s*'|INF\b")
_QUOTED = re.compile(rb'(?:(?<=[,\n])|^)"[^"\\\n]*"(?=[,\n])')
_UNFIT: list[Any] = []  # where a field's parent is not an object
_TYPES = {frozenset({int}): pa.int64(), frozenset({bool}): pa.bool_()}

Row = dict[str, Any]
Paths = Mapping[str, Path]  # of the columns to read, by their names in the result


@dataclass(frozen=True)
class JsonLines:
    """One JSON object per line. ``paths`` have the fields to read; all become texts, except ``weight``, a float64."""

    paths: Paths

    def table(self, block: TextBlock) -> pa.Table:
        """Parse lines. One that is not an object becomes a row of nulls. Raises NeedsSparkError."""
        first_lines = block.lines[: block.ends[:_SAMPLED_LINES][-1]].split(b"\n")
        sample = [row for row in map(json_object, first_lines) if row is not None]
        schema = pa.schema(_fields(self.paths.values(), lambda path: self._kind(path, sample)))
        return _parsed(block, partial(self._by_arrow, schema=schema), self._by_line)

    def comparable(self, line: bytes) -> str:
        """Return a text that is equal for lines of equal rows. Raises NeedsSparkError if it is not an object."""
        row = json_object(line.decode(), str)
        if row is None:
            raise NeedsSparkError
        return json.dumps(_canonical(row), sort_keys=True)

    def _kind(self, path: Path, sample: Iterable[Row]) -> pa.DataType:
        """Return the type as which Arrow reads a field, by some of its values."""
        kinds = frozenset(type(value) for row in sample if (value := _value(row, path)) is not None)
        is_weight = [name for name, other in self.paths.items() if other == path] == ["weight"]
        if is_weight:  # a boolean is not a number
            return pa.float64() if kinds and kinds <= {int, float} else pa.string()
        return _TYPES.get(kinds, pa.string())

    def _by_arrow(self, block: TextBlock, schema: pa.Schema) -> pa.Table | None:
        if np.any(block.first_bytes() != ord("{")):
            return None  # Arrow would crash on a first line that is null
        table = pyarrow.json.read_json(
            pa.BufferReader(block.lines),
            pyarrow.json.ReadOptions(use_threads=False, block_size=len(block.lines) + 1),
            pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
        return _typed({name: taken(table, path) for name, path in self.paths.items()})

    def _by_line(self, lines: Sequence[bytes]) -> pa.Table:
        rows: list[list[Any]] = []
        for line in lines:
            row = json_object(line.decode(), str)
            rows.append([_value(row, path) for path in self.paths.values()])
            is_nested = any(isinstance(value, dict | list) for value in rows[-1])
            if is_nested or (row is None and _may_be_read_by_spark(line.decode())):
                raise NeedsSparkError
        columns = zip(*([_text(value) for value in row] for row in rows), strict=True)
        try:
            return _typed({name: _texts(column) for name, column in zip(self.paths, columns, strict=True)})
        except UnicodeEncodeError:  # half of a character
            raise NeedsSparkError from None


@dataclass(frozen=True)
class CsvLines:
    """Values by position. ``names``: all columns of the log. ``paths`` have those to read; ``weight`` is a float64."""

    names: tuple[str, ...]
    paths: Paths

    def table(self, block: TextBlock) -> pa.Table:
        """Parse lines without a header. Raises NeedsSparkError.

        As in Spark, values that a line lacks are null, those that it has too many are ignored, and empty ones are null.
        """
        if not _has_plain_quotes(block.lines):
            raise NeedsSparkError
        return _parsed(block, self._by_arrow, self._by_line)

    def comparable(self, line: bytes) -> str:
        """Return a text that is equal for lines of equal rows."""
        return json.dumps(self._values(line))

    def _by_arrow(self, block: TextBlock) -> pa.Table:
        table = csv_table(block.lines, self.names, list({path[0]: None for path in self.paths.values()}))
        return _typed({name: table[path[0]] for name, path in self.paths.items()})

    def _by_line(self, lines: Sequence[bytes]) -> pa.Table:
        columns = dict(zip(self.names, zip(*map(self._values, lines), strict=True), strict=True))
        return _typed({name: _texts(columns[path[0]]) for name, path in self.paths.items()})

    def _values(self, line: bytes) -> list[str | None]:
        values = csv_values(line.decode())[: len(self.names)]
        return [value or None for value in values] + [None] * (len(self.names) - len(values))


Lines = JsonLines | CsvLines


def _parsed(
    block: TextBlock, by_arrow: Callable[[TextBlock], pa.Table | None], by_line: Callable[[Sequence[bytes]], pa.Table]
) -> pa.Table:
    """Parse lines by Arrow, except for the part of them that has lines which Arrow does not read as one row each."""
    try:
        table = by_arrow(block)
        if table is not None and table.num_rows == len(block.ends):
            return table
    except pa.ArrowInvalid:
        pass
    lines, ends = block
    if len(ends) <= _FEW_LINES:
        return by_line(lines.split(b"\n")[:-1])
    half = len(ends) // 2
    middle = int(ends[half - 1]) + 1
    parts = TextBlock(lines[:middle], ends[:half]), TextBlock(lines[middle:], ends[half:] - middle)
    return pa.concat_tables([_parsed(part, by_arrow, by_line) for part in parts])


def _typed(columns: Mapping[str, pa.ChunkedArray]) -> pa.Table:
    """Return columns as texts, and weights as numbers."""
    table = {name: column if is_text(column.type) else column.cast(pa.string()) for name, column in columns.items()
             if name != "weight"}  # fmt: skip
    if "weight" in columns:
        table["weight"] = numbers_of(columns["weight"])
    return pa.table(table)


def _texts(values: Iterable[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(list(values), pa.string())])


def _fields(paths: Iterable[Path], kind: Callable[[Path], pa.DataType], parent: Path = ()) -> list[pa.Field]:
    """Return the fields of nested objects below a parent."""
    below = sorted({path for path in paths if path[: len(parent)] == parent and len(path) > len(parent)})
    fields = {}
    for path in (path[: len(parent) + 1] for path in below):
        fields[path] = pa.struct(_fields(below, kind, path)) if path not in below else kind(path)
    return [pa.field(path[-1], type_) for path, type_ in fields.items()]


def _value(row: Row | None, path: Path) -> Any:
    value: Any = row
    for name in path:
        if value is None:
            return None
        value = value.get(name) if isinstance(value, dict) else _UNFIT
    return value


def _text(value: str | bool | None) -> str | None:
    return str(value).lower() if isinstance(value, bool) else value


def _may_be_read_by_spark(line: str) -> bool:
    """Return whether Spark may find rows in a line that is not a JSON object."""
    if _BY_SPARK.search(line):
        return True
    try:
        value, _ = json.JSONDecoder().raw_decode(line.lstrip())
    except ValueError:
        return False
    except RecursionError:
        return True
    return isinstance(value, dict)  # followed by something, which Spark ignores


def _canonical(value: Any) -> Any:
    """Return a parsed value without null fields, which are equal to missing ones."""
    if isinstance(value, dict):
        return {name: _canonical(inner) for name, inner in value.items() if inner is not None}
    return [_canonical(inner) for inner in value] if isinstance(value, list) else _text(value)


def _has_plain_quotes(lines: bytes) -> bool:
    """Return whether all quotes are at both ends of a value, without another quote or a backslash inside."""
    return b'"' not in lines or lines.count(b'"') == 2 * len(_QUOTED.findall(lines))
