"""Items in parts: if the item vectors are too large for a worker, each task processes one range of item buckets.

Each tile and each onboarding pick has one item and so belongs to exactly one part. Counts, weights, context and last
events are therefore added once, like vectors.
"""

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep.features.sums.accumulate import Flags
from userrep.features.sums.chunk import Chunk, Items
from userrep.store.arrow import combined
from userrep.store.buckets import BucketRange, bucket_of, slice_number
from userrep.store.xxhash import bucket_of as buckets_of


def only_items(chunk: Chunk, items: BucketRange) -> Chunk:
    """Keep the tiles of the items in a range, and the profiles with a pick in it; sums are unchanged.

    Cost: one hash per distinct item of the chunk, and a copy of the remaining tiles.
    """
    tiles = chunk.tiles.filter(pa.array(_is_in_range(chunk.tiles.column("item_id").chunks, items)))
    picks = combined(chunk.profiles.column("pick_items"))
    row_P = np.repeat(np.arange(len(picks)), picks.value_lengths().fill_null(0).to_numpy())
    has_pick = np.zeros(len(picks), bool)
    has_pick[row_P[_is_in_range([picks.flatten()], items)]] = True
    return Chunk(tiles, chunk.sums, chunk.profiles.filter(pa.array(has_pick)))


def _is_in_range(pieces: list[pa.Array], items: BucketRange) -> Flags:
    codes = Items.of(pieces)
    bucket_D = buckets_of(codes.distinct)
    is_in: Flags = ((bucket_D >= items.start) & (bucket_D < items.stop))[codes.code_N]
    return is_in


def by_item_part(rows: DataFrame, num_parts: int) -> DataFrame:
    """Add ``item_part``: the part of a tile's item, part 0 for sums, and the parts of a profile's picks.

    A profile is repeated for each part with one of its picks; a profile without picks is dropped.
    """

    def part_of(item: Column) -> Column:
        return slice_number(num_parts, bucket_of(item))

    parts = (
        F.when(F.col("kind") == "tiles", F.array(part_of(F.col("item_id"))))
        .when(F.col("kind") == "sums", F.array(F.lit(0)))
        .otherwise(F.array_distinct(F.transform("pick_items", part_of)))
    )
    return rows.withColumn("item_part", F.explode(parts))
