"""All rows of one day as arrays, and which of them count: valid ones, each once.

``_N``: one value per row of the day; ``_V``: per row that is asked for, numbers of rows in the day among them.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from userrep.sources.read import WEIGHT_UNIT
from userrep.store.arrow import combined
from userrep.store.xxhash import Hashes, mixed
from userrep.tiles.arrow_reader import Piece, decoded, is_integer, is_text, type_in
from userrep.tiles.column_paths import LogColumns

Places = NDArray[np.int64]
_TOO_HEAVY = 2.0**1023 / WEIGHT_UNIT * 2  # from there on, a weight in units is infinite


class Coded(NamedTuple):
    """Texts as codes into distinct ones; -1 for null."""

    code_N: NDArray[np.int32]
    words: pa.Array


@dataclass(frozen=True)
class DayRows:
    """The rows of a day: ``texts`` by the names of ``LogColumns``; ``weight_N`` as it is in the log, NaN for null."""

    pieces: list[Piece]
    texts: dict[str, Coded]
    at_N: Places
    weight_N: NDArray[np.float64] | None
    event_id: pa.Array | None

    @classmethod
    def of(cls, pieces: list[Piece], columns: LogColumns) -> "DayRows | None":
        """Put pieces together; None if their ids are of several kinds."""
        try:
            rows = pa.concat_tables([piece.rows for piece in pieces], promote_options="default")
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return None
        ids = combined(rows["event_id"]) if columns.event_id else None
        return cls(
            pieces=pieces,
            texts={name: _codes(combined(rows[name])) for name in columns.texts},
            at_N=combined(rows["at"]).to_numpy(),
            weight_N=combined(rows["weight"]).to_numpy(zero_copy_only=False) if columns.weight else None,
            event_id=ids.cast(pa.string()) if ids is not None and ids.type == pa.null() else ids,
        )

    def valid(self) -> Places:
        """Return the rows that ``with_validity`` has no fault to find with but for their time."""
        good_N = np.ones(len(self.at_N), np.bool_)
        for name in ("user_id", "item_id"):
            code_N, words = self.texts[name]
            blank = pc.equal(pc.binary_length(pc.ascii_trim(words, characters=" ")), 0).to_numpy(zero_copy_only=False)
            good_N &= code_N >= 0
            if blank.any():
                good_N &= ~np.append(blank, False)[code_N]
        if "event_type" in self.texts:
            good_N &= self.texts["event_type"].code_N >= 0
        if self.weight_N is not None:
            good_N &= (self.weight_N >= 0) & (self.weight_N < _TOO_HEAVY)
        return np.flatnonzero(good_N)

    def rounded(self, rows_V: Places) -> NDArray[np.float64]:
        """Return some valid rows' weights in multiples of 1/256, without a negative zero; 1 where they have none."""
        if self.weight_N is None:
            return np.ones(len(rows_V))
        return np.rint(self.weight_N[rows_V] * WEIGHT_UNIT) / WEIGHT_UNIT + 0.0

    def codes(self, rows_V: Places) -> list[NDArray[np.int32]]:
        """Return the codes of all texts of some rows."""
        return [coded.code_N[rows_V] for coded in self.texts.values()]


def only_once(rows: DayRows, valid_V: Places, columns: LogColumns) -> Places | None:
    """Return those of some rows that are not copies of others.

    Of rows with one event id the latest counts; of rows without, one of those that are equal in all columns. None
    where it takes more than the mapped columns to say which is the later one, or columns that cannot be compared.
    """
    if rows.event_id is None:
        return _distinct_rows(rows, valid_V, columns)
    whole = len(valid_V) == len(rows.at_N)
    ids = (rows.event_id if whole else rows.event_id.take(pa.array(valid_V))).dictionary_encode()
    code_V = ids.indices.fill_null(-1).to_numpy()
    with_id = valid_V if not ids.null_count else valid_V[code_V >= 0]
    once = with_id
    if len(ids.dictionary) < len(with_id):
        latest = _latest(rows, with_id, code_V[code_V >= 0] if ids.null_count else code_V)
        if latest is None:
            return None
        once = latest
    if not ids.null_count:
        return once
    others = _distinct_rows(rows, valid_V[code_V < 0], columns)
    return None if others is None else np.sort(np.concatenate([once, others]))


def _latest(rows: DayRows, rows_V: Places, code_V: NDArray[np.int32]) -> Places | None:
    """Return one row per code, the latest; None if a code's latest rows differ."""
    several = np.bincount(code_V)[code_V] > 1
    some, code = rows_V[several], code_V[several]
    order = np.lexsort((rows.at_N[some], code))
    some, code = some[order], code[order]
    is_last = np.append(code[1:] != code[:-1], True)
    kept = some[is_last]
    last = np.repeat(some[is_last], np.diff(np.flatnonzero(is_last), prepend=-1))
    tied = rows.at_N[some] == rows.at_N[last]
    some, last = some[tied], last[tied]
    values = zip([*rows.codes(some), rows.rounded(some)], [*rows.codes(last), rows.rounded(last)], strict=True)
    if any(np.any(one != other) for one, other in values):
        return None
    several[several] = np.isin(rows_V[several], kept, invert=True)
    return rows_V[~several]


def _distinct_rows(rows: DayRows, rows_V: Places, columns: LogColumns) -> Places | None:
    """Return one of rows that are equal in all columns; others than the mapped ones are read for their likes only."""
    values: list[Any] = [*rows.codes(rows_V), rows.at_N[rows_V]]
    if rows.weight_N is not None:
        values.append(rows.weight_N[rows_V] + 0.0)
    hash_V = np.zeros(len(rows_V), np.uint64)
    for value in values:
        hash_V = mixed(hash_V) ^ (value if value.dtype == np.float64 else value.astype(np.int64)).view(np.uint64)
    alike = np.flatnonzero(_repeated(mixed(hash_V)))
    if not len(alike):
        return rows_V
    group = _numbered([value[alike] for value in values])
    several = np.bincount(group)[group] > 1
    alike, group = alike[several], group[several]
    others = _other_values(rows, rows_V[alike], columns)
    if others is None:
        return None
    group = _numbered([group, *others])
    keep = np.ones(len(rows_V), np.bool_)
    keep[alike] = False
    keep[alike[np.unique(group, return_index=True)[1]]] = True
    return rows_V[keep]


def _other_values(rows: DayRows, rows_V: Places, columns: LogColumns) -> list[Any] | None:
    """Read the columns that are not mapped, of some rows only, as numbers; None if some cannot be compared."""
    starts = np.cumsum([0, *(piece.rows.num_rows for piece in rows.pieces)])
    piece_V = np.searchsorted(starts, rows_V, side="right") - 1
    held = [int(k) for k in np.unique(piece_V)]
    pieces = [rows.pieces[k] for k in held]
    mapped = {path[0] for path in columns.mapped.values() if len(path) == 1}
    in_files = [name for piece in pieces for name in piece.file.schema.names]
    names = [name for name in dict.fromkeys(columns.source or in_files) if name not in mapped]
    if len({tuple(piece.file.folders.items()) for piece in pieces}) > 1:
        return None  # they may differ in a column that is in no file
    tables = []
    for k, piece in zip(held, pieces, strict=True):
        places = rows_V[piece_V == k] - starts[k]
        table = _compared(piece, names, places if piece.place_N is None else piece.place_N[places])
        if table is None:
            return None
        tables.append(table)
    order = np.argsort(np.argsort(piece_V, kind="stable"), kind="stable")
    try:
        table = pa.concat_tables(tables, promote_options="default") if names and tables else pa.table({})
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None
    return [_as_numbers(column)[order] for column in table.columns]


def _compared(piece: Piece, names: list[str], places: Places) -> pa.Table | None:
    """Read columns of some rows of a file in forms that compare as Spark's do; None if there is one that does not."""
    kinds = {name: type_in(piece.file.schema, (name,)) for name in names}
    forms = {name: _form(kind) for name, kind in kinds.items() if kind is not None}
    if None in forms.values():
        return None
    read = piece.file.columns(forms)
    columns = {name: pa.chunked_array([pa.nulls(len(places))]) for name in names}
    try:
        columns |= {name: decoded(read[name].take(pa.array(places))).cast(form) for name, form in forms.items()}
    except pa.ArrowInvalid:
        return None
    return pa.table(columns)


def _form(kind: pa.DataType) -> pa.DataType | None:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if is_text(kind):
        return pa.string()
    if is_integer(kind):
        return pa.int64()
    if kind in (pa.float32(), pa.float64()):
        return pa.float64()
    if pa.types.is_timestamp(kind):
        return None if kind.unit == "ns" else pa.timestamp("us")
    return kind if pa.types.is_boolean(kind) or pa.types.is_date(kind) or pa.types.is_decimal(kind) else None


def _as_numbers(column: pa.ChunkedArray) -> Any:
    """Number values so that equal ones have one number; null equals null, NaN equals NaN."""
    whole = combined(column)
    if whole.type == pa.float64():
        values = whole.to_numpy(zero_copy_only=False)
        is_null = whole.is_null().to_numpy(zero_copy_only=False)
        return _numbered([values, is_null])
    if whole.type == pa.null():
        return np.zeros(len(whole), np.int64)
    return whole.dictionary_encode().indices.fill_null(-1).to_numpy()


def _numbered(columns: list[Any]) -> Places:
    """Number rows of several columns so that equal rows have one number, from 0."""
    number = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values, code = np.unique(column, return_inverse=True)
        number = np.unique(number * len(values) + code, return_inverse=True)[1]
    return number


def _repeated(hash_V: Hashes) -> NDArray[np.bool_]:
    """Say which values occur more than once."""
    order = np.argsort(hash_V)
    same = hash_V[order][1:] == hash_V[order][:-1]
    repeated = np.empty(len(hash_V), np.bool_)
    repeated[order] = np.append(same, False) | np.append(False, same)
    return repeated


def _codes(coded: pa.DictionaryArray) -> Coded:
    indices = coded.indices.fill_null(-1) if coded.null_count else coded.indices
    return Coded(indices.to_numpy(), coded.dictionary)
