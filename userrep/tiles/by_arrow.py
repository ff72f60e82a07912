"""Activity tiles from plain files without Spark: the tiles of ``by_spark.tiles_of``, several times as fast.

A task reads the files itself and builds the tiles of each of their days. A day for which the result might differ from
Spark's gets no tiles here and is left to Spark.

Array suffixes: N events of a day; T tiles; U users.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from userrep.sources.tombstones import NO_TOMBSTONES, Tombstones
from userrep.store.xxhash import bucket_of
from userrep.tiles.arrow_rows import RowIndexes, codes_of, concatenated
from userrep.tiles.by_spark import PARTS_OF_DAY
from userrep.tiles.day_events import SourceFiles, events_of_files
from userrep.tiles.parquet_file import CODED
from userrep.utc import DAY_US

_KEYS = ["user_id", "item_id", "event_type"]
_MAP = pa.map_(pa.string(), pa.int64())
TILES = pa.schema(
    [("user_bucket", pa.int32()), ("user_id", CODED), ("item_id", CODED), ("event_type", CODED),
     ("num_events", pa.int32()), ("weight", pa.float64()), ("last_event_at", pa.timestamp("us", "UTC")),
     *((part, pa.int32()) for part in PARTS_OF_DAY), ("num_by_context", _MAP)]
)  # fmt: skip


class DayTiles(NamedTuple):
    """A day's tiles, one row per user, item and event type, sorted by user_bucket, user_id, item_id, event_type.

    ``tiles`` : None if the day needs Spark, which then also counts the rejected rows.
    """

    day: date
    tiles: pa.Table | None
    num_rejected: int


def tiles_of_files(sources: Sequence[SourceFiles], erased: Tombstones = NO_TOMBSTONES) -> Iterator[DayTiles]:
    """Build the tiles of some days from all files with rows of these days; yield them in the order of days.

    Rows of ``erased`` users and rows without a day are ignored. Rows of two sources are never copies of each other.

    A day needs Spark if

    - one of its files has a mapped column in another type than the log, in other case, or in a folder's name;
    - one of its files has lines of JSON or CSV that Spark may read differently (``text_rows``);
    - the latest rows of an event id differ in a mapped column;
    - rows without an event id look like copies, but have columns that cannot be compared here;
    - in a partitioned log, its files contain rows of other days or without a day, or more than ``MAX_ROWS`` rows.

    Cost: one thread; memory for the rows of one file and of the days that are not complete yet. If the weights of a
    day add up to 2**44 or more, sums may depend on the order of rows, as in Spark.
    """
    context = list(dict.fromkeys(name for source in sources for name in source.columns.context))
    days = sorted({day for source in sources for days in source.days_by_path.values() for day in days})
    by_source = [events_of_files(source, days, context, erased) for source in sources]
    for day, *parts in zip(days, *by_source, strict=True):
        built = [part for part in parts if part is not None]
        tiles = _tiles(concatenated([part.events for part in built]), context) if len(built) == len(parts) else None
        yield DayTiles(day, tiles, sum(part.num_rejected for part in built) if tiles is not None else 0)


def _tiles(events: pa.Table, context: Sequence[str]) -> pa.Table | None:
    """Aggregate events. None if the combinations of users, items and event types cannot be numbered in 64 bits."""
    if not events.num_rows:
        return TILES.empty_table()
    (user_N, users), (item_N, items), (type_N, types) = (codes_of(events[name]) for name in _KEYS)
    if math.prod(map(len, (users, items, types))) >= 2**63:
        return None
    bucket_U = bucket_of(users)
    key_N = _ranks_of_users(bucket_U, users)[user_N] * len(items) + _ranks(items)[item_N]
    key_N = key_N * len(types) + _ranks(types)[type_N]
    order = np.argsort(key_N)
    key_N = key_N[order]
    start_T = np.flatnonzero(np.append(True, key_N[1:] != key_N[:-1]))
    first_T, tile_N = order[start_T], np.empty(len(order), np.int64)
    num_T = np.diff(start_T, append=len(order))
    tile_N[order] = np.repeat(np.arange(len(start_T)), num_T)
    at_N = events["at"].to_numpy()
    part_N = at_N % DAY_US // (DAY_US // 4)
    parts = np.bincount(tile_N * 4 + part_N, minlength=4 * len(start_T)).reshape(-1, 4).astype(np.int32)
    columns = [
        pa.array(bucket_U[user_N[first_T]]),
        *events.select(_KEYS).take(pa.array(first_T)).columns,
        pa.array(num_T.astype(np.int32)),
        pa.array(np.bincount(tile_N, weights=events["weight"].to_numpy(), minlength=len(start_T))),
        pa.array(np.maximum.reduceat(at_N[order], start_T)).cast(TILES.field("last_event_at").type),
        *(pa.array(part) for part in parts.T.copy()),
        _num_by_context(events, context, tile_N, len(start_T)),
    ]
    return pa.Table.from_arrays(columns, schema=TILES)


def _ranks_of_users(bucket_U: NDArray[np.int32], user_ids: pa.Array) -> RowIndexes:
    """Rank users by bucket, then by the bytes of their ids. Sorts texts only of users who share a bucket."""
    shared = np.flatnonzero(np.bincount(bucket_U)[bucket_U] > 1)
    within_U = np.zeros(len(bucket_U), np.int64)
    within_U[shared] = _ranks(user_ids.take(pa.array(shared)))
    return _ranks(pa.array(bucket_U * np.int64(len(shared) + 1) + within_U))


def _ranks(values: pa.Array) -> RowIndexes:
    """Return the rank of each of some distinct values, from 0; texts are in the order of their bytes."""
    return np.asarray(pc.rank(values).to_numpy().astype(np.int64) - 1)


def _num_by_context(events: pa.Table, context: Sequence[str], tile_N: RowIndexes, num_tiles: int) -> Any:
    """Count the context keys ``name=value`` of each tile, as a map sorted by key."""
    if not context:
        return pa.nulls(num_tiles, _MAP)
    keys_by_column, codes, num_keys = [], [], 0
    for k, name in enumerate(context):
        code_N, values = codes_of(events[f"context_{k}"])
        keys_by_column.append(pc.binary_join_element_wise(pa.scalar(f"{name}="), values, ""))
        codes.append(np.where(code_N < 0, -1, code_N + num_keys))
        num_keys += len(values)
    distinct = pa.concat_arrays(keys_by_column).dictionary_encode()
    rank = _ranks(distinct.dictionary)
    code, tile = np.concatenate(codes), np.tile(tile_N, len(codes))
    has_key = code >= 0  # not in a source without the column
    rank_by_row = rank[distinct.indices.to_numpy()][code[has_key]]
    entry, count = np.unique(tile[has_key] * len(rank) + rank_by_row, return_counts=True)
    ends = np.cumsum(np.bincount(entry // len(rank), minlength=num_tiles))
    keys = distinct.dictionary.take(pa.array(np.argsort(rank)[entry % len(rank)]))
    offsets = pa.array(np.append(0, ends).astype(np.int32))
    return pa.MapArray.from_arrays(offsets, keys, pa.array(count.astype(np.int64)))
