"""The rows of one day as arrays, and the choice of valid rows without copies among them.

Array suffixes: N rows of the day; V selected rows. ``rows_V`` and similar arrays contain indexes of rows of the day.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.errors import NeedsSparkError
from userrep.sources.listing import folders_of
from userrep.sources.read import WEIGHT_UNIT, is_blank, is_weight
from userrep.store.arrow import combined
from userrep.store.xxhash import Hashes, mixed
from userrep.tiles.column_paths import LogColumns
from userrep.tiles.parquet_file import ParquetFile
from userrep.tiles.text_file import TextFile

LogFile = ParquetFile | TextFile
RowIndexes = NDArray[np.int64]


class Piece(NamedTuple):
    """Rows of one day in one file: the texts of ``LogColumns`` as dictionaries, event_id, weight, ``at``.

    ``index_N``: their positions among the rows that are read of the file; None if they are all of these rows.
    """

    rows: pa.Table
    file: LogFile
    index_N: RowIndexes | None


class Coded(NamedTuple):
    """Texts as codes into their distinct values; -1 for null."""

    code_N: NDArray[np.int32]
    values: pa.Array


class DistinctEvents(NamedTuple):
    """Events, each of which counts once. ``texts``: user_id, item_id, event_type and ``context_K`` per context column.

    A code of -1 stands for a context column that an event's source does not have. ``weight_N``: rounded.
    """

    texts: dict[str, Coded]
    at_N: RowIndexes
    weight_N: NDArray[np.float64]

    @classmethod
    def of(cls, parts: Sequence["DistinctEvents"]) -> "DistinctEvents":
        """Concatenate events of several sources."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            {name: _joined([part.texts[name] for part in parts]) for name in parts[0].texts},
            np.concatenate([part.at_N for part in parts]),
            np.concatenate([part.weight_N for part in parts]),
        )

    @classmethod
    def none(cls, context: Sequence[str]) -> "DistinctEvents":
        """Return no events."""
        names = ("user_id", "item_id", "event_type", *(f"context_{k}" for k in range(len(context))))
        empty = Coded(np.empty(0, np.int32), pa.array([], pa.string()))
        return cls(dict.fromkeys(names, empty), np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True)
class DayRows:
    """The rows of a day. ``texts``: by the names of ``LogColumns``. ``weight_N``: as in the log, NaN for null."""

    pieces: list[Piece]
    texts: dict[str, Coded]
    at_N: RowIndexes
    weight_N: NDArray[np.float64] | None
    event_id: pa.Array | None

    @classmethod
    def of(cls, pieces: list[Piece], columns: LogColumns) -> "DayRows":
        """Concatenate pieces. Raises NeedsSparkError if their ids have several types."""
        rows = _concatenated([piece.rows for piece in pieces])
        ids = combined(rows["event_id"]) if "event_id" in columns.mapped else None
        return cls(
            pieces=pieces,
            texts={name: _codes(combined(rows[name])) for name in columns.texts},
            at_N=combined(rows["at"]).to_numpy(),
            weight_N=combined(rows["weight"]).to_numpy(zero_copy_only=False) if "weight" in columns.mapped else None,
            event_id=ids.cast(pa.string()) if ids is not None and ids.type == pa.null() else ids,
        )

    def valid(self) -> RowIndexes:
        """Return the rows that ``with_validity`` accepts, apart from its checks of the time."""
        valid_N = np.ones(len(self.at_N), np.bool_)
        for name in ("user_id", "item_id"):
            code_N, values = self.texts[name]
            blank = np.append(is_blank(values).to_numpy(zero_copy_only=False), True)  # the last for null, code -1
            valid_N &= ~blank[code_N]
        if "event_type" in self.texts:
            valid_N &= self.texts["event_type"].code_N >= 0
        if self.weight_N is not None:
            valid_N &= is_weight(pa.array(self.weight_N)).to_numpy(zero_copy_only=False)
        return np.flatnonzero(valid_N)

    def rounded(self, rows_V: RowIndexes) -> NDArray[np.float64]:
        """Return weights of valid rows as multiples of 1/256, without negative zeros; 1 for a log without weights."""
        if self.weight_N is None:
            return np.ones(len(rows_V))
        return np.rint(self.weight_N[rows_V] * WEIGHT_UNIT) / WEIGHT_UNIT + 0.0

    def events(self, rows_V: RowIndexes, columns: LogColumns, context: Sequence[str]) -> DistinctEvents:
        """Return valid rows as events. ``context``: the context columns of all sources."""
        fixed = Coded(np.zeros(len(rows_V), np.int32), pa.array([columns.fixed_type]))
        texts = {name: _in_use(self.texts[name], rows_V) for name in ("user_id", "item_id")}
        texts["event_type"] = _in_use(self.texts["event_type"], rows_V) if "event_type" in self.texts else fixed
        for k, name in enumerate(context):
            if name in columns.context:
                code_N, values = self.texts[f"context_{columns.context.index(name)}"]
                code_N = np.where(code_N < 0, len(values), code_N)[rows_V]
                texts[f"context_{k}"] = Coded(code_N, pa.concat_arrays([values, pa.array(["(null)"])]))
            else:
                texts[f"context_{k}"] = Coded(np.full(len(rows_V), -1, np.int32), pa.array([], pa.string()))
        return DistinctEvents(texts, self.at_N[rows_V], self.rounded(rows_V))

    def codes(self, rows_V: RowIndexes) -> list[NDArray[np.int32]]:
        """Return the codes of all texts of some rows."""
        return [coded.code_N[rows_V] for coded in self.texts.values()]


def without_copies(rows: DayRows, valid_V: RowIndexes, columns: LogColumns) -> RowIndexes:
    """Return one row of each event among some rows.

    Of rows with the same event id, the latest is kept; of rows without one (null, empty or only spaces), one of those
    that are equal in all columns. Raises NeedsSparkError if the mapped columns do not decide which row to keep, or if
    columns cannot be compared here.
    """
    if rows.event_id is None:
        return _distinct_rows(rows, valid_V, columns)
    is_whole_day = len(valid_V) == len(rows.at_N)
    ids = (rows.event_id if is_whole_day else rows.event_id.take(pa.array(valid_V))).dictionary_encode()
    code_V = ids.indices.fill_null(-1).to_numpy()
    has_id = code_V >= 0
    if pa.types.is_string(ids.type.value_type):
        blank = np.append(is_blank(ids.dictionary).to_numpy(zero_copy_only=False), True)  # the last for null, code -1
        has_id = ~blank[code_V]
    latest = _latest(rows, valid_V[has_id], code_V[has_id])
    if has_id.all():
        return latest
    return np.sort(np.concatenate([latest, _distinct_rows(rows, valid_V[~has_id], columns, code_V[~has_id])]))


def _latest(rows: DayRows, rows_V: RowIndexes, code_V: NDArray[np.int32]) -> RowIndexes:
    """Return the latest row of each code. Raises NeedsSparkError if a code has several latest rows that differ."""
    has_copies = np.bincount(code_V)[code_V] > 1
    if not has_copies.any():
        return rows_V
    copies, code = rows_V[has_copies], code_V[has_copies]
    order = np.lexsort((rows.at_N[copies], code))
    copies, code = copies[order], code[order]
    is_last = np.append(code[1:] != code[:-1], True)
    kept = copies[is_last]
    last = np.repeat(kept, np.diff(np.flatnonzero(is_last), prepend=-1))
    is_tied = rows.at_N[copies] == rows.at_N[last]
    tied, last = copies[is_tied], last[is_tied]
    columns = zip([*rows.codes(tied), rows.rounded(tied)], [*rows.codes(last), rows.rounded(last)], strict=True)
    if any(np.any(tied_values != last_values) for tied_values, last_values in columns):
        raise NeedsSparkError
    has_copies[has_copies] = np.isin(rows_V[has_copies], kept, invert=True)
    return rows_V[~has_copies]


def _distinct_rows(
    rows: DayRows, rows_V: RowIndexes, columns: LogColumns, id_V: NDArray[np.int32] | None = None
) -> RowIndexes:
    """Return one of each set of rows that are equal in all columns.

    ``id_V``: codes of their event ids, all of them null or blank; None if the log has no event ids.
    Columns that are not mapped are read only for rows whose mapped columns are equal.
    """
    mapped: list[Any] = [*rows.codes(rows_V), rows.at_N[rows_V]]
    if id_V is not None:
        mapped.append(id_V)
    if rows.weight_N is not None:
        mapped.append(rows.weight_N[rows_V] + 0.0)
    hash_V = np.zeros(len(rows_V), np.uint64)
    for values in mapped:
        hash_V = mixed(hash_V) ^ (values if values.dtype == np.float64 else values.astype(np.int64)).view(np.uint64)
    alike = np.flatnonzero(_repeated(mixed(hash_V)))
    if not len(alike):
        return rows_V
    compared = [*(pa.array(values[alike]) for values in mapped), *_unmapped_columns(rows, rows_V[alike], columns)]
    names = [f"column_{k}" for k in range(len(compared))]  # the log's own names might be equal to "row"
    by_value = pa.table([*compared, pa.array(alike)], names=[*names, "row"]).group_by(names, use_threads=False)
    keep = np.ones(len(rows_V), np.bool_)
    keep[alike] = False
    keep[by_value.aggregate([("row", "min")])["row_min"].to_numpy()] = True
    return rows_V[keep]


def _unmapped_columns(rows: DayRows, rows_V: RowIndexes, columns: LogColumns) -> list[pa.ChunkedArray]:
    """Read the columns of some rows that are not mapped, and texts of times and weights, which can differ if these are
    equal. Raises NeedsSparkError if a column cannot be compared.
    """
    starts = np.cumsum([0, *(piece.rows.num_rows for piece in rows.pieces)])
    piece_V = np.searchsorted(starts, rows_V, side="right") - 1
    used = [int(k) for k in np.unique(piece_V)]
    pieces = [rows.pieces[k] for k in used]
    fields = {key: path for key, path in columns.mapped.items() if key not in columns.texts_to_parse}
    mapped = {path[0] for path in fields.values() if len(path) == 1}
    names = [name for name in columns.source if name not in mapped]
    if len({tuple(folders_of(piece.file.path).items()) for piece in pieces}) > 1:
        raise NeedsSparkError  # rows may differ in a column that is stored only in the folders' names
    tables = []
    for k, piece in zip(used, pieces, strict=True):
        indexes = rows_V[piece_V == k] - starts[k]
        tables.append(piece.file.comparable(names, indexes if piece.index_N is None else piece.index_N[indexes]))
    order = np.argsort(np.argsort(piece_V, kind="stable"), kind="stable")
    return list(_concatenated(tables).take(order).columns) if tables[0].num_columns else []


def _concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """Concatenate tables. Raises NeedsSparkError if the types of a column differ."""
    try:
        return pa.concat_tables(tables, promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise NeedsSparkError from None


def _repeated(hash_V: Hashes) -> NDArray[np.bool_]:
    """Return whether each value occurs more than once."""
    order = np.argsort(hash_V)
    same = hash_V[order][1:] == hash_V[order][:-1]
    repeated = np.empty(len(hash_V), np.bool_)
    repeated[order] = np.append(same, False) | np.append(False, same)
    return repeated


def _codes(coded: pa.DictionaryArray) -> Coded:
    indices = coded.indices.fill_null(-1) if coded.null_count else coded.indices
    return Coded(indices.to_numpy(), coded.dictionary)


def _in_use(coded: Coded, rows_V: RowIndexes) -> Coded:
    """Return the codes of some rows, with only the values that these rows have."""
    code_V = coded.code_N[rows_V]
    is_used = np.zeros(len(coded.values), np.bool_)
    is_used[code_V] = True
    if is_used.all():
        return Coded(code_V, coded.values)
    new_code = np.cumsum(is_used, dtype=np.int32) - 1
    return Coded(new_code[code_V], coded.values.filter(pa.array(is_used)))


def _joined(parts: Sequence[Coded]) -> Coded:
    """Concatenate columns of several sources."""
    arrays = [pa.DictionaryArray.from_arrays(pa.array(code_N, mask=code_N < 0), values) for code_N, values in parts]
    return _codes(pa.chunked_array(arrays).unify_dictionaries().combine_chunks())
