"""A reader of the log's Parquet files without Spark, which gives one Arrow table per file and day.

Array suffix N: rows of what is read of a file.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from userrep.store.arrow import is_text
from userrep.tiles.column_paths import LogColumns, Path
from userrep.tiles.inventory.footers import EVER, FIRST_TIME, LAST_TIME, microseconds_of, open_listed, times_of_group
from userrep.utc import DAY_US

CODED = pa.dictionary(pa.int32(), pa.string())
_UNKNOWN = pa.null()  # of a column that Spark may resolve differently; matches no type
_EXACT = 2**53  # larger integers lose digits as doubles


@dataclass(frozen=True)
class LogFile:
    """A file of the log, the days to read of it, and the row groups that may have rows of them.

    ``span``: the range of days that the rows of these groups may have.
    """

    path: str
    metadata: pq.FileMetaData
    schema: pa.Schema
    days: frozenset[int]
    groups: list[int]
    span: range
    _cache: dict[str, pa.ChunkedArray] = field(default_factory=dict)

    @property
    def folders(self) -> dict[str, str]:
        """The folders named ``column=value`` on the path, from which Spark may read columns."""
        return {unquote(name).lower(): value for name, value in re.findall(r"([^/=]+)=([^/]*)/", self.path)}

    def read(self, paths: Iterable[Path], *, coded: Iterable[str] = ()) -> pa.Table:
        """Read columns or fields of structs, without those that the file lacks. ``coded``: read as dictionaries."""
        file = open_listed(self.path, self.metadata, coded=list(coded))
        return file.read_row_groups(self.groups, columns=[".".join(path) for path in paths], use_threads=False)

    def columns(self, names: Iterable[str]) -> dict[str, pa.ChunkedArray]:
        """Read existing columns in full. They are cached, because several days may need them."""
        names = list(names)
        missing = [name for name in names if name not in self._cache]
        if missing:
            table = self.read((name,) for name in missing)
            self._cache.update({name: table[name] for name in missing})
        return {name: self._cache[name] for name in names}


class Piece(NamedTuple):
    """Rows of one day in one file: the texts of ``LogColumns`` as dictionaries, event_id, weight, ``at``.

    ``index_N``: their positions among the rows that are read of the file; None if they are all of these rows.
    """

    rows: pa.Table
    file: LogFile
    index_N: NDArray[np.int64] | None


def log_file(path: str, columns: LogColumns, days: frozenset[int]) -> LogFile:
    """Open a file and choose the row groups that may have rows of some days, by its footer.

    Cost: the time column is read of row groups without statistics.
    """
    file = open_listed(path)
    metadata, schema, groups, spans = file.metadata, file.schema_arrow, [], []
    event_at = columns.mapped["event_at"]
    is_time = _is_time(type_in(schema, event_at))
    for group in range(metadata.num_row_groups):
        times = times_of_group(metadata, group, event_at)
        span = times.days if times else _days_in(file, group, event_at) if is_time else EVER
        if any(day in span for day in days):
            groups.append(group)
            spans.append(span)
    whole = range(min((span.start for span in spans), default=0), max((span.stop for span in spans), default=0))
    return LogFile(path, metadata, schema, days, groups, whole)


def pieces_by_day(file: LogFile, columns: LogColumns) -> dict[int, Piece] | None:
    """Read the rows of the file's days as one piece per day; None if the file needs Spark."""
    if not _fits(file, columns):
        return None
    top_level = [path[0] for path in columns.texts.values() if len(path) == 1]
    coded = [name for name in top_level if name in file.schema.names and file.schema.field(name).type == pa.string()]
    try:
        table = file.read(columns.mapped.values(), coded=coded)
        at_N, has_null = microseconds_of(taken(table, columns.mapped["event_at"]))
        rows = _rows(table, columns)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # for example, a time too large for microseconds
        return None
    if rows is None:
        return None
    rows = rows.append_column("at", pa.array(at_N))
    if not len(at_N):
        return {}
    first, last = int(at_N.min()), int(at_N.max())
    if not has_null and first // DAY_US == last // DAY_US and first >= FIRST_TIME and last <= LAST_TIME:
        return {first // DAY_US: Piece(rows, file, None)} if first // DAY_US in file.days else {}
    day_N = at_N // DAY_US
    is_wanted = (at_N >= FIRST_TIME) & (at_N <= LAST_TIME) & np.isin(day_N, list(file.days))
    indexes = np.flatnonzero(is_wanted)
    indexes = indexes[np.argsort(day_N[indexes], kind="stable")]
    piece_days, starts = np.unique(day_N[indexes], return_index=True)
    parts = np.split(indexes, starts[1:])
    return {
        int(day): Piece(rows.take(pa.array(part)), file, part) for day, part in zip(piece_days, parts, strict=False)
    }


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


def taken(table: pa.Table, path: Path) -> pa.ChunkedArray:
    """Return a column, or a field of a struct, which is null where the struct is null."""
    return pc.struct_field(table[path[0]], list(path[1:])) if len(path) > 1 else table[path[0]]


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Replace a dictionary-encoded column by its values."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def is_integer(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) and kind != pa.uint64())


def _days_in(file: pq.ParquetFile, group: int, event_at: Path) -> range:
    table = file.read_row_group(group, columns=[".".join(event_at)], use_threads=False)
    at_N, _ = microseconds_of(taken(table, event_at))
    at_N = at_N[at_N >= FIRST_TIME]
    return range(int(at_N.min()) // DAY_US, int(at_N.max()) // DAY_US + 1) if len(at_N) else range(0)


def _fits(file: LogFile, columns: LogColumns) -> bool:
    """Return whether the mapped columns of a file have the same types as in the log. Optional ones may be missing."""
    if file.folders.keys() & {path[0].lower() for path in columns.mapped.values()}:
        return False
    kinds = {name: type_in(file.schema, path) for name, path in columns.mapped.items()}
    if any(kinds[name] is None for name in ("user_id", "item_id", "event_at")):
        return False
    return all(_type_fits(name, kind, columns) for name, kind in kinds.items() if kind is not None)


def _type_fits(name: str, kind: pa.DataType, columns: LogColumns) -> bool:
    if name == "event_at":
        return _is_time(kind)
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if is_integer(kind):
        return name in columns.integers or name == "weight"
    return name not in columns.integers and (
        kind in (pa.float32(), pa.float64()) if name == "weight" else is_text(kind)
    )


def _is_time(kind: pa.DataType | None) -> bool:
    return kind is not None and pa.types.is_timestamp(kind) and kind.unit != "ns"


def _rows(table: pa.Table, columns: LogColumns) -> pa.Table | None:
    rows = {name: _coded(table, path) for name, path in columns.texts.items()}
    if "event_id" in columns.mapped:
        ids = decoded(_or_null(table, columns.mapped["event_id"]))
        rows["event_id"] = ids if ids.type == pa.null() else ids.cast(pa.string() if is_text(ids.type) else pa.int64())
    if "weight" in columns.mapped:
        weights = decoded(_or_null(table, columns.mapped["weight"]))
        rows["weight"] = weights.cast(pa.float64(), safe=False)
        ends = pc.min_max(weights).as_py() if pa.types.is_integer(weights.type) else {"min": None, "max": None}
        if any(abs(end or 0) > _EXACT for end in ends.values()):
            return None
    return pa.table(rows)


def _coded(table: pa.Table, path: Path) -> pa.DictionaryArray:
    column = _or_null(table, path)
    if pa.types.is_dictionary(column.type) and column.type != CODED:
        column = decoded(column)
    if is_text(column.type) or column.type == pa.null():
        column = column.cast(pa.string())
    coded = column.combine_chunks() if column.type == CODED else column.combine_chunks().dictionary_encode()
    if coded.type == CODED:
        return coded
    return pa.DictionaryArray.from_arrays(coded.indices, coded.dictionary.cast(pa.string()))


def _or_null(table: pa.Table, path: Path) -> pa.ChunkedArray:
    missing = type_in(table.schema, path) is None
    return pa.chunked_array([pa.nulls(table.num_rows)]) if missing else taken(table, path)
