"""Chunks: the Arrow rows of several users that a pooling task works on.

A chunk contains rows of three tables: activity tiles (with their day and whether they count in the old and in the new
sums), window sums, and profiles. It is cut at user buckets, so all rows of a user are in one chunk, unless a bucket has
very many rows.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from userrep.features.spec import PARTS_OF_DAY
from userrep.features.sums.accumulate import Flags, Ints
from userrep.features.sums.item_matrix import ItemMatrix
from userrep.store.arrow import combined
from userrep.store.buckets import BucketRange
from userrep.store.xxhash import bucket_of

PARTS = [f"num_{part}" for part in PARTS_OF_DAY]
_KEYS = [("user_bucket", pa.int32()), ("user_id", pa.string())]
CONTEXT = ("num_by_context", pa.map_(pa.string(), pa.int64()))

# The columns that tasks read; num_by_context only if the spec has context columns.
TILES = pa.schema(
    [*_KEYS, ("item_id", pa.string()), ("weight", pa.float64()), ("num_events", pa.int32()),
     ("last_event_at", pa.int64()), *((part, pa.int32()) for part in PARTS), CONTEXT,
     ("day", pa.int32()), ("before", pa.bool_()), ("after", pa.bool_())]
)  # fmt: skip
SUMS = pa.schema([*_KEYS, ("sums", pa.binary()), ("active_at", pa.list_(pa.int64())), CONTEXT, ("day", pa.int32())])
PROFILES = pa.schema(
    [*_KEYS, ("registered_at", pa.int64()), ("attributes", pa.list_(pa.string())),
     ("pick_items", pa.list_(pa.string())), ("picked_at", pa.list_(pa.int64()))]
)  # fmt: skip
KINDS = {"tiles": TILES, "sums": SUMS, "profiles": PROFILES}


def schema_of(kind: str, *, context: bool) -> pa.Schema:
    """Return the columns of one kind of rows, with or without num_by_context."""
    return pa.schema([field for field in KINDS[kind] if context or field.name != CONTEXT[0]])


class Chunk(NamedTuple):
    """Rows of users in adjacent buckets, in the schemas above. ``day`` of sums is their as-of date.

    ``is_last``: no later chunk has rows of the same users.
    """

    tiles: pa.Table = pa.Table.from_batches([], TILES)  # ``empty_table`` would import pandas
    sums: pa.Table = pa.Table.from_batches([], SUMS)
    profiles: pa.Table = pa.Table.from_batches([], PROFILES)
    is_last: bool = True

    def only_items(self, items: BucketRange) -> "Chunk":
        """Keep the tiles of the items in a range, and the profiles with a pick in it. Sums belong to the first range.

        Each tile and each pick has one item. If several tasks process one range of items each, counts, weights, context
        and last events are therefore added once, like vectors. Cost: one hash per distinct item of the chunk, and a
        copy of the remaining tiles.
        """
        sums = self.sums if items.start == 0 else self.sums.slice(0, 0)
        is_inside = ItemCodes.of(self.tiles.column("item_id").chunks).are_in(items)
        picks = combined(self.profiles.column("pick_items"))
        has_pick = np.zeros(len(picks), bool)
        has_pick[pc.list_parent_indices(picks).to_numpy()[ItemCodes.of([picks.flatten()]).are_in(items)]] = True
        return Chunk(self.tiles.filter(pa.array(is_inside)), sums, self.profiles.filter(pa.array(has_pick)))


class ItemCodes(NamedTuple):
    """The item of each row, as codes into distinct item ids."""

    code_N: Ints
    distinct: pa.Array

    @classmethod
    def of(cls, pieces: list[pa.Array]) -> "ItemCodes":
        """Encode pieces of a text column as codes into one array of distinct values."""
        encoded = pa.chunked_array(pieces, pa.string()).combine_chunks().dictionary_encode()
        return cls(encoded.indices.to_numpy().astype(np.int64), encoded.dictionary)

    def rows_in(self, matrix: ItemMatrix) -> Ints:
        """Return the matrix row of each row's item; -1 if the matrix lacks the item."""
        return matrix.rows_of(self.distinct)[self.code_N]

    def are_in(self, items: BucketRange) -> Flags:
        """Return which rows have an item in a range of item buckets."""
        bucket_D = bucket_of(self.distinct)
        return ((bucket_D >= items.start) & (bucket_D < items.stop))[self.code_N]
