"""The rows of one day as a table, and the choice of valid rows without copies among them.

Columns of rows: the texts of ``LogColumns`` as dictionaries, ``at`` in microseconds and, if they are mapped,
``event_id`` and ``weight`` as in the log.

Columns of events, each of which counts once: user_id, item_id, event_type and ``context_K`` per context column of all
sources as dictionaries, ``at``, and ``weight``, rounded. A ``context_K`` is null if an event's source lacks the column.

Array suffixes: N rows of the day; V selected rows. ``rows_V`` and similar arrays contain indexes of rows of the day.
"""

from collections.abc import Sequence
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
from userrep.tiles.parquet_file import CODED, ParquetFile
from userrep.tiles.text_file import TextFile

LogFile = ParquetFile | TextFile
RowIndexes = NDArray[np.int64]


class Piece(NamedTuple):
    """Rows of one day in one file. ``index_N``: their positions among the rows that are read of the file."""

    rows: pa.Table
    file: LogFile
    index_N: RowIndexes


def codes_of(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], pa.Array]:
    """Return texts as codes into their distinct values, -1 for null, and these values."""
    coded = combined(column)
    indices = coded.indices.fill_null(-1) if coded.null_count else coded.indices
    return indices.to_numpy(), coded.dictionary


def rows_at(rows: Any, index_N: RowIndexes) -> Any:
    """Return some rows of a table or column; the table itself for all rows in order, since most days need no copy."""
    is_whole = len(index_N) == len(rows) and np.array_equal(index_N, np.arange(len(rows)))
    return rows if is_whole else rows.take(pa.array(index_N))


def concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """Concatenate tables. Raises NeedsSparkError if the types of a column differ."""
    try:
        return pa.concat_tables(tables, promote_options="default").combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise NeedsSparkError from None


def no_events(context: Sequence[str]) -> pa.Table:
    """Return a table of no events."""
    names = ("user_id", "item_id", "event_type", *(f"context_{k}" for k in range(len(context))))
    return pa.schema([*((name, CODED) for name in names), ("at", pa.int64()), ("weight", pa.float64())]).empty_table()


def valid_rows(rows: pa.Table) -> RowIndexes:
    """Return the rows that ``with_validity`` accepts, apart from its checks of the time."""
    valid_N = ~(_is_blank(*codes_of(rows["user_id"])) | _is_blank(*codes_of(rows["item_id"])))
    if "event_type" in rows.column_names:
        valid_N &= rows["event_type"].is_valid().to_numpy()
    if "weight" in rows.column_names:
        valid_N &= is_weight(rows["weight"]).to_numpy()
    return np.flatnonzero(valid_N)


def events_of(rows: pa.Table, rows_V: RowIndexes, columns: LogColumns, context: Sequence[str]) -> pa.Table:
    """Return valid rows as events. ``context``: the context columns of all sources."""
    kept = _mapped(rows, rows_V)
    events = {name: _in_use(kept[name]) for name in ("user_id", "item_id")}
    if "event_type" in kept.column_names:
        events["event_type"] = _in_use(kept["event_type"])
    else:
        events["event_type"] = pa.repeat(columns.fixed_type, len(rows_V)).dictionary_encode()
    for k, name in enumerate(context):
        events[f"context_{k}"] = pa.nulls(len(rows_V), CODED)
        if name in columns.context:
            code_V, values = codes_of(kept[f"context_{columns.context.index(name)}"])
            code_V = np.where(code_V < 0, len(values), code_V)
            values = pa.concat_arrays([values, pa.array(["(null)"])])
            events[f"context_{k}"] = pa.DictionaryArray.from_arrays(pa.array(code_V, pa.int32()), values)
    return pa.table(events | {"at": kept["at"], "weight": kept["weight"]})


def without_copies(rows: pa.Table, pieces: Sequence[Piece], valid_V: RowIndexes, columns: LogColumns) -> RowIndexes:
    """Return one row of each event among some of the rows of ``pieces``.

    Of rows with the same event id, the latest is kept; of rows without one (null, empty or only spaces), one of those
    that are equal in all columns. Raises NeedsSparkError if the mapped columns do not decide which row to keep, or if
    columns cannot be compared here.
    """
    if "event_id" not in rows.column_names:
        return _distinct_rows(rows, pieces, valid_V, columns)
    ids = rows_at(rows["event_id"], valid_V)
    code_V, values = codes_of((ids.cast(pa.string()) if ids.type == pa.null() else ids).dictionary_encode())
    has_id = ~_is_blank(code_V, values) if pa.types.is_string(values.type) else code_V >= 0
    latest = _latest(rows, valid_V[has_id], code_V[has_id])
    if has_id.all():
        return latest
    distinct = _distinct_rows(rows, pieces, valid_V[~has_id], columns, code_V[~has_id])
    return np.sort(np.concatenate([latest, distinct]))


def _is_blank(code_N: NDArray[np.int32], values: pa.Array) -> NDArray[np.bool_]:
    """Return which of some texts, by their codes, are null, empty or only spaces."""
    blank = np.append(is_blank(values).to_numpy(zero_copy_only=False), True)  # the last for null, code -1
    return np.asarray(blank[code_N])


def _mapped(rows: pa.Table, rows_V: RowIndexes) -> pa.Table:
    """Return some rows without event ids. Weights are multiples of 1/256, without negative zeros; 1 by default."""
    kept = rows_at(rows.select([name for name in rows.column_names if name != "event_id"]), rows_V)
    if "weight" not in kept.column_names:
        return kept.append_column("weight", pa.array(np.ones(len(rows_V))))
    weight_V = np.rint(kept["weight"].to_numpy() * WEIGHT_UNIT) / WEIGHT_UNIT + 0.0
    return kept.drop_columns("weight").append_column("weight", pa.array(weight_V))


def _latest(rows: pa.Table, rows_V: RowIndexes, code_V: NDArray[np.int32]) -> RowIndexes:
    """Return the latest row of each code. Raises NeedsSparkError if a code has several latest rows that differ."""
    has_copies = np.bincount(code_V)[code_V] > 1
    if not has_copies.any():
        return rows_V
    at_N = rows["at"].to_numpy()
    copies, code = rows_V[has_copies], code_V[has_copies]
    order = np.lexsort((at_N[copies], code))
    copies, code = copies[order], code[order]
    is_last = np.append(code[1:] != code[:-1], True)
    kept = copies[is_last]
    last = np.repeat(kept, np.diff(np.flatnonzero(is_last), prepend=-1))
    is_tied = at_N[copies] == at_N[last]
    if not _mapped(rows, copies[is_tied]).equals(_mapped(rows, last[is_tied])):
        raise NeedsSparkError
    has_copies[has_copies] = np.isin(rows_V[has_copies], kept, invert=True)
    return rows_V[~has_copies]


def _distinct_rows(
    rows: pa.Table,
    pieces: Sequence[Piece],
    rows_V: RowIndexes,
    columns: LogColumns,
    id_V: NDArray[np.int32] | None = None,
) -> RowIndexes:
    """Return one of each set of rows that are equal in all columns.

    ``id_V``: codes of their event ids, all of them null or blank; None if the log has no event ids.
    Columns that are not mapped are read only for rows whose mapped columns are equal.
    """
    mapped: list[Any] = [codes_of(rows[name])[0][rows_V] for name in columns.texts]
    mapped += [rows["at"].to_numpy()[rows_V], *([] if id_V is None else [id_V])]
    if "weight" in rows.column_names:
        mapped.append(rows["weight"].to_numpy()[rows_V] + 0.0)
    hash_V = np.zeros(len(rows_V), np.uint64)
    for values in mapped:
        hash_V = mixed(hash_V) ^ (values if values.dtype == np.float64 else values.astype(np.int64)).view(np.uint64)
    alike = np.flatnonzero(_repeated(mixed(hash_V)))
    if not len(alike):
        return rows_V
    compared = [*(pa.array(values[alike]) for values in mapped), *_unmapped_columns(pieces, rows_V[alike])]
    names = [f"column_{k}" for k in range(len(compared))]  # the log's own names might be equal to "row"
    by_value = pa.table([*compared, pa.array(alike)], names=[*names, "row"]).group_by(names, use_threads=False)
    keep = np.ones(len(rows_V), np.bool_)
    keep[alike] = False
    keep[by_value.aggregate([("row", "min")])["row_min"].to_numpy()] = True
    return rows_V[keep]


def _unmapped_columns(pieces: Sequence[Piece], rows_V: RowIndexes) -> Sequence[pa.ChunkedArray]:
    """Read the columns ``unmapped`` of some rows, which are in ascending order. Raises NeedsSparkError."""
    starts = np.cumsum([0, *(piece.rows.num_rows for piece in pieces)])
    piece_V = np.searchsorted(starts, rows_V, side="right") - 1
    used = {int(k): pieces[k] for k in np.unique(piece_V)}
    if len({tuple(folders_of(piece.file.path).items()) for piece in used.values()}) > 1:
        raise NeedsSparkError  # rows may differ in a column that is stored only in the folders' names
    tables = [piece.file.comparable(piece.index_N[rows_V[piece_V == k] - starts[k]]) for k, piece in used.items()]
    return concatenated(tables).columns  # type: ignore[no-any-return]


def _repeated(hash_V: Hashes) -> NDArray[np.bool_]:
    """Return whether each value occurs more than once."""
    order = np.argsort(hash_V)
    same = hash_V[order][1:] == hash_V[order][:-1]
    repeated = np.empty(len(hash_V), np.bool_)
    repeated[order] = np.append(same, False) | np.append(False, same)
    return repeated


def _in_use(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return a column without nulls, with only the values that its rows have."""
    code_V, values = codes_of(column)
    is_used = np.zeros(len(values), np.bool_)
    is_used[code_V] = True
    if is_used.all():
        return combined(column)
    new_code = np.cumsum(is_used, dtype=np.int32) - 1
    return pa.DictionaryArray.from_arrays(pa.array(new_code[code_V]), values.filter(pa.array(is_used)))
