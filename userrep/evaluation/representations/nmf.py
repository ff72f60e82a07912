"""Non-negative factorization of event counts before ``plan.until``; rows are folded in by their history.

It does not run in Spark, so it is fitted on a bounded sample of users and items. Shapes: U users, V items, N rows,
I items of an activity, E entries, D factors.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.sparse import csr_array, hstack
from sklearn.decomposition import NMF
from sklearn.preprocessing import normalize

from userrep.evaluation.metrics import Floats32
from userrep.evaluation.representation import Context, Matrix
from userrep.evaluation.representations.als import flagged
from userrep.evaluation.sampled_rows import draw, indices_in
from userrep.store.arrow import combined

_FACTORS = 80
_ROUNDS = 60
_MAX_USERS = _MAX_ITEMS = 20_000


@dataclass(frozen=True)
class SampledCounts:
    """Event counts of U users with V items before a date: ``num_events_UV``.

    ``user_ids`` and ``item_ids`` are distinct and ascend. Users without an event with any of these items are included.
    """

    user_ids: pa.StringArray
    item_ids: pa.StringArray
    num_events_UV: csr_array

    def columns_of(self, counts_NI: csr_array, item_ids: pa.StringArray) -> csr_array:
        """Rearrange counts of ``item_ids`` into the sample's columns: N x V. Other items are dropped."""
        zeros_N1 = csr_array((counts_NI.shape[0], 1))  # the last column, of items that are not in ``item_ids``
        return hstack([counts_NI, zeros_N1], format="csr")[:, indices_in(self.item_ids, item_ids)]


def read_sample(interactions: DataFrame, *, seed: int) -> SampledCounts:
    """Read up to 20,000 users by their draw, and the 20,000 items that most of them have.

    The evaluated users come first, because they have the smallest draws. ``interactions``: one row per user_id and
    item_id, with num_events. Cost: ``interactions`` is computed twice. Driver memory: about 50 bytes per user and item;
    100 MB at 100 items per user.
    """
    users = interactions.select("user_id").distinct().orderBy(draw(seed), "user_id").limit(_MAX_USERS)
    sampled = interactions.join(F.broadcast(users), on="user_id", how="left_semi")
    return sample_of(sampled.select("user_id", "item_id", F.col("num_events").cast("double")).toArrow())


def sample_of(entries: pa.Table, *, max_items: int = _MAX_ITEMS) -> SampledCounts:
    """Build a sample from entries (user_id, item_id, num_events; one per pair), keeping the most common items."""
    users, items = (combined(entries.column(name)).cast(pa.string()) for name in ("user_id", "item_id"))
    by_item = pa.table({"item_id": items}).group_by("item_id").aggregate([([], "count_all")])
    by_item = by_item.sort_by([("count_all", "descending"), ("item_id", "ascending")])
    user_ids, item_ids = users.unique().sort(), combined(by_item.column("item_id")[:max_items]).sort()
    user_E, item_E = indices_in(users, user_ids), indices_in(items, item_ids)
    kept = np.flatnonzero(item_E >= 0)
    values_E = entries.column("num_events").to_numpy()[kept]
    shape = (len(user_ids), len(item_ids))
    counts_UV = csr_array((values_E, (user_E[kept], item_E[kept])), shape=shape)
    counts_UV.sort_indices()  # makes the result independent of the order of entries
    return SampledCounts(user_ids, item_ids, counts_UV)


def fit_nmf(context: Context) -> Matrix:
    """Fit non-negative factors (Lee and Seung 1999) to a sample of all users' events."""
    return matrix_of(read_sample(context.interactions(), seed=context.seed), seed=context.seed)


def matrix_of(sample: SampledCounts, *, seed: int) -> Matrix:
    """Factorize a sample; return the function that folds each row's history in."""
    model = factorized(sample.num_events_UV, seed=seed)
    return lambda context: folded(model, sample.columns_of(context.futures.history, context.activity.item_ids))


def factorized(counts_UV: csr_array, *, seed: int) -> NMF:
    """Factorize log(1 + count) of rows scaled to length 1, so that the choice of items matters and not their number.

    Cost: 60 sweeps of coordinate descent over the sample, each about U x D^2 multiplications.
    """
    # tol=0: the stopping rule looks at all rows, and a row's result must not depend on the other rows.
    model = NMF(min(_FACTORS, *counts_UV.shape), init="nndsvd", max_iter=_ROUNDS, tol=0, random_state=seed)
    return model.fit(_directions(counts_UV))


def folded(model: NMF, counts_NV: csr_array) -> Floats32:
    """Solve for the rows' factors with the item factors fixed, in as many sweeps over the rows.

    Returns square roots of the factors, because factors are skewed, then a 1; zeros without a history.
    """
    return flagged(np.sqrt(model.transform(_directions(counts_NV))).astype(np.float32))


def _directions(counts: csr_array) -> csr_array:
    logs = csr_array((np.log1p(counts.data), counts.indices, counts.indptr), shape=counts.shape)
    return csr_array(normalize(logs.astype(np.float32)))
