"""Activity tiles from plain Parquet files without Spark: the tiles of ``by_spark.tiles_of``, several times as fast.

A task reads the files itself and builds the tiles of each of their days. A day for which the result might differ from
Spark's gets no tiles here and is left to Spark.

Array suffixes: N rows of a day; V selected rows; T tiles; U users.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from userrep.sources.tombstones import NO_TOMBSTONES, Tombstones
from userrep.store.xxhash import bucket_of
from userrep.tiles.arrow_reader import LogFile, Piece, log_file, pieces_by_day
from userrep.tiles.arrow_rows import Coded, DayRows, RowIndexes, without_copies
from userrep.tiles.by_spark import PARTS_OF_DAY
from userrep.tiles.column_paths import LogColumns
from userrep.utc import DAY_US, day_number

MAX_ROWS = 4_000_000  # of a file and of a day: what a task may hold in memory
_MAP = pa.map_(pa.string(), pa.int64())
TILES = pa.schema(
    [("user_bucket", pa.int32()), ("user_id", pa.string()), ("item_id", pa.string()), ("event_type", pa.string()),
     ("num_events", pa.int32()), ("weight", pa.float64()), ("last_event_at", pa.timestamp("us", "UTC")),
     *((part, pa.int32()) for part in PARTS_OF_DAY), ("num_by_context", _MAP)]
)  # fmt: skip


class DayTiles(NamedTuple):
    """A day's tiles, one row per user, item and event type, sorted by user_bucket, user_id, item_id, event_type.

    ``tiles`` : None if the day needs Spark; the counts then cover only the rows that could be read. ``num_rows``: the
    day's rows in the files, including copies and rejected rows.
    """

    day: date
    tiles: pa.Table | None
    num_rows: int
    num_rejected: int


def tiles_of_files(
    paths: Sequence[str],
    days: Collection[date],
    columns: LogColumns,
    erased: Tombstones = NO_TOMBSTONES,
    *,
    folder_days: Mapping[str, date] | None = None,
) -> Iterator[DayTiles]:
    """Build the tiles of some days from all files with rows of these days; yield them in the order of days.

    Rows of ``erased`` users are ignored. ``folder_days``: for a log that is partitioned by event date, the day of each
    file's folder. Rows without a day are ignored.

    A day needs Spark if

    - one of its files has a mapped column in another type than the log, in other case, or in a folder's name;
    - the latest rows of an event id differ in a mapped column;
    - rows without an event id look like copies, but have columns that cannot be compared here;
    - in a partitioned log, its files contain rows of other days or without a day, or more than ``MAX_ROWS`` rows.

    Cost: one thread; memory for the rows of one file and of the days that are not complete yet. If the weights of a
    day add up to 2**44 or more, sums may depend on the order of rows, as in Spark.
    """
    numbers = {day_number(day): day for day in sorted(days)}
    if folder_days:
        days_of = {path: frozenset([day_number(folder_days[path])]) for path in paths}
    else:
        days_of = dict.fromkeys(paths, frozenset(numbers))
    files, spark_days = _opened(days_of, columns, is_partitioned=folder_days is not None)
    files.sort(key=lambda file: file.span.start, reverse=True)
    waiting: dict[int, list[Piece]] = defaultdict(list)
    for number, day in numbers.items():
        while files and files[-1].span.start <= number:
            file = files.pop()
            pieces = pieces_by_day(file, columns)
            num_rows = sum(piece.rows.num_rows for piece in (pieces or {}).values())
            if pieces is None or (folder_days is not None and num_rows < file.metadata.num_rows):
                pieces = {}
                spark_days.update(wanted for wanted in file.days if wanted in file.span)
            for piece_day, piece in pieces.items():
                waiting[piece_day].append(piece)
        yield _day_tiles(day, waiting.pop(number, []), columns, erased, needs_spark=number in spark_days)


def _opened(
    days_of: Mapping[str, frozenset[int]], columns: LogColumns, *, is_partitioned: bool
) -> tuple[list[LogFile], set[int]]:
    """Open the files that have rows of the days to read of them; return them, and the days that need Spark.

    In a partitioned log, a file whose footer shows rows of other days than its folder's is not returned.
    """
    files, spark_days, num_rows = [], set[int](), Counter[int]()
    for path, days in days_of.items():
        try:
            file = log_file(path, columns, days)
        except (OSError, pa.ArrowInvalid):  # Spark's error message is more helpful
            spark_days.update(days)
            continue
        if file.groups:
            files.append(file)
        if is_partitioned:
            num_rows.update(dict.fromkeys(days, file.metadata.num_rows))
            if file.metadata.num_rows and not _has_only_its_day(file):
                spark_days.update(days)
    spark_days.update(day for day, num in num_rows.items() if num > MAX_ROWS)
    return [file for file in files if not file.days <= spark_days], spark_days


def _has_only_its_day(file: LogFile) -> bool:
    """Return whether a file to read one day of has no rows of other days. Rows without a time are not seen here."""
    (day,) = file.days
    return len(file.groups) == file.metadata.num_row_groups and file.span == range(day, day + 1)


def _day_tiles(
    day: date, pieces: list[Piece], columns: LogColumns, erased: Tombstones, *, needs_spark: bool
) -> DayTiles:
    num_rows = sum(piece.rows.num_rows for piece in pieces)
    if not num_rows:
        return DayTiles(day, None if needs_spark else TILES.empty_table(), 0, 0)
    rows = DayRows.of(pieces, columns)
    if rows is None:
        return DayTiles(day, None, num_rows, 0)
    valid_V = rows.valid()
    num_rejected = num_rows - len(valid_V)
    if erased:
        user = rows.texts["user_id"]
        valid_V = valid_V[~erased.mask(user.values)[user.code_N[valid_V]]]
    unique_V = None if needs_spark else without_copies(rows, valid_V, columns)
    tiles = None if unique_V is None else _tiles(rows, unique_V, columns)
    return DayTiles(day, tiles, num_rows, num_rejected)


def _tiles(rows: DayRows, rows_V: RowIndexes, columns: LogColumns) -> pa.Table | None:
    """Aggregate rows. None if the combinations of users, items and event types cannot be numbered in 64 bits."""
    if not len(rows_V):
        return TILES.empty_table()
    user, item = (_in_use(rows.texts[name], rows_V) for name in ("user_id", "item_id"))
    event_type = _in_use(rows.texts["event_type"], rows_V) if "event_type" in rows.texts else None
    bucket_U = bucket_of(user.values)
    key_V = _sort_keys(bucket_U, user, item, event_type)
    if key_V is None:
        return None
    order = np.argsort(key_V)
    key_V = key_V[order]
    start_T = np.flatnonzero(np.append(True, key_V[1:] != key_V[:-1]))
    first_T, tile_V = order[start_T], np.empty(len(order), np.int64)
    num_T = np.diff(start_T, append=len(order))
    tile_V[order] = np.repeat(np.arange(len(start_T)), num_T)
    at_V = rows.at_N[rows_V]
    part_V = at_V % DAY_US // (DAY_US // 4)
    parts = np.bincount(tile_V * 4 + part_V, minlength=4 * len(start_T)).reshape(-1, 4).astype(np.int32)
    types = pa.repeat(columns.fixed_type, len(start_T)) if event_type is None else _taken(event_type, first_T)
    arrays = [
        pa.array(bucket_U[user.code_N[first_T]]),
        _taken(user, first_T),
        _taken(item, first_T),
        types,
        pa.array(num_T.astype(np.int32)),
        pa.array(np.bincount(tile_V, weights=rows.rounded(rows_V), minlength=len(start_T))),
        pa.array(np.maximum.reduceat(at_V[order], start_T)).cast(TILES.field("last_event_at").type),
        *(pa.array(part) for part in parts.T.copy()),
        _num_by_context(rows, rows_V, tile_V, columns, len(start_T)),
    ]
    return pa.Table.from_arrays(arrays, schema=TILES)


def _sort_keys(bucket_U: NDArray[np.int32], user: Coded, item: Coded, event_type: Coded | None) -> RowIndexes | None:
    """Return one number per row that sorts as (bucket, user, item, event type) do; None if 64 bits are too few."""
    coded = [item] if event_type is None else [item, event_type]
    if math.prod(len(column.values) for column in (user, *coded)) >= 2**63:
        return None
    key_V = _ranks_of_users(bucket_U, user.values)[user.code_N]
    for column in coded:
        key_V = key_V * len(column.values) + _ranks(column.values)[column.code_N]
    return key_V


def _in_use(coded: Coded, rows_V: RowIndexes) -> Coded:
    """Return the codes of some rows, with only the values that these rows have."""
    code_V = coded.code_N[rows_V]
    is_used = np.zeros(len(coded.values), np.bool_)
    is_used[code_V] = True
    if is_used.all():
        return Coded(code_V, coded.values)
    new_code = np.cumsum(is_used, dtype=np.int32) - 1
    return Coded(new_code[code_V], coded.values.filter(pa.array(is_used)))


def _ranks_of_users(bucket_U: NDArray[np.int32], user_ids: pa.Array) -> RowIndexes:
    """Rank users by bucket, then by the bytes of their ids. Sorts texts only of users who share a bucket."""
    shared = np.flatnonzero(np.bincount(bucket_U)[bucket_U] > 1)
    within_U = np.zeros(len(bucket_U), np.int64)
    within_U[shared] = _ranks(user_ids.take(pa.array(shared)))
    order = np.argsort(bucket_U * np.int64(len(shared) + 1) + within_U)
    rank_U = np.empty_like(order)
    rank_U[order] = np.arange(len(order))
    return rank_U


def _ranks(texts: pa.Array) -> RowIndexes:
    """Rank distinct texts by their bytes."""
    rank = np.empty(len(texts), np.int64)
    rank[pc.sort_indices(texts).to_numpy()] = np.arange(len(texts))
    return rank


def _taken(coded: Coded, rows_T: RowIndexes) -> pa.Array:
    return coded.values.take(pa.array(coded.code_N[rows_T]))


def _num_by_context(rows: DayRows, rows_V: RowIndexes, tile_V: RowIndexes, columns: LogColumns, num_tiles: int) -> Any:
    """Count the context keys ``name=value`` of each tile, as a map sorted by key."""
    if not columns.context:
        return pa.nulls(num_tiles, _MAP)
    keys_by_column, codes, num_keys = [], [], 0
    for k, name in enumerate(columns.context):
        coded = rows.texts[f"context_{k}"]
        values = pa.concat_arrays([coded.values, pa.array(["(null)"])])
        keys_by_column.append(pc.binary_join_element_wise(pa.scalar(f"{name}="), values, ""))
        codes.append(np.where(coded.code_N < 0, len(coded.values), coded.code_N)[rows_V] + num_keys)
        num_keys += len(values)
    distinct = pa.concat_arrays(keys_by_column).dictionary_encode()
    rank = _ranks(distinct.dictionary)
    rank_by_row = rank[distinct.indices.to_numpy()][np.concatenate(codes)]
    entry, count = np.unique(np.tile(tile_V, len(codes)) * len(rank) + rank_by_row, return_counts=True)
    ends = np.cumsum(np.bincount(entry // len(rank), minlength=num_tiles))
    keys = distinct.dictionary.take(pa.array(np.argsort(rank)[entry % len(rank)]))
    offsets = pa.array(np.append(0, ends).astype(np.int32))
    return pa.MapArray.from_arrays(offsets, keys, pa.array(count.astype(np.int64)))
