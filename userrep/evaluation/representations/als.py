"""Factors of users by implicit ALS (Hu, Koren, Volinsky 2008).

Two representations from one factorization by Spark ML of all users' events before ``plan.until``: the users' factors as
they came out of it, and factors that are solved for each row from its own history, with the items' held fast. A third
one factorizes again at each date. Shapes: N rows, I items of the activity, D factors.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.linalg import orthogonal_procrustes
from scipy.sparse import csr_array, csr_matrix
from sklearn.preprocessing import normalize

from userrep.config import AlsVectors
from userrep.evaluation.representation import Context, Floats32
from userrep.evaluation.representations.least_squares import Floats, factors_of_rows
from userrep.evaluation.rows import Ints, only_of, only_sampled, places
from userrep.items.als import fit_als
from userrep.items.als_fit import fit_item_factors, initial_factors
from userrep.items.numbers import with_dense_numbers
from userrep.store.arrow import combined, stacked


class Fitted(NamedTuple):
    """What of the factors the rows need: of their users, by place in ``rows.user_ids``, and of the activity's items.

    Zeros where there is none. ``gram_DD``: the sum of y y' over the factors y of all items.
    """

    user_UD: Floats32
    item_ID: Floats32
    gram_DD: Floats


@dataclass
class Factorization:
    """The factorization, made once for all that ask for it. Cost: as a version of item vectors by ALS."""

    settings: AlsVectors
    _fitted: Fitted | None = field(default=None, init=False)

    def fitted(self, context: Context) -> Fitted:
        """Factorise at the first call. What reaches the driver are factors of sampled users and of their items."""
        self._fitted = self._fitted or self._fit(context)
        return self._fitted

    def _fit(self, context: Context) -> Fitted:
        seen = context.interactions().cache()
        users = with_dense_numbers(seen.select("user_id").distinct(), column="user_id", number="user_number", start=0)
        items = with_dense_numbers(seen.select("item_id").distinct(), column="item_id", number="item_index", start=0)
        try:
            numbered = seen.join(users, on="user_id", how="inner").join(items, on="item_id", how="inner")
            model = fit_als(numbered, settings=self.settings)
            return self._needed(context, model, users, items)
        finally:
            seen.unpersist()

    def _needed(self, context: Context, model: ALSModel, users: DataFrame, items: DataFrame) -> Fitted:
        dim, item_ids = self.settings.dim, context.activity.item_ids
        mine = only_of(items, "item_id", item_ids)
        sampled = only_sampled(users, context.rows, seed=context.seed)
        return Fitted(
            _placed(model.userFactors, sampled, ("user_number", "user_id"), context.rows.user_ids, dim),
            _placed(model.itemFactors, mine, ("item_index", "item_id"), item_ids, dim),
            _gram(model.itemFactors, dim),
        )


@dataclass
class AlsStatic:
    """The factors of each row's user as they were at ``plan.until``, then 1 or, where the user was unknown, zeros.

    So it is zeros of all cut rows: who is as little known as they are has no factors.
    """

    factors: Factorization
    name: str = "als_static"

    def fit(self, context: Context) -> None:
        """Factorise."""
        self.factors.fitted(context)

    def matrix(self, context: Context) -> Floats32:
        """Look the users up."""
        users_ND = self.factors.fitted(context).user_UD[context.rows.user_N]
        return flagged(np.zeros_like(users_ND) if context.is_cut else users_ND)


@dataclass
class AlsFolded:
    """The factors that a row's user would have by all that lies before the row's date; then 1, or zeros without any.

    Items keep the factors that they had at ``plan.until``; those that were not sold before count for nothing. The
    factorization is that of ``AlsStatic``, whose fit the clock has counted where that one comes first.
    """

    factors: Factorization
    name: str = "als_folded"

    def fit(self, context: Context) -> None:
        """Factorise, if that has not been done."""
        self.factors.fitted(context)

    def matrix(self, context: Context) -> Floats32:
        """Solve a system for each row."""
        return flagged(folded(context.futures.history, self.factors.fitted(context), self.factors.settings))


@dataclass
class AlsRefitted:
    """Factors of each row's user by a factorization of that date: of the rows' users, on all that lies before it.

    Each date's factors are rotated onto those of the date before, so that probes read one space. Then 1, or zeros
    without any event. Cost: a fit by ``implicit`` per date, on one core of the driver.
    """

    settings: AlsVectors
    name: str = "als_refitted"
    _item_ID: dict[date, Floats32] = field(default_factory=dict, init=False)

    def fit(self, context: Context) -> None:
        """Factorize at each of the rows' dates, from the directions of the date before."""
        num_items, dim = len(context.activity.item_ids), self.settings.dim
        before_ID = np.zeros((num_items, dim), np.float32)
        for day in context.rows.dates:
            counts_UI = csr_matrix(context.activity.num_events(None, day), dtype=np.float32)
            start_ID = initial_factors(normalize(before_ID), context.seed)
            factors_ID = fit_item_factors(counts_UI, start_ID, settings=self.settings, num_threads=1)
            if before_ID.any():
                rotation_DD, _ = orthogonal_procrustes(factors_ID, before_ID)
                factors_ID = (factors_ID @ rotation_DD).astype(np.float32)
            self._item_ID[day] = before_ID = factors_ID

    def matrix(self, context: Context) -> Floats32:
        """Solve a system for each row, with the items of its date."""
        x_ND = np.zeros((len(context.rows), self.settings.dim), np.float32)
        for d, day in enumerate(context.rows.dates):
            at_date = np.flatnonzero(context.rows.date_N == d)
            item_ID = self._item_ID[day]
            fitted = Fitted(x_ND[:0], item_ID, item_ID.T.astype(np.float64) @ item_ID)
            x_ND[at_date] = folded(csr_array(context.futures.history[at_date]), fitted, self.settings)
        return flagged(x_ND)


def folded(history_NI: csr_array, fitted: Fitted, settings: AlsVectors) -> Floats32:
    """Take half a step of ALS as Spark does: confidence 1 + alpha log(1 + events), ridge by the number of items met."""
    has_factors = np.flatnonzero(fitted.item_ID.any(axis=1))
    met_NI = csr_array(history_NI @ _diagonal(has_factors, history_NI.shape[1]))
    met_NI.eliminate_zeros()
    confidence_E = settings.alpha * np.log1p(met_NI.data)
    x_ND = factors_of_rows(
        met_NI, confidence_E, 1 + confidence_E, fitted.item_ID.astype(np.float64),
        zeros_N=np.ones(met_NI.shape[0]), gram_DD=fitted.gram_DD, ridge=settings.regularization,
    )  # fmt: skip
    return x_ND.astype(np.float32)


def flagged(x_ND: Floats32) -> Floats32:
    """Add a column that says where there is anything but zeros."""
    return np.hstack([x_ND, x_ND.any(axis=1, keepdims=True).astype(np.float32)])


def _placed(
    factors: DataFrame, numbers: DataFrame, columns: tuple[str, str], ids: pa.StringArray, dim: int
) -> Floats32:
    """Lay factors (id, features) out in the order of ids; ``numbers`` has ``columns``: their id there, and ours."""
    number, column = columns
    mine = factors.withColumnRenamed("id", number).join(F.broadcast(numbers), on=number, how="inner")
    found = mine.select(column, "features").toArrow()
    x_ID = np.zeros((len(ids), dim), np.float32)
    at = places(combined(found.column(column)).cast(pa.string()), ids)
    known = at >= 0
    x_ID[at[known]] = stacked(combined(found.column("features")), dim)[known]
    return x_ID


def _gram(factors: DataFrame, dim: int) -> Floats:
    """Sum y y' over all factors: one matrix a partition reaches the driver."""

    def products(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        total_DD = np.zeros((dim, dim))
        for batch in batches:
            y_BD = stacked(batch.column("features"), dim).astype(np.float64)
            total_DD += y_BD.T @ y_BD
        yield pa.RecordBatch.from_pydict({"product": [total_DD.ravel()]})

    parts = factors.select("features").mapInArrow(products, "product ARRAY<DOUBLE>").toArrow().column("product")
    gram_DD: Floats = np.array(parts.to_pylist()).sum(axis=0).reshape(dim, dim)
    return gram_DD


def _diagonal(kept: Ints, size: int) -> csr_array:
    """Return the matrix that leaves these columns as they are, and empties the others."""
    return csr_array((np.ones(len(kept)), (kept, kept)), shape=(size, size))
