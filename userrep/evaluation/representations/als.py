"""User factors from implicit ALS (Hu, Koren, Volinsky 2008).

Two representations share one Spark ML factorization of all users' events before ``plan.until``: ``als_static`` uses the
user factors as fitted; ``als_folded`` solves for each row's factors from its own history with the item factors fixed.
The third, ``als_refitted``, factorizes again at each date. Shapes: N rows, I items of the activity, D factors, E
entries of a sparse matrix, R rows of a chunk.
"""

from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.linalg import orthogonal_procrustes
from scipy.sparse import csr_array, csr_matrix
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from userrep.config import AlsVectors
from userrep.evaluation.representation import Context, Floats32
from userrep.evaluation.sampled_users import indices_in, only_sampled, where_in
from userrep.items.als_fit import fit_item_factors, initial_factors
from userrep.items.als_on_spark import fit_als, with_dense_numbers
from userrep.spark.sums import sum_over
from userrep.store.arrow import combined, stacked

Floats = NDArray[np.float64]

_CHUNK = 512  # rows solved at once; their D x D systems take 26 MB with 80 factors


class ItemFactors(NamedTuple):
    """Factors of the activity's items, zeros for items without any, and the sum of y y' over the factors y of all."""

    item_ID: Floats32
    gram_DD: Floats


class Factors(NamedTuple):
    """Factors of the users in ``rows.user_ids``, zeros for users without any, and of items."""

    user_UD: Floats32
    items: ItemFactors


@dataclass
class Factorization:
    """A factorization shared by several representations. Cost: one fit of ALS item vectors."""

    settings: AlsVectors
    _fitted: Factors | None = field(default=None, init=False)

    def fitted(self, context: Context) -> Factors:
        """Factorize on the first call. Only the factors of sampled users and their items reach the driver."""
        self._fitted = self._fitted or self._fit(context)
        return self._fitted

    def _fit(self, context: Context) -> Factors:
        events = context.interactions().cache()
        users = with_dense_numbers(events.select("user_id").distinct(), "user_number")
        items = with_dense_numbers(events.select("item_id").distinct(), "item_index")
        try:
            numbered = events.join(users, on="user_id", how="inner").join(items, on="item_id", how="inner")
            model = fit_als(numbered, settings=self.settings)
            return self._sampled_factors(context, model, users, items)
        finally:
            events.unpersist()

    def _sampled_factors(self, context: Context, model: ALSModel, users: DataFrame, items: DataFrame) -> Factors:
        dim, item_ids = self.settings.dim, context.activity.item_ids
        sampled_items = where_in(items, "item_id", item_ids)
        sampled_users = only_sampled(users, context.rows, seed=context.seed)
        item_ID = _factors_of(model.itemFactors, sampled_items, ("item_index", "item_id"), item_ids, dim)
        user_UD = _factors_of(model.userFactors, sampled_users, ("user_number", "user_id"), context.rows.user_ids, dim)
        factors = model.itemFactors.select("features")
        gram = sum_over(factors, lambda batch: {"gram_DD": _gram(stacked(batch.column("features"), dim))})
        return Factors(user_UD, ItemFactors(item_ID, gram["gram_DD"]))


@dataclass
class AlsStatic:
    """Factors of each row's user as of ``plan.until``, then a 1; zeros for unknown users.

    Truncated rows are all zeros, because a user with so few events has no factors yet.
    """

    factors: Factorization
    name: str = "als_static"

    def fit(self, context: Context) -> None:
        """Factorize."""
        self.factors.fitted(context)

    def matrix(self, context: Context) -> Floats32:
        """Look up the users' factors."""
        users_ND = self.factors.fitted(context).user_UD[context.rows.user_N]
        return flagged(np.zeros_like(users_ND) if context.is_truncated else users_ND)


@dataclass
class AlsFolded:
    """Factors of each row's user solved from all events before the row's date, then a 1; zeros without any.

    Item factors are those of ``plan.until``; items that were first sold later are ignored. Uses the same factorization
    as ``AlsStatic``, whose fit time includes it if that one is fitted first.
    """

    factors: Factorization
    name: str = "als_folded"

    def fit(self, context: Context) -> None:
        """Factorize, unless that is already done."""
        self.factors.fitted(context)

    def matrix(self, context: Context) -> Floats32:
        """Solve one linear system per row."""
        return flagged(folded(context.futures.history, self.factors.fitted(context).items, self.factors.settings))


@dataclass
class AlsRefitted:
    """Factors from a new factorization at each date, of the rows' users on all events before it.

    Each date's factors are rotated onto those of the previous date, so that probes see one coordinate system. A 1
    follows, or zeros for users without events. Cost: one fit by ``implicit`` per date, on one core of the driver.
    """

    settings: AlsVectors
    name: str = "als_refitted"
    _item_ID: dict[date, Floats32] = field(default_factory=dict, init=False)

    def fit(self, context: Context) -> None:
        """Factorize at each of the rows' dates, starting from the directions of the previous date."""
        num_items, dim = len(context.activity.item_ids), self.settings.dim
        previous_ID = np.zeros((num_items, dim), np.float32)
        for day in context.rows.dates:
            counts_UI = csr_matrix(context.activity.num_events(None, day), dtype=np.float32)
            start_ID = initial_factors(normalize(previous_ID), context.seed)
            factors_ID = fit_item_factors(counts_UI, start_ID, settings=self.settings, num_threads=1)
            if previous_ID.any():
                rotation_DD, _ = orthogonal_procrustes(factors_ID, previous_ID)
                factors_ID = (factors_ID @ rotation_DD).astype(np.float32)
            self._item_ID[day] = previous_ID = factors_ID

    def matrix(self, context: Context) -> Floats32:
        """Solve one linear system per row, with the item factors of its date."""
        x_ND = np.zeros((len(context.rows), self.settings.dim), np.float32)
        for d, day in enumerate(context.rows.dates):
            date_rows = np.flatnonzero(context.rows.date_N == d)
            item_ID = self._item_ID[day]
            items = ItemFactors(item_ID, _gram(item_ID))
            x_ND[date_rows] = folded(csr_array(context.futures.history[date_rows]), items, self.settings)
        return flagged(x_ND)


def folded(history_NI: csr_array, items: ItemFactors, settings: AlsVectors) -> Floats32:
    """Solve for user factors as Spark does: confidence c = 1 + alpha log(1 + events), ridge times the number of items.

    The equations of a row are ``(G + sum of (c - 1) y y' + ridge n) x = sum of c y``, where G is the gram matrix and
    the sums run over the factors y of the row's n items. Rows without an item are zeros. Cost: N x D^3 + E x D^2
    multiplications in float64 on one core.
    """
    num_items, dim = items.item_ID.shape
    kept = np.flatnonzero(items.item_ID.any(axis=1))
    seen_NI = csr_array(history_NI @ csr_array((np.ones(len(kept)), (kept, kept)), shape=(num_items, num_items)))
    seen_NI.eliminate_zeros()
    starts, num_N = seen_NI.indptr, np.diff(seen_NI.indptr)
    extra_E, item_ID = settings.alpha * np.log1p(seen_NI.data), items.item_ID.astype(np.float64)
    x_ND = np.zeros((len(num_N), dim), np.float32)
    with threadpool_limits(1):  # small systems; one thread makes the sums independent of the number of cores
        for first in range(0, len(num_N), _CHUNK):
            rows = first + np.flatnonzero(num_N[first : first + _CHUNK])
            left_RDD = items.gram_DD + (settings.regularization * num_N[rows])[:, None, None] * np.eye(dim)
            right_RD = np.empty((len(rows), dim))
            for r, row in enumerate(rows):
                entries = slice(starts[row], starts[row + 1])
                y_ED = item_ID[seen_NI.indices[entries]]
                left_RDD[r] += (y_ED * extra_E[entries, None]).T @ y_ED
                right_RD[r] = (1 + extra_E[entries]) @ y_ED
            x_ND[rows] = np.linalg.solve(left_RDD, right_RD[:, :, None])[:, :, 0]
    return x_ND


def flagged(x_ND: Floats32) -> Floats32:
    """Append a column that is 1 where the row is not all zeros."""
    return np.hstack([x_ND, x_ND.any(axis=1, keepdims=True).astype(np.float32)])


def _factors_of(
    factors: DataFrame, numbers: DataFrame, columns: tuple[str, str], ids: pa.StringArray, dim: int
) -> Floats32:
    """Return ``factors`` (id, features) in the order of ``ids``, zeros for missing ids.

    ``numbers`` maps the factors' id to ours; ``columns`` names these two columns of it.
    """
    number, column = columns
    numbered = factors.withColumnRenamed("id", number).join(F.broadcast(numbers), on=number, how="inner")
    rows = numbered.select(column, "features").toArrow()
    x_ID = np.zeros((len(ids), dim), np.float32)
    index = indices_in(combined(rows.column(column)).cast(pa.string()), ids)
    known = index >= 0
    x_ID[index[known]] = stacked(combined(rows.column("features")), dim)[known]
    return x_ID


def _gram(y_BD: Floats32) -> Floats:
    wide_BD = y_BD.astype(np.float64)
    return wide_BD.T @ wide_BD
