"""User factors from implicit ALS (Hu, Koren, Volinsky 2008).

Two representations share one Spark ML factorization of all users' events before ``plan.until``: ``als_static`` uses the
user factors as fitted; ``als_folded`` solves for each row's factors from its own history with the item factors fixed.
The third, ``als_refitted``, factorizes again at each date. A column of ones follows the factors, with zeros for rows
without any. Shapes: N rows, I items of the activity, D factors, E entries of a sparse matrix, R rows of a chunk.
"""

from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.linalg import orthogonal_procrustes
from scipy.sparse import csr_array, csr_matrix
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from userrep.config import AlsVectors
from userrep.evaluation.metrics import Floats, Floats32
from userrep.evaluation.representation import Context, Fit, Matrix
from userrep.evaluation.sampled_rows import indices_in, where_in
from userrep.items.als_fit import fit_item_factors, initial_factors
from userrep.items.als_on_spark import fit_als, with_dense_numbers
from userrep.spark.sums import sum_over
from userrep.store.arrow import combined, stacked

_CHUNK = 512  # rows solved at once; their D x D systems take 26 MB with 80 factors


class ItemFactors(NamedTuple):
    """Factors of the activity's items, zeros for items without any, and the sum of y y' over the factors y of all."""

    item_ID: Floats32
    gram_DD: Floats


class Factors(NamedTuple):
    """Factors of the users in ``rows.user_ids``, zeros for users without any, and of items."""

    user_UD: Floats32
    items: ItemFactors


def fits_of_one_factorization(settings: AlsVectors) -> tuple[Fit, Fit]:
    """Return the fits of ``als_static`` and ``als_folded``. The first one that is called bears the cost of both."""
    factors_of = cache(partial(factorized, settings=settings))
    return (
        lambda context: partial(looked_up, factors_of(context).user_UD),
        lambda context: partial(folded_in, factors_of(context).items, settings),
    )


def looked_up(user_UD: Floats32, context: Context) -> Floats32:
    """Return the factors of each row's user as of ``plan.until``.

    Truncated rows are all zeros, because a user with so few events has no factors yet.
    """
    users_ND = user_UD[context.rows.user_N]
    return flagged(np.zeros_like(users_ND) if context.is_truncated else users_ND)


def folded_in(items: ItemFactors, settings: AlsVectors, context: Context) -> Floats32:
    """Solve for each row's factors from all events before its date. Items that were first sold later are ignored."""
    return flagged(folded(context.futures.history, items, settings))


def factorized(context: Context, settings: AlsVectors) -> Factors:
    """Factorize all users' events. Only the factors of sampled users and their items reach the driver."""
    events = context.interactions().cache()
    users = with_dense_numbers(events.select("user_id").distinct(), "user_number")
    items = with_dense_numbers(events.select("item_id").distinct(), "item_index")
    try:
        numbered = events.join(users, on="user_id", how="inner").join(items, on="item_id", how="inner")
        model, dim = fit_als(numbered, settings=settings), settings.dim
        sampled_items = where_in(items, "item_id", context.activity.item_ids)
        sampled_users = context.rows.only_own(users)
        item_ID = _factors_of(model.itemFactors, sampled_items, context.activity.item_ids, dim)
        user_UD = _factors_of(model.userFactors, sampled_users, context.rows.user_ids, dim)
        factors = model.itemFactors.select("features")
        gram = sum_over(factors, lambda batch: {"gram_DD": _gram(stacked(batch.column("features"), dim))})
        return Factors(user_UD, ItemFactors(item_ID, gram["gram_DD"]))
    finally:
        events.unpersist()


def fit_refitted(context: Context, settings: AlsVectors) -> Matrix:
    """Factorize again at each of the rows' dates: the rows' users, on all events before the date.

    Each date starts from the directions of the previous date and is rotated onto it, so that probes see one coordinate
    system. Cost: one fit by ``implicit`` per date, on one core of the driver.
    """
    items: list[ItemFactors] = []
    previous_ID = np.zeros((len(context.activity.item_ids), settings.dim), np.float32)
    for day in context.rows.dates:
        counts_UI = csr_matrix(context.activity.num_events(None, day), dtype=np.float32)
        start_ID = initial_factors(normalize(previous_ID), context.seed)
        item_ID = fit_item_factors(
            counts_UI, start_ID, settings=settings, iterations=settings.iterations, num_threads=1
        )
        if previous_ID.any():
            rotation_DD, _ = orthogonal_procrustes(item_ID, previous_ID)
            item_ID = (item_ID @ rotation_DD).astype(np.float32)
        items.append(ItemFactors(item_ID, _gram(item_ID)))
        previous_ID = item_ID

    def matrix(context: Context) -> Floats32:
        x_ND = np.zeros((len(context.rows), settings.dim), np.float32)
        for d, items_of_date in enumerate(items):
            date_rows = np.flatnonzero(context.rows.date_N == d)
            x_ND[date_rows] = folded(csr_array(context.futures.history[date_rows]), items_of_date, settings)
        return flagged(x_ND)

    return matrix


def folded(history_NI: csr_array, items: ItemFactors, settings: AlsVectors) -> Floats32:
    """Solve for user factors as Spark does: confidence c = 1 + alpha log(1 + events), ridge times the number of items.

    The same ridge is used for factors that ``implicit`` has fitted with one ridge for all, which gave a weaker baseline
    (docs/decisions/quality-measurements.md).

    The equations of a row are ``(G + sum of (c - 1) y y' + ridge n) x = sum of c y``, where G is the gram matrix and
    the sums run over the factors y of the row's n items. Rows without an item are zeros. Cost: N x D^3 + E x D^2
    multiplications in float64 on one core.
    """
    has_factors_I = items.item_ID.any(axis=1)
    seen_NI, item_ID = history_NI[:, has_factors_I], items.item_ID[has_factors_I].astype(np.float64)
    seen_NI.eliminate_zeros()
    starts, num_N, dim = seen_NI.indptr, np.diff(seen_NI.indptr), item_ID.shape[1]
    extra_E = settings.alpha * np.log1p(seen_NI.data)
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


def _factors_of(factors: DataFrame, numbers: DataFrame, ids: pa.StringArray, dim: int) -> Floats32:
    """Return ``factors`` (id, features) in the order of ``ids``, zeros for missing ids.

    ``numbers`` maps our ids, its first column, to the ids of the factors, its second.
    """
    column, number = numbers.columns
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
