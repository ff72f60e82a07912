"""Activity tiles of plain Parquet files without Spark: the same as ``tile_rows.tiles_of`` makes, several times as fast.

A task reads files itself and makes each of their days' tiles on its own. What it cannot do exactly as Spark does, it
does not do: such a day has no tiles here, and goes the general way.
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
from userrep.tiles.arrow_rows import Coded, DayRows, Places, only_once
from userrep.tiles.by_spark import PARTS_OF_DAY
from userrep.tiles.column_paths import LogColumns
from userrep.tiles.inventory.footers import latest_time
from userrep.utc import DAY_US, day_number

MOST_ROWS = 4_000_000  # of a file, and of a day: what one task may hold at a time
_MAP = pa.map_(pa.string(), pa.int64())
TILES = pa.schema(
    [("user_bucket", pa.int32()), ("user_id", pa.string()), ("item_id", pa.string()), ("event_type", pa.string()),
     ("num_events", pa.int32()), ("weight", pa.float64()), ("last_event_at", pa.timestamp("us", "UTC")),
     *((part, pa.int32()) for part in PARTS_OF_DAY), ("num_by_context", _MAP)]
)  # fmt: skip


class DayTiles(NamedTuple):
    """A day's tiles, one row per user, item and event type, sorted by user_bucket, user_id, item_id, event_type.

    ``tiles`` : None for a day that needs Spark; its numbers are those of the rows that could be read. ``num_rows``:
    the day's rows in the files, copies and rejected ones included.
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
    """Make the tiles of some days from all the files that hold rows of them, in the order of days.

    The rows of ``erased`` users are as if they were not in the log. ``folder_days``: of a log in partitions by event
    date, the day of each file's folder.

    A day needs Spark if one of its files has a mapped column in another type than the log (or under another case of its
    name, or in a folder's name), if the latest rows of one event id differ in a mapped column, or if rows that seem
    to be copies, without an event id, have columns that cannot be compared here; in partitions also if a file has rows
    of other days or without one, or more than a task should hold. Rows without a day are passed over.

    Cost: one thread; memory for the rows of one file and of the days that are not complete yet. Of a day whose
    weights add up to 2**44 or more, sums may depend on the order of rows, as Spark's do.
    """
    latest = latest_time()
    numbers = {day_number(day): day for day in sorted(days)}
    wanted = frozenset(numbers)
    general: list[range] = []
    if folder_days is None:
        files = [log_file(path, columns, wanted) for path in paths]
    else:
        files, general = _of_folders({path: day_number(folder_days[path]) for path in paths}, columns)
    files = sorted((file for file in files if file.groups), key=lambda file: file.days.start, reverse=True)
    waiting: dict[int, list[Piece]] = defaultdict(list)
    for number, day in numbers.items():
        while files and files[-1].days.start <= number:
            file = files.pop()
            pieces = pieces_by_day(file, columns, wanted, latest) if file.is_readable else None
            if folder_days is not None and _num_rows(pieces) < file.metadata.num_rows:
                pieces = None
            if pieces is None:
                general.append(file.days)
            for held, piece in (pieces or {}).items():
                waiting[held].append(piece)
        needs_spark = any(number in days for days in general)
        yield _day_tiles(day, waiting.pop(number, []), columns, erased, needs_spark=needs_spark)


def _of_folders(numbers: Mapping[str, int], columns: LogColumns) -> tuple[list[LogFile], list[range]]:
    """Open files by their footers; return those of days of which no file has other rows, and the other days."""
    files: dict[int, list[LogFile]] = defaultdict(list)
    general = set()
    for path, number in numbers.items():
        try:
            file = log_file(path, columns, frozenset([number]))
        except (OSError, pa.ArrowInvalid):  # Spark says what is wrong with it
            general.add(number)
            continue
        files[number].append(file)
        is_whole = len(file.groups) == file.metadata.num_row_groups and file.days == range(number, number + 1)
        if file.metadata.num_rows and not is_whole:
            general.add(number)
    general |= {day for day, of in files.items() if sum(file.metadata.num_rows for file in of) > MOST_ROWS}
    own = [file for day, of in files.items() if day not in general for file in of]
    return own, [range(day, day + 1) for day in general]


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
        valid_V = valid_V[~erased.hold(user.words)[user.code_N[valid_V]]]
    once = None if needs_spark else only_once(rows, valid_V, columns)
    tiles = None if once is None else _tiles(rows, once, columns)
    return DayTiles(day, tiles, num_rows, num_rejected)


def _tiles(rows: DayRows, rows_V: Places, columns: LogColumns) -> pa.Table | None:
    """Aggregate rows; None if there are so many users, items and types that their numbers don't fit into 64 bits."""
    if not len(rows_V):
        return TILES.empty_table()
    user, item = (_in_use(rows.texts[name], rows_V) for name in ("user_id", "item_id"))
    kind = _in_use(rows.texts["event_type"], rows_V) if "event_type" in rows.texts else None
    bucket_U = bucket_of(user.words)
    item_rank, kind_rank = _ranks(item.words), None if kind is None else _ranks(kind.words)
    user_rank, num_ranks = _ranks_of_users(bucket_U, user.words)
    if num_ranks * len(item_rank) * (1 if kind_rank is None else len(kind_rank)) >= 2**63:
        return None
    key_V = user_rank[user.code_N] * len(item_rank) + item_rank[item.code_N]
    if kind is not None and kind_rank is not None:
        key_V = key_V * len(kind_rank) + kind_rank[kind.code_N]
    order = np.argsort(key_V)
    key_V = key_V[order]
    start_T = np.flatnonzero(np.append(True, key_V[1:] != key_V[:-1]))
    first_T, tile_V = order[start_T], np.empty(len(order), np.int64)
    num_T = np.diff(start_T, append=len(order))
    tile_V[order] = np.repeat(np.arange(len(start_T)), num_T)
    at_V = rows.at_N[rows_V]
    part_V = at_V % DAY_US // (DAY_US // 4)
    parts = np.bincount(tile_V * 4 + part_V, minlength=4 * len(start_T)).reshape(-1, 4).astype(np.int32)
    types = pa.repeat(columns.fixed_type, len(start_T)) if kind is None else _taken(kind, first_T)
    values = [
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
    return pa.Table.from_arrays(values, schema=TILES)


def _in_use(coded: Coded, rows_V: Places) -> Coded:
    """Return the codes of some rows, into those words only that they have."""
    code_V = coded.code_N[rows_V]
    is_used = np.zeros(len(coded.words), np.bool_)
    is_used[code_V] = True
    if is_used.all():
        return Coded(code_V, coded.words)
    number = np.cumsum(is_used, dtype=np.int32) - 1
    return Coded(number[code_V], coded.words.filter(pa.array(is_used)))


def _ranks_of_users(bucket_U: NDArray[np.int32], user_ids: pa.Array) -> tuple[Places, int]:
    """Number users in the order of buckets, those of one bucket in that of their bytes, and say how many numbers."""
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
    most = int(within.max()) + 1
    rank_U = bucket_U.astype(np.int64) * most
    rank_U[shared] += within
    return rank_U, NUM_BUCKETS * most


def _ranks(words: pa.Array) -> Places:
    """Number distinct words in the order of their bytes."""
    rank = np.empty(len(words), np.int64)
    rank[pc.sort_indices(words).to_numpy()] = np.arange(len(words))
    return rank


def _taken(coded: Coded, rows_T: Places) -> pa.Array:
    return coded.words.take(pa.array(coded.code_N[rows_T]))


def _num_by_context(rows: DayRows, rows_V: Places, tile_V: Places, columns: LogColumns, num_tiles: int) -> Any:
    """Count each tile's words ``name=value``, sorted in its map."""
    if not columns.context:
        return pa.nulls(num_tiles, _MAP)
    words, codes, num_words = [], [], 0
    for k, name in enumerate(columns.context):
        coded = rows.texts[f"context_{k}"]
        values = pa.concat_arrays([coded.words, pa.array(["(null)"])])
        words.append(pc.binary_join_element_wise(pa.scalar(f"{name}="), values, ""))
        codes.append(np.where(coded.code_N < 0, len(coded.words), coded.code_N)[rows_V] + num_words)
        num_words += len(values)
    distinct = pa.concat_arrays(words).dictionary_encode()
    rank = _ranks(distinct.dictionary)
    word = rank[distinct.indices.to_numpy()][np.concatenate(codes)]
    entry, count = np.unique(np.tile(tile_V, len(codes)) * len(rank) + word, return_counts=True)
    ends = np.cumsum(np.bincount(entry // len(rank), minlength=num_tiles))
    keys = distinct.dictionary.take(pa.array(np.argsort(rank)[entry % len(rank)]))
    offsets = pa.array(np.append(0, ends).astype(np.int32))
    return pa.MapArray.from_arrays(offsets, keys, pa.array(count.astype(np.int64)))
