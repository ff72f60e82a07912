"""Items in parts: where their vectors are too large for a worker, each task takes those of a range of item buckets.

Each tile is of one item, so that it lies in exactly one part: counts, weights, context and last events are added once,
as vectors are. An onboarding pick likewise.
"""

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep.features.sums.accumulate import Flags
from userrep.features.sums.chunk import Chunk, Items
from userrep.store.arrow import combined
from userrep.store.buckets import BucketRange, bucket_of, slice_number
from userrep.store.hashing import bucket_of as buckets_of


def only_items(chunk: Chunk, items: BucketRange) -> Chunk:
    """Keep the tiles of the items in a range, and the profiles that have a pick in it; sums stay.

    Cost: a hash for each distinct item of the chunk, and a copy of the tiles that stay.
    """
    tiles = chunk.tiles.filter(pa.array(_are_in(chunk.tiles.column("item_id").chunks, items)))
    picks = combined(chunk.profiles.column("pick_items"))
    row_P = np.repeat(np.arange(len(picks)), picks.value_lengths().fill_null(0).to_numpy())
    has_pick = np.zeros(len(picks), bool)
    has_pick[row_P[_are_in([picks.flatten()], items)]] = True
    return Chunk(tiles, chunk.sums, chunk.profiles.filter(pa.array(has_pick)))


def _are_in(pieces: list[pa.Array], items: BucketRange) -> Flags:
    codes = Items.of(pieces)
    bucket_D = buckets_of(codes.distinct)
    is_in: Flags = ((bucket_D >= items.start) & (bucket_D < items.stop))[codes.code_N]
    return is_in


def by_item_part(rows: DataFrame, num_parts: int) -> DataFrame:
    """Add ``item_part`` to rows of all kinds: that of a tile's item; of sums, the first; of a profile, its picks'.

    A profile comes once for each part that it has a pick in; one without picks is left out.
    """

    def part_of(item: Column) -> Column:
        return slice_number(num_parts, bucket_of(item))

    parts = (
        F.when(F.col("kind") == "tiles", F.array(part_of(F.col("item_id"))))
        .when(F.col("kind") == "sums", F.array(F.lit(0)))
        .otherwise(F.array_distinct(F.transform("pick_items", part_of)))
    )
    return rows.withColumn("item_part", F.explode(parts))
