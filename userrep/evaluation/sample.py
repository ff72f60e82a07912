"""What baselines are trained on that don't run in Spark: counts of users and items, bounded, on the driver.

Shapes: U users, V items, N rows, I items of an activity.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.sparse import csr_array

from userrep.evaluation.rows import Ints, draw, places
from userrep.store.arrow import combined

MAX_USERS = 20_000
MAX_ITEMS = 20_000


@dataclass(frozen=True)
class Sample:
    """Events of U users with V items before a date, counted: ``num_events_UV``.

    ``user_ids`` and ``item_ids`` are distinct and ascend. Users without an event with one of these items are there.
    """

    user_ids: pa.StringArray
    item_ids: pa.StringArray
    num_events_UV: csr_array

    def columns_of(self, counts_NI: csr_array, item_ids: pa.StringArray) -> csr_array:
        """Put counts of the items ``item_ids`` into the sample's columns: N x V. Items that it lacks are dropped."""
        at_I = places(item_ids, self.item_ids)
        known_I = np.flatnonzero(at_I >= 0)
        shape = (len(item_ids), len(self.item_ids))
        moved_IV = csr_array((np.ones(len(known_I)), (known_I, at_I[known_I])), shape=shape)
        return csr_array(counts_NI @ moved_IV)


def read_sample(interactions: DataFrame, *, seed: int) -> Sample:
    """Take ``MAX_USERS`` users by their draw, those of the evaluated rows first, and the items that most of them met.

    ``interactions``: one row per user_id and item_id, num_events. Cost: twice what it takes to make them. Driver
    memory: some 50 bytes for each of the users and each of its items: 100 MB where users have met 100 items.
    """
    users = interactions.select("user_id").distinct().orderBy(draw(seed), "user_id").limit(MAX_USERS)
    mine = interactions.join(F.broadcast(users), on="user_id", how="left_semi")
    return sample_of(mine.select("user_id", "item_id", F.col("num_events").cast("double")).toArrow())


def sample_of(entries: pa.Table, *, max_items: int = MAX_ITEMS) -> Sample:
    """Number users and items of entries (user_id, item_id, num_events; one a pair), and keep the most met items."""
    users, items = (combined(entries.column(name)).cast(pa.string()) for name in ("user_id", "item_id"))
    met = pc.value_counts(items)
    order = pc.sort_indices(
        pa.table({"id": met.field("values"), "count": met.field("counts")}),
        sort_keys=[("count", "descending"), ("id", "ascending")],
    )
    user_ids, item_ids = _ascending(users.unique()), _ascending(met.field("values").take(order[:max_items]))
    user_E, item_E = places(users, user_ids), places(items, item_ids)
    kept: Ints = np.flatnonzero(item_E >= 0)
    values_E = entries.column("num_events").to_numpy()[kept]
    shape = (len(user_ids), len(item_ids))
    counts_UV = csr_array((values_E, (user_E[kept], item_E[kept])), shape=shape)
    counts_UV.sort_indices()  # whatever order the entries came in
    return Sample(user_ids, item_ids, counts_UV)


def _ascending(ids: pa.StringArray) -> pa.StringArray:
    return ids.take(pc.sort_indices(ids))
