"""Blocks of users: the rows of a chunk as NumPy arrays, the input of the sums."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse
from numpy.typing import NDArray

from userrep.features.spec import FeatureSpec
from userrep.features.sums.accumulate import NEVER, Flags, Floats, Ints, Sums, Tiles, num_sums
from userrep.features.sums.chunk import CONTEXT, PARTS, Chunk, ItemCodes
from userrep.store.arrow import combined, one_batch, unpacked
from userrep.utc import DAY_US

_BLOCK_BYTES = 2**23  # of sums in memory at a time
_PAIRS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.int64())]))  # a map, for kernels without maps


class BlockProfiles(NamedTuple):
    """Profiles of a block's users. ``by_user``: a row for each user, nulls without a profile."""

    by_user: pa.RecordBatch
    is_stored_U: Flags
    registered_at_U: Ints  # microseconds since 1970; NEVER if unknown
    pick_user_P: Ints
    picked_at_P: Ints
    pick_items: ItemCodes


class UserBlock(NamedTuple):
    """A block of users in the order of their buckets, with their rows of each kind."""

    user_ids: pa.Array
    user_bucket_U: NDArray[np.int32]
    tiles: Tiles
    tile_items: ItemCodes
    profiles: BlockProfiles
    sums_rows: "SumsRows"
    context_keys: pa.Array


class SumsRows(NamedTuple):
    """Stored sums of a block's users. A user may have several rows, which add up.

    ``flat_NS``: S sums; for partial sums by item, followed by X sums of picks.
    """

    user_N: Ints
    day_N: Ints
    flat_NS: Floats
    active: pa.ListArray
    context_NK: scipy.sparse.csr_array

    def summed(self, spec: FeatureSpec, num_users: int, days: range, as_of_day: int) -> Sums:
        """Add up the rows of one as-of date. ``days``: the days covered by ``last_at_UT``."""
        rows = np.flatnonzero(self.day_N == as_of_day)
        user_N = self.user_N[rows]
        adder = scipy.sparse.csr_array((np.ones(len(rows)), (user_N, rows)), shape=(num_users, len(self.user_N)))
        flat_US, picks_UX = np.split(adder @ self.flat_NS, [num_sums(spec)], axis=1)
        last_at_UT = np.full((num_users, len(days)), NEVER)
        active = self.active.take(pa.array(rows))
        at = active.flatten().to_numpy()
        day = at // DAY_US - days.start
        known = (day >= 0) & (day < len(days))
        user = user_N[pc.list_parent_indices(active).to_numpy()]
        np.maximum.at(last_at_UT, (user[known], day[known]), at[known])
        context_UK = scipy.sparse.csr_array(adder @ self.context_NK).astype(np.int64)
        context_UK.eliminate_zeros()
        return Sums(flat_US, last_at_UT, days.start, context_UK, picks_UX if picks_UX.shape[1] else None)


def user_blocks(chunk: Chunk, spec: FeatureSpec) -> Iterator[UserBlock]:
    """Split a chunk into blocks of users in bucket order, with 8 MB of sums each."""
    tables = [chunk.tiles, chunk.sums, chunk.profiles]
    user_ids, bucket_U, users = _users(tables)
    tables = [table.drop_columns(["user_bucket", "user_id"]).combine_chunks() for table in tables]
    size = max(1, _BLOCK_BYTES // (8 * num_sums(spec)))
    for first in range(0, len(user_ids), size):
        block_users = slice(first, first + size)
        parts = []
        for table, user_N in zip(tables, users, strict=True):
            rows = np.flatnonzero((user_N >= first) & (user_N < first + size))
            parts.append((table.take(pa.array(rows)), user_N[rows] - first))
        yield _block(user_ids[block_users], bucket_U[block_users], parts, spec)


def _users(tables: list[pa.Table]) -> tuple[pa.Array, NDArray[np.int32], list[Ints]]:
    """Return the users of all tables and their buckets, in bucket order, and the user of each row of each table."""
    codes = ItemCodes.of([piece for table in tables for piece in table.column("user_id").chunks])
    bucket_U = np.zeros(len(codes.distinct), np.int32)
    bucket_U[codes.code_N] = np.concatenate([table.column("user_bucket").to_numpy() for table in tables])
    order_U = np.argsort(bucket_U, kind="stable")
    rank_U = np.empty_like(order_U)
    rank_U[order_U] = np.arange(len(order_U))
    ends = np.cumsum([table.num_rows for table in tables])[:-1]
    return codes.distinct.take(pa.array(order_U)), bucket_U[order_U], np.split(rank_U[codes.code_N], ends)


def _block(
    user_ids: pa.Array, user_bucket_U: NDArray[np.int32], parts: list[tuple[pa.Table, Ints]], spec: FeatureSpec
) -> UserBlock:
    """Convert tiles, sums and profiles, each with the user of every row, to arrays."""
    (tiles, tile_user_N), (sums, sums_user_N), (profiles, profile_user_N) = parts
    context_keys = _context_keys([tiles, sums]) if spec.context else pa.array([], pa.string())
    return UserBlock(
        user_ids=user_ids,
        user_bucket_U=user_bucket_U,
        tiles=Tiles(
            user_N=tile_user_N,
            day_N=_numbers(tiles, "day").astype(np.int64),
            weight_N=_numbers(tiles, "weight"),
            num_events_N=_numbers(tiles, "num_events").astype(np.int64),
            at_N=_numbers(tiles, "last_event_at"),
            parts_N4=np.stack([_numbers(tiles, part) for part in PARTS], axis=1).astype(np.int64),
            context_NK=_context(tiles, context_keys),
            before_N=_numbers(tiles, "before"),
            after_N=_numbers(tiles, "after"),
        ),
        tile_items=ItemCodes.of(tiles.column("item_id").chunks),
        profiles=_profiles(profiles, profile_user_N, len(user_ids)),
        sums_rows=SumsRows(
            user_N=sums_user_N,
            day_N=sums.column("day").to_numpy(),
            flat_NS=_flat(sums.column("sums"), spec),
            active=combined(sums.column("active_at")),
            context_NK=_context(sums, context_keys),
        ),
        context_keys=context_keys,
    )


def _numbers(table: pa.Table, name: str) -> NDArray[Any]:
    return table.column(name).to_numpy()  # type: ignore[no-any-return]


def _profiles(rows: pa.Table, user_N: Ints, num_users: int) -> BlockProfiles:
    row_U = np.full(num_users, -1)
    row_U[user_N] = np.arange(len(user_N))
    by_user = one_batch(rows.take(pa.array(row_U, mask=row_U < 0)))
    picks = by_user.column("pick_items")
    return BlockProfiles(
        by_user=by_user,
        is_stored_U=row_U >= 0,
        registered_at_U=by_user.column("registered_at").fill_null(NEVER).to_numpy(),
        pick_user_P=pc.list_parent_indices(picks).to_numpy(),
        picked_at_P=by_user.column("picked_at").flatten().to_numpy(),
        pick_items=ItemCodes.of([picks.flatten()]),
    )


def _flat(column: pa.ChunkedArray, spec: FeatureSpec) -> Floats:
    """View the bytes of stored sums as a matrix."""
    if not len(column):
        return np.empty((0, num_sums(spec)))
    return unpacked(combined(column), len(column[0].as_py()) // 8, "<f8")


def _context_keys(tables: list[pa.Table]) -> pa.Array:
    """Return the distinct context keys, sorted."""
    maps = [combined(table.column(CONTEXT[0])).cast(_PAIRS) for table in tables]
    return pc.unique(pa.concat_arrays([m.flatten().field("key") for m in maps])).sort()


def _context(table: pa.Table, keys: pa.Array) -> scipy.sparse.csr_array:
    """Return the counts of each row by context key."""
    if not len(keys):
        return scipy.sparse.csr_array((table.num_rows, 0), dtype=np.int64)
    maps = combined(table.column(CONTEXT[0])).cast(_PAIRS)
    entries, lengths = maps.flatten(), maps.value_lengths().fill_null(0).to_numpy()
    key_N = pc.index_in(entries.field("key"), value_set=keys).to_numpy()
    content = (entries.field("value").to_numpy(), key_N, np.concatenate([[0], np.cumsum(lengths)]))
    return scipy.sparse.csr_array(content, shape=(table.num_rows, len(keys)))
