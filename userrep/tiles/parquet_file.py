"""A Parquet file of the log, read without Spark.

Array suffix N: the rows that are read from a file.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from userrep.errors import NeedsSparkError
from userrep.sources.listing import folders_of
from userrep.sources.text_numbers import numbers_of
from userrep.sources.times import times_of
from userrep.store.arrow import combined, decoded, is_text
from userrep.tiles.column_paths import LogColumns, Path, taken
from userrep.tiles.inventory.footers import FIRST_TIME, microseconds_of, open_listed, times_of_group
from userrep.utc import DAY_US

CODED = pa.dictionary(pa.int32(), pa.string())
_UNKNOWN = pa.null()  # type of a column that Spark may resolve differently; matches no other type
_COMPARABLE = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "time": pa.timestamp("us")}
_EXACT = 2**53  # larger integers lose digits as doubles


@dataclass(frozen=True)
class ParquetFile:
    """A file of the log, and the row groups that may have rows of the days to read."""

    path: str
    columns: LogColumns
    metadata: pq.FileMetaData
    schema: pa.Schema
    groups: list[int]

    @classmethod
    def of(cls, path: str, columns: LogColumns, days: frozenset[int]) -> "ParquetFile":
        """Open a file and choose the row groups that may have rows of some days, by its footer.

        Cost: the time column is read of row groups without statistics. Raises NeedsSparkError, or Arrow's errors.
        """
        file = open_listed(path)
        metadata, schema, groups = file.metadata, file.schema_arrow, []
        if not _fits(path, schema, columns):
            raise NeedsSparkError
        event_at, is_time = columns.mapped["event_at"], columns.kinds["event_at"] == "time"
        for group in range(metadata.num_row_groups):
            times = times_of_group(metadata, group, ".".join(event_at))
            span = times.days if times else _days_in(file, group, event_at) if is_time else None
            if span is None or any(day in span for day in days):
                groups.append(group)
        return cls(path, columns, metadata, schema, groups)

    @property
    def num_rows(self) -> int:
        return int(self.metadata.num_rows)

    def rows(self) -> pa.Table:
        """Read rows in the columns of ``arrow_rows``. Raises NeedsSparkError, or Arrow's errors."""
        columns = self.columns
        texts = [path for path in columns.texts.values() if len(path) == 1]
        coded = [path[0] for path in texts if type_in(self.schema, path) == pa.string()]
        table = self._read(columns.mapped.values(), coded=coded)
        event_at = taken(table, columns.mapped["event_at"])
        is_text = columns.kinds["event_at"] == "text"
        at_N = microseconds_of(times_of(event_at, columns.time_zone) if is_text else event_at)
        return _rows(table, columns).append_column("at", pa.array(at_N))

    def comparable(self, indexes: NDArray[np.int64]) -> pa.Table:
        """Read the columns ``unmapped`` of some rows in types that compare as in Spark.

        ``indexes``: positions among the rows that are read of the file. Raises NeedsSparkError if a column has no such
        type.
        """
        kinds = {name: type_in(self.schema, (name,)) for name in self.columns.unmapped}
        types = {name: _comparable_type(kind) for name, kind in kinds.items() if kind is not None}
        columns = {name: pa.chunked_array([pa.nulls(len(indexes))]) for name in kinds}
        try:
            for name, kind in types.items():
                values = decoded(self._unmapped[name].take(pa.array(indexes))).cast(kind)
                columns[name] = _one_zero_and_nan(values) if kind == pa.float64() else values
        except pa.ArrowInvalid:
            raise NeedsSparkError from None
        return pa.table(columns)

    @cached_property  # several days may need them
    def _unmapped(self) -> pa.Table:
        return self._read((name,) for name in self.columns.unmapped)

    def _read(self, paths: Iterable[Path], *, coded: Iterable[str] = ()) -> pa.Table:
        """Read columns or fields of structs, without those that the file lacks. ``coded``: read as dictionaries."""
        file = open_listed(self.path, self.metadata, coded=list(coded))
        return file.read_row_groups(self.groups, columns=[".".join(path) for path in paths], use_threads=False)


def type_in(schema: pa.Schema, path: Path) -> pa.DataType | None:
    """Return the type of a column or field; None if it does not exist, ``null`` if Spark may resolve it differently."""
    fields, kind = list(schema), None
    for name in path:
        if kind is not None and not pa.types.is_struct(kind):
            return _UNKNOWN
        named = [field for field in fields if field.name.lower() == name.lower()]
        if not named:
            return None
        if len(named) > 1 or named[0].name != name:
            return _UNKNOWN
        kind = named[0].type
        fields = list(kind) if pa.types.is_struct(kind) else []
    return kind


def coded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Encode texts, whole numbers or nulls as a dictionary of texts."""
    if column.type == CODED:
        return combined(column)
    values = decoded(column)
    is_number = pa.types.is_integer(values.type) or pa.types.is_decimal(values.type)
    array = combined(values if is_number else values.cast(pa.string())).dictionary_encode()
    return pa.DictionaryArray.from_arrays(array.indices, array.dictionary.cast(pa.string()))


def _kind(type_: pa.DataType) -> str:
    """Return the kind of a type's values, as in ``LogColumns``; ``other`` if tasks do not read them as Spark does."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if is_text(type_):
        return "text"
    if pa.types.is_integer(type_) and type_ != pa.uint64():
        return "integer"
    if pa.types.is_decimal(type_) and type_.scale == 0:
        return "decimal"
    if type_ in (pa.float32(), pa.float64()):
        return "number"
    return "time" if pa.types.is_timestamp(type_) and type_.unit != "ns" else "other"


def _days_in(file: pq.ParquetFile, group: int, event_at: Path) -> range:
    table = file.read_row_group(group, columns=[".".join(event_at)], use_threads=False)
    at_N = microseconds_of(taken(table, event_at))
    at_N = at_N[at_N >= FIRST_TIME]
    return range(int(at_N.min()) // DAY_US, int(at_N.max()) // DAY_US + 1) if len(at_N) else range(0)


def _fits(path: str, schema: pa.Schema, columns: LogColumns) -> bool:
    """Return whether the mapped columns of a file have the same kinds as in the log, or integers instead of numbers.

    Optional ones may be missing.
    """
    if folders_of(path).keys() & {field[0].lower() for field in columns.mapped.values()}:
        return False
    types = {name: type_in(schema, field) for name, field in columns.mapped.items()}
    if any(types[name] is None for name in ("user_id", "item_id", "event_at")):
        return False
    kinds = [(columns.kinds[name], _kind(type_)) for name, type_ in types.items() if type_ is not None]
    return all(expected == kind or (expected, kind) == ("number", "integer") for expected, kind in kinds)


def _rows(table: pa.Table, columns: LogColumns) -> pa.Table:
    rows: dict[str, Any] = {name: coded(_or_null(table, path)) for name, path in columns.texts.items()}
    if "event_id" in columns.mapped:
        ids = decoded(_or_null(table, columns.mapped["event_id"]))
        is_kept = ids.type == pa.null() or pa.types.is_decimal(ids.type)
        rows["event_id"] = ids if is_kept else ids.cast(pa.string() if is_text(ids.type) else pa.int64())
    if "weight" in columns.mapped:
        weights = decoded(_or_null(table, columns.mapped["weight"]))
        rows["weight"] = numbers_of(weights)
        ends = pc.min_max(weights).as_py() if pa.types.is_integer(weights.type) else {"min": None, "max": None}
        if any(abs(end or 0) > _EXACT for end in ends.values()):
            raise NeedsSparkError
    return pa.table(rows)


def _or_null(table: pa.Table, path: Path) -> pa.ChunkedArray:
    missing = type_in(table.schema, path) is None
    return pa.chunked_array([pa.nulls(table.num_rows)]) if missing else taken(table, path)


def _comparable_type(type_: pa.DataType) -> pa.DataType:
    if kind := _COMPARABLE.get(_kind(type_)):
        return kind
    if pa.types.is_boolean(type_) or pa.types.is_date(type_) or pa.types.is_decimal(type_):
        return type_
    raise NeedsSparkError


def _one_zero_and_nan(numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    """Replace negative zeros and NaN of other bits, because groups are compared by bits."""
    return pc.if_else(pc.is_nan(numbers), float("nan"), pc.add(numbers, 0.0))
