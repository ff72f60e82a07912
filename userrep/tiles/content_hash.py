"""The content hash of tiles, which is equal for equal sets of rows, and their counts by cell of user buckets."""

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from userrep.store.arrow import combined, is_text
from userrep.store.buckets import NUM_BUCKETS
from userrep.store.xxhash import Hashes, hash64, mixed

_NULL = 0x6E756C6C


def content_of(tiles: pa.Table) -> int:
    """Hash the rows of a table, independently of chunks and of the order of rows, columns and map entries.

    The result is the sum of one hash per row, modulo 2**64. A number hashes the same in 32 and in 64 bits.
    """
    row_N = np.zeros(tiles.num_rows, np.uint64)
    for name in tiles.column_names:
        row_N += mixed(_hashes(combined(tiles[name])) ^ _salt(name))
    return int(mixed(row_N).sum(dtype=np.uint64))


@lru_cache(maxsize=64)
def _salt(column: str) -> np.uint64:
    return np.uint64(hash64(pa.array([column]))[0])


def cells_of(tiles: pa.Table, num_cells: int) -> dict[int, int]:
    """Count tiles by cell, one of ``num_cells`` equal ranges of user buckets. Empty cells are omitted."""
    cell_N = combined(tiles["user_bucket"]).to_numpy() // (NUM_BUCKETS // num_cells)
    counts = np.bincount(cell_N, minlength=num_cells)
    return {int(cell): int(counts[cell]) for cell in np.flatnonzero(counts)}


def _hashes(values: Any) -> Hashes:
    """Hash each value of a column of texts, numbers, times, or maps of these. Dictionaries are hashed like values."""
    if values.null_count == len(values):
        return np.full(len(values), _NULL, np.uint64)
    if pa.types.is_dictionary(values.type):
        hash_D = np.append(_hashes(values.dictionary), np.uint64(_NULL))  # the last for null
        return np.asarray(hash_D[values.indices.fill_null(len(hash_D) - 1).to_numpy()])
    is_null = values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
    if pa.types.is_map(values.type):
        hash_N = _map_hashes(values)
    elif is_text(values.type):
        hash_N = hash64(values.cast(pa.string()).fill_null(""))
    elif pa.types.is_floating(values.type):
        hash_N = mixed((values.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0).view(np.uint64))
    else:
        whole = values.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        hash_N = mixed(whole.view(np.uint64))
    return hash_N if is_null is None else np.where(is_null, np.uint64(_NULL), hash_N)


def _map_hashes(maps: pa.MapArray) -> Hashes:
    lists = maps.cast(pa.list_(pa.struct([("key", maps.type.key_type), ("value", maps.type.item_type)])))
    entries = lists.flatten()
    entry_N = mixed(_hashes(entries.field("key")) * 3 + _hashes(entries.field("value")))
    ends = np.cumsum(lists.value_lengths().fill_null(0).to_numpy())
    before = np.append(np.uint64(0), np.cumsum(entry_N, dtype=np.uint64))
    return mixed(before[ends] - before[np.append(0, ends[:-1])] if len(ends) else before[:0])
