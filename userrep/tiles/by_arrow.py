"""Activity tiles from plain Parquet files without Spark: the tiles of ``by_spark.tiles_of``, several times as fast.

A task reads the files itself and builds the tiles of each of their days. A day for which the result might differ from
Spark's gets no tiles here and is left to Spark.

Array suffixes: N rows of a day; V selected rows; T tiles; U users.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from userrep.sources.tombstones import NOBODY, Tombstones
from userrep.store.buckets import NUM_BUCKETS
from userrep.store.xxhash import bucket_of
from userrep.tiles.arrow_reader import LogFile, Piece, log_file, pieces_by_day
from userrep.tiles.arrow_rows import Coded, DayRows, RowIndexes, without_copies
from userrep.tiles.by_spark import PARTS_OF_DAY
from userrep.tiles.column_paths import LogColumns
from userrep.tiles.inventory.footers import latest_time
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
    erased: Tombstones = NOBODY,
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
    latest = latest_time()
    numbers = {day_number(day): day for day in sorted(days)}
    wanted = frozenset(numbers)
    spark_days: list[range] = []
    if folder_days is None:
        files = [log_file(path, columns, wanted) for path in paths]
    else:
        files, spark_days = _files_of_folders({path: day_number(folder_days[path]) for path in paths}, columns)
    files = sorted((file for file in files if file.groups), key=lambda file: file.days.start, reverse=True)
    waiting: dict[int, list[Piece]] = defaultdict(list)
    for number, day in numbers.items():
        while files and files[-1].days.start <= number:
            file = files.pop()
            pieces = pieces_by_day(file, columns, wanted, latest) if file.is_readable else None
            if folder_days is not None and _num_rows(pieces) < file.metadata.num_rows:
                pieces = None
            if pieces is None:
                spark_days.append(file.days)
            for piece_day, piece in (pieces or {}).items():
                waiting[piece_day].append(piece)
        needs_spark = any(number in span for span in spark_days)
        yield _day_tiles(day, waiting.pop(number, []), columns, erased, needs_spark=needs_spark)


def _files_of_folders(numbers: Mapping[str, int], columns: LogColumns) -> tuple[list[LogFile], list[range]]:
    """Open the files of a partitioned log; return those of days whose files have no rows of other days, and other days.

    ``numbers``: the day of each path.
    """
    files_by_day: dict[int, list[LogFile]] = defaultdict(list)
    spark_days = set()
    for path, number in numbers.items():
        try:
            file = log_file(path, columns, frozenset([number]))
        except (OSError, pa.ArrowInvalid):  # Spark's error message is more helpful
            spark_days.add(number)
            continue
        files_by_day[number].append(file)
        is_whole = len(file.groups) == file.metadata.num_row_groups and file.days == range(number, number + 1)
        if file.metadata.num_rows and not is_whole:
            spark_days.add(number)
    spark_days |= {
        day for day, files in files_by_day.items() if sum(file.metadata.num_rows for file in files) > MAX_ROWS
    }
    readable = [file for day, files in files_by_day.items() if day not in spark_days for file in files]
    return readable, [range(day, day + 1) for day in spark_days]


def _num_rows(pieces: Mapping[int, Piece] | None) -> int:
    return sum(piece.rows.num_rows for piece in (pieces or {}).values())


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
        valid_V = valid_V[~erased.hold(user.values)[user.code_N[valid_V]]]
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
    item_rank, type_rank = _ranks(item.values), None if event_type is None else _ranks(event_type.values)
    user_rank, num_ranks = _ranks_of_users(bucket_U, user.values)
    if num_ranks * len(item_rank) * (1 if type_rank is None else len(type_rank)) >= 2**63:
        return None
    key_V = user_rank[user.code_N] * len(item_rank) + item_rank[item.code_N]
    if event_type is not None and type_rank is not None:
        key_V = key_V * len(type_rank) + type_rank[event_type.code_N]
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


def _ranks_of_users(bucket_U: NDArray[np.int32], user_ids: pa.Array) -> tuple[RowIndexes, int]:
    """Rank users by bucket, then by the bytes of their ids; return the ranks, and a bound above all of them."""
    numbers = np.arange(len(bucket_U), dtype=np.int32)
    holder = np.zeros(NUM_BUCKETS, np.int32)
    holder[bucket_U] = numbers
    is_shared = np.zeros(NUM_BUCKETS, np.bool_)
    is_shared[bucket_U[holder[bucket_U] != numbers]] = True
    shared = np.flatnonzero(is_shared[bucket_U])
    if not len(shared):
        return bucket_U.astype(np.int64), NUM_BUCKETS
    shared = shared[pc.sort_indices(user_ids.take(pa.array(shared))).to_numpy()]
    shared = shared[np.argsort(bucket_U[shared], kind="stable")]
    bucket = bucket_U[shared]
    is_first = np.append(True, bucket[1:] != bucket[:-1])
    within = np.arange(len(shared)) - np.maximum.accumulate(np.where(is_first, np.arange(len(shared)), 0))
    max_users = int(within.max()) + 1
    rank_U = bucket_U.astype(np.int64) * max_users
    rank_U[shared] += within
    return rank_U, NUM_BUCKETS * max_users


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
