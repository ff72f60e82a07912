"""Blocks of users: the rows of a chunk as NumPy arrays, the input of the sums."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse
from numpy.typing import NDArray

from userrep.features.spec import FeatureSpec
from userrep.features.sums.accumulate import NEVER, Floats, Ints, Sums, Tiles, num_sums
from userrep.features.sums.chunk import CONTEXT, PARTS, TILES, Chunk, Items
from userrep.store.arrow import combined
from userrep.utc import DAY_US

_BLOCK_BYTES = 2**23  # of sums in memory at a time
_PAIRS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.int64())]))  # a map, for kernels without maps


@dataclass(frozen=True)
class Profiles:
    """Profiles of a block's users. ``row_U``: the user's row in the lists; -1 without a profile."""

    row_U: Ints
    registered_at_U: Ints  # microseconds since 1970; NEVER if unknown
    attributes: pa.ListArray
    pick_item_lists: pa.ListArray
    picked_at_lists: pa.ListArray
    pick_user_P: Ints
    picked_at_P: Ints
    pick_items: Items


@dataclass(frozen=True)
class Block:
    """A block of users in the order of their buckets, with their rows of each kind."""

    user_ids: pa.Array
    user_bucket_U: NDArray[np.int32]
    tiles: Tiles
    tile_items: Items
    profiles: Profiles
    sums_rows: "SumsRows"
    context_keys: pa.Array


@dataclass(frozen=True)
class SumsRows:
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
        sums = Sums.zeros(num_users, spec, days, self.context_NK.shape[1])
        rows = np.flatnonzero(self.day_N == as_of_day)
        if not len(rows):
            return sums
        user_N, width = self.user_N[rows], sums.flat_US.shape[1]
        adder = scipy.sparse.csr_array((np.ones(len(rows)), (user_N, rows)), shape=(num_users, len(self.user_N)))
        is_single = bool(np.all(np.diff(user_N) > 0))  # rows are sorted by user
        if is_single:
            sums.flat_US[user_N] = self.flat_NS[rows, :width]
        else:
            sums.flat_US[:] = adder @ self.flat_NS[:, :width]
        picks_UX = adder @ self.flat_NS[:, width:] if self.flat_NS.shape[1] > width else None
        active = self.active.take(pa.array(rows))
        at = active.flatten().to_numpy()
        day = at // DAY_US - days.start
        known = (day >= 0) & (day < len(days))
        user = np.repeat(user_N, active.value_lengths().to_numpy())
        if is_single:
            sums.last_at_UT[user[known], day[known]] = at[known]
        else:
            np.maximum.at(sums.last_at_UT, (user[known], day[known]), at[known])
        return Sums(sums.flat_US, sums.last_at_UT, days.start, _as_integers(adder @ self.context_NK), picks_UX)


def blocks(chunk: Chunk, spec: FeatureSpec) -> Iterator[Block]:
    """Split a chunk into blocks of users in bucket order, with 8 MB of sums each."""
    arrays = _Arrays(chunk, spec)
    size = max(1, _BLOCK_BYTES // (8 * num_sums(spec)))
    for first in range(0, len(arrays.user_ids), size):
        yield arrays.block(first, min(first + size, len(arrays.user_ids)))


class _Rows:
    """The rows of one table, sorted by user."""

    def __init__(self, user_N: Ints) -> None:
        self._order = np.argsort(user_N, kind="stable")
        self._user_N = user_N[self._order]

    def of(self, first: int, stop: int) -> tuple[NDArray[np.intp], Ints]:
        """Return the row indices of users ``[first, stop)``, and each row's user, counted from ``first``."""
        begin, end = np.searchsorted(self._user_N, [first, stop])
        return self._order[begin:end], self._user_N[begin:end] - first


class _Arrays:
    """A chunk's columns as arrays, converted from Arrow once for all blocks."""

    def __init__(self, chunk: Chunk, spec: FeatureSpec) -> None:
        self.chunk, self.spec = chunk, spec
        tables = (chunk.tiles, chunk.sums, chunk.profiles)
        users = Items.of([piece for table in tables for piece in table.column("user_id").chunks])
        bucket_N = np.concatenate([table.column("user_bucket").to_numpy() for table in tables])
        bucket_U = np.zeros(len(users.distinct), np.int32)
        bucket_U[users.code_N] = bucket_N
        order_U = np.argsort(bucket_U, kind="stable")
        rank_U = np.empty_like(order_U)
        rank_U[order_U] = np.arange(len(order_U))
        self.user_ids = users.distinct.take(pa.array(order_U))
        self.user_bucket_U = bucket_U[order_U]
        ends = np.cumsum([table.num_rows for table in tables])[:-1]
        self.rows = [_Rows(part) for part in np.split(rank_U[users.code_N], ends)]

    def block(self, first: int, stop: int) -> Block:
        """Return the block of users ``[first, stop)``."""
        tile_rows, sums_rows, profile_rows = (rows.of(first, stop) for rows in self.rows)
        return Block(
            user_ids=self.user_ids[first:stop],
            user_bucket_U=self.user_bucket_U[first:stop],
            tiles=self._tiles(*tile_rows),
            tile_items=Items(self.items.code_N[tile_rows[0]], self.items.distinct),
            profiles=self._profiles(*profile_rows, stop - first),
            sums_rows=self._sums(*sums_rows),
            context_keys=self.context_keys,
        )

    def _tiles(self, rows: NDArray[np.intp], user_N: Ints) -> Tiles:
        arrays = self.tile_arrays
        return Tiles(
            user_N=user_N,
            day_N=arrays["day"][rows].astype(np.int64),
            weight_N=arrays["weight"][rows],
            num_events_N=arrays["num_events"][rows].astype(np.int64),
            at_N=arrays["last_event_at"][rows],
            parts_N4=np.stack([arrays[part][rows] for part in PARTS], axis=1).astype(np.int64),
            context_NK=self.tile_context[rows],
            before_N=arrays["before"][rows],
            after_N=arrays["after"][rows],
        )

    def _sums(self, rows: NDArray[np.intp], user_N: Ints) -> SumsRows:
        stored = self.chunk.sums
        return SumsRows(
            user_N=user_N,
            day_N=stored.column("day").to_numpy()[rows],
            flat_NS=self.flat_NS[rows],
            active=combined(stored.column("active_at")).take(pa.array(rows)),
            context_NK=self.sums_context[rows],
        )

    def _profiles(self, rows: NDArray[np.intp], user_N: Ints, num_users: int) -> Profiles:
        profiles = self.chunk.profiles.take(pa.array(rows))
        row_U = np.full(num_users, -1)
        row_U[user_N] = np.arange(len(rows))
        registered_at_U = np.full(num_users, NEVER)
        registered_at_U[user_N] = profiles.column("registered_at").fill_null(NEVER).to_numpy()
        picks, picked_at = combined(profiles.column("pick_items")), combined(profiles.column("picked_at"))
        return Profiles(
            row_U=row_U,
            registered_at_U=registered_at_U,
            attributes=combined(profiles.column("attributes")),
            pick_item_lists=picks,
            picked_at_lists=picked_at,
            pick_user_P=np.repeat(user_N, picks.value_lengths().fill_null(0).to_numpy()),
            picked_at_P=picked_at.flatten().to_numpy(),
            pick_items=Items.of([picks.flatten()]),
        )

    @cached_property
    def tile_arrays(self) -> dict[str, NDArray[Any]]:
        names = [field.name for field in TILES if field.type not in (pa.string(), CONTEXT[1])]
        return {name: self.chunk.tiles.column(name).to_numpy() for name in names}

    @cached_property
    def items(self) -> Items:
        return Items.of(self.chunk.tiles.column("item_id").chunks)

    @cached_property
    def flat_NS(self) -> Floats:
        binary = combined(self.chunk.sums.column("sums"))
        if not len(binary):
            return np.empty((0, num_sums(self.spec)))
        _, offsets, content = binary.buffers()
        start, end = (int(at) for at in np.frombuffer(offsets, np.int32)[binary.offset :][[0, len(binary)]])
        return np.frombuffer(content, np.float64, (end - start) // 8, start).reshape(len(binary), -1)

    @cached_property
    def context_keys(self) -> pa.Array:
        """The chunk's distinct context keys, sorted."""
        if not self.spec.context:
            return pa.array([], pa.string())
        maps = [combined(table.column(CONTEXT[0])).cast(_PAIRS) for table in (self.chunk.tiles, self.chunk.sums)]
        return pc.unique(pa.concat_arrays([m.flatten().field("key") for m in maps])).sort()

    @cached_property
    def tile_context(self) -> scipy.sparse.csr_array:
        return self._context(self.chunk.tiles)

    @cached_property
    def sums_context(self) -> scipy.sparse.csr_array:
        return self._context(self.chunk.sums)

    def _context(self, table: pa.Table) -> scipy.sparse.csr_array:
        if not len(self.context_keys):
            return scipy.sparse.csr_array((table.num_rows, 0), dtype=np.int64)
        maps = combined(table.column(CONTEXT[0])).cast(_PAIRS)
        entries, lengths = maps.flatten(), maps.value_lengths().fill_null(0).to_numpy()
        key_N = pc.index_in(entries.field("key"), value_set=self.context_keys).to_numpy()
        content = (entries.field("value").to_numpy(), key_N, np.concatenate([[0], np.cumsum(lengths)]))
        return scipy.sparse.csr_array(content, shape=(table.num_rows, len(self.context_keys)))


def _as_integers(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    integers = scipy.sparse.csr_array(matrix).astype(np.int64)
    integers.eliminate_zeros()
    return integers
