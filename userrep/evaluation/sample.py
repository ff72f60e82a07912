"""Training data of baselines that do not run in Spark: bounded user-item counts on the driver.

Shapes: U users, V items, N rows, I items of an activity, E entries.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.sparse import csr_array

from userrep.evaluation.sampled_users import Ints, draw, indices_in
from userrep.store.arrow import combined

MAX_USERS = 20_000
MAX_ITEMS = 20_000


@dataclass(frozen=True)
class Sample:
    """Event counts of U users with V items before a date: ``num_events_UV``.

    ``user_ids`` and ``item_ids`` are distinct and ascend. Users without an event with any of these items are included.
    """

    user_ids: pa.StringArray
    item_ids: pa.StringArray
    num_events_UV: csr_array

    def columns_of(self, counts_NI: csr_array, item_ids: pa.StringArray) -> csr_array:
        """Rearrange counts of ``item_ids`` into the sample's columns: N x V. Other items are dropped."""
        column_I = indices_in(item_ids, self.item_ids)
        known_I = np.flatnonzero(column_I >= 0)
        shape = (len(item_ids), len(self.item_ids))
        column_map_IV = csr_array((np.ones(len(known_I)), (known_I, column_I[known_I])), shape=shape)
        return csr_array(counts_NI @ column_map_IV)


def read_sample(interactions: DataFrame, *, seed: int) -> Sample:
    """Read up to ``MAX_USERS`` users by their draw, and the ``MAX_ITEMS`` items that most of them have.

    The evaluated users come first, because they have the smallest draws. ``interactions``: one row per user_id and
    item_id, with num_events. Cost: ``interactions`` is computed twice. Driver memory: about 50 bytes per user and item;
    100 MB at 100 items per user.
    """
    users = interactions.select("user_id").distinct().orderBy(draw(seed), "user_id").limit(MAX_USERS)
    sampled = interactions.join(F.broadcast(users), on="user_id", how="left_semi")
    return sample_of(sampled.select("user_id", "item_id", F.col("num_events").cast("double")).toArrow())


def sample_of(entries: pa.Table, *, max_items: int = MAX_ITEMS) -> Sample:
    """Build a sample from entries (user_id, item_id, num_events; one per pair), keeping the most common items."""
    users, items = (combined(entries.column(name)).cast(pa.string()) for name in ("user_id", "item_id"))
    by_item = pc.value_counts(items)
    order = pc.sort_indices(
        pa.table({"id": by_item.field("values"), "count": by_item.field("counts")}),
        sort_keys=[("count", "descending"), ("id", "ascending")],
    )
    user_ids, item_ids = _ascending(users.unique()), _ascending(by_item.field("values").take(order[:max_items]))
    user_E, item_E = indices_in(users, user_ids), indices_in(items, item_ids)
    kept: Ints = np.flatnonzero(item_E >= 0)
    values_E = entries.column("num_events").to_numpy()[kept]
    shape = (len(user_ids), len(item_ids))
    counts_UV = csr_array((values_E, (user_E[kept], item_E[kept])), shape=shape)
    counts_UV.sort_indices()  # makes the result independent of the order of entries
    return Sample(user_ids, item_ids, counts_UV)


def _ascending(ids: pa.StringArray) -> pa.StringArray:
    return ids.take(pc.sort_indices(ids))
