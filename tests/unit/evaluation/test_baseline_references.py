"""Baselines against reference libraries: held-out items are ranked as well, on a generated log and on MovieLens 100K.

A margin is what a baseline may fall behind its reference. The last tests cripple each baseline, and find that it then
falls behind by more. Shapes: U users, V items, D factors, N rows, P pairs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from scipy.sparse import csr_array, csr_matrix
from sklearn.decomposition import NMF, PCA
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler, normalize
from threadpoolctl import threadpool_limits

from userrep.config import AlsVectors
from userrep.evaluation.dates import EvaluationPlan
from userrep.evaluation.futures import Activity, Futures
from userrep.evaluation.representation import Context
from userrep.evaluation.representations import nmf
from userrep.evaluation.representations.als import ItemFactors, factorized, folded, folded_in, looked_up
from userrep.evaluation.representations.inputs import fit_pca
from userrep.evaluation.sampled_rows import TEST, Rows

pytestmark = pytest.mark.full

SHARED = Path(__file__).parents[4] / "shared" / "data"
MARGIN = 0.01
TOP = 20  # of recall
ALS = AlsVectors(kind="als", dim=80, regularization=0.5, alpha=3, iterations=10)
UNTIL = date(2024, 3, 1)

Floats = NDArray[np.float64]


class Quality(NamedTuple):
    """How a user's hidden items are ranked among all that were not shown: means over users."""

    auc: float
    recall: float


@dataclass(frozen=True)
class Log:
    """Counts of U users and V items: most entries are shown to models, and one in five of each user's is hidden."""

    shown_UV: csr_array
    hidden_UV: csr_array
    references: dict[str, Quality] = field(default_factory=dict)

    @classmethod
    def of(cls, counts_UV: csr_array) -> "Log":
        """Hide a fifth of each user's items, one at least."""
        rng, is_hidden_E = np.random.default_rng(1), np.zeros(counts_UV.nnz, bool)
        for start, count in zip(counts_UV.indptr, np.diff(counts_UV.indptr), strict=False):
            is_hidden_E[start + rng.permutation(count)[: max(1, count // 5)]] = True
        return cls(_only(counts_UV, ~is_hidden_E), _only(counts_UV, is_hidden_E))

    def quality(self, score_UV: NDArray[Any], users: slice = slice(None)) -> Quality:
        """Judge scores of all items."""
        is_shown_UV, is_hidden_UV = self.shown_UV[users].toarray() > 0, self.hidden_UV[users].toarray() > 0
        score_UV = np.where(is_shown_UV, -np.inf, score_UV)
        order_UV = np.argsort(-score_UV, axis=1, kind="stable")
        is_hit_UV = np.take_along_axis(is_hidden_UV, order_UV, axis=1)
        num_hidden_U = is_hidden_UV.sum(axis=1)
        num_others_U = (~is_shown_UV).sum(axis=1) - num_hidden_U
        place_UV = np.arange(is_hit_UV.shape[1])
        num_won_U = np.where(is_hit_UV, place_UV - (is_hit_UV.cumsum(axis=1) - 1), 0).sum(axis=1)  # others before hits
        recall_U = is_hit_UV[:, :TOP].sum(axis=1) / np.minimum(num_hidden_U, TOP)
        return Quality(float((1 - num_won_U / num_hidden_U / num_others_U).mean()), float(recall_U.mean()))

    def quality_of_vectors(self, x_UD: NDArray[Any]) -> Quality:
        """Judge vectors by what a ridge regression of items reads from them, on other users than it was fitted on."""
        x_UD = StandardScaler().fit_transform(np.asarray(x_UD, np.float64))
        items_UV = ((self.shown_UV + self.hidden_UV).toarray() > 0).astype(np.float64)
        test = slice(None, None, 5)
        train_U = np.arange(len(x_UD)) % 5 != 0
        models = [Ridge(alpha).fit(x_UD[train_U], items_UV[train_U]) for alpha in (300, 1000, 3000)]
        return max(self.quality(model.predict(x_UD[test]), test) for model in models)

    def reference(self, name: str) -> Quality:
        """Return the quality of a reference, fitted at the first call."""
        if name not in self.references:
            self.references[name] = REFERENCES[name](self)
        return self.references[name]

    @cached_property
    def log_counts_UV(self) -> csr_matrix:
        """The shown counts as ALS and NMF take them; implicit and scikit-learn want scipy's old class."""
        shown = self.shown_UV
        return csr_matrix((np.log1p(shown.data).astype(np.float32), shown.indices, shown.indptr), shape=shown.shape)

    @cached_property
    def confidence_UV(self) -> csr_matrix:
        """The shown counts as confidences for implicit, which takes them ready-made."""
        confidence = self.log_counts_UV.copy()
        confidence.data = 1 + np.float32(ALS.alpha) * confidence.data
        return confidence


def _only(counts: csr_array, is_kept_E: NDArray[np.bool_]) -> csr_array:
    kept = csr_array((counts.data * is_kept_E, counts.indices, counts.indptr), shape=counts.shape, copy=True)
    kept.eliminate_zeros()
    return kept


def generated() -> csr_array:
    """Draw 2,000 users with 25 events each among 500 items, by tastes of eight dimensions and popularity."""
    rng = np.random.default_rng(0)
    logit_UV = rng.normal(size=(2000, 8)) @ rng.normal(size=(8, 500)) + 0.7 * rng.normal(size=500)
    chance_UV = np.exp(logit_UV - logit_UV.max(axis=1, keepdims=True))
    chance_UV /= chance_UV.sum(axis=1, keepdims=True)
    counts_UV = rng.multinomial(np.maximum(5, rng.poisson(25, 2000)), chance_UV)
    return csr_array(counts_UV[(counts_UV > 0).sum(axis=1) > 1].astype(np.float64))


def movielens() -> csr_array:
    """Read who rated what, of items that five users rated at least."""
    path = SHARED / "ml100k" / "ml100k_events.parquet"
    if not path.exists():
        pytest.skip("shared data is absent: ml100k")
    events = pq.read_table(path, columns=["user_id", "item_id"])
    users, items = (events.column(name).combine_chunks().dictionary_encode().indices for name in events.column_names)
    counts_UV = csr_array((np.ones(len(users)), (users.to_numpy(), items.to_numpy())))
    return csr_array(counts_UV[:, np.flatnonzero((counts_UV > 0).sum(axis=0) >= 5)])


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep BLAS to one thread, as implicit asks for."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module", params=[generated, movielens], ids=lambda make: make.__name__)
def log(request: pytest.FixtureRequest) -> Log:
    return Log.of(request.param())


# -- references --------------------------------------------------------------------------------------------------------


def implicit_als(log: Log, regularization: float) -> AlternatingLeastSquares:
    model = AlternatingLeastSquares(
        ALS.dim, regularization=regularization, alpha=1.0, iterations=ALS.iterations, random_state=1, num_threads=1
    )
    model.fit(log.confidence_UV, show_progress=False)
    return model


def mean_ridge(log: Log) -> float:
    """Return the regularization that Spark's ALS has on average: it multiplies its own by a user's number of items."""
    return ALS.regularization * log.shown_UV.nnz / log.shown_UV.shape[0]


def als(log: Log) -> Quality:
    model = implicit_als(log, mean_ridge(log))
    return log.quality(model.user_factors @ model.item_factors.T)


def sklearn_nmf(log: Log) -> Quality:
    model = NMF(80, init="nndsvda", max_iter=200, tol=0, random_state=1)
    return log.quality_of_vectors(model.fit_transform(normalize(log.log_counts_UV)))


REFERENCES: dict[str, Callable[[Log], Quality]] = {"als": als, "nmf": sklearn_nmf}


# -- baselines ---------------------------------------------------------------------------------------------------------


def vectors_of_nmf(log: Log) -> NDArray[np.float32]:
    return nmf.folded(nmf.factorized(log.shown_UV, seed=1), log.shown_UV)


def test_nmf_vectors_hold_as_much_as_those_of_scikit_learns_nmf_with_another_start_and_more_rounds(log: Log) -> None:
    found, reference = log.quality_of_vectors(vectors_of_nmf(log)), log.reference("nmf")
    assert found.auc > reference.auc - MARGIN
    assert found.recall > reference.recall - MARGIN


# -- ALS: the factorization in Spark, and rows folded in ---------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ContextOf(Context):
    """A context whose events are a frame."""

    seen: DataFrame = field(kw_only=True)

    def interactions(self) -> DataFrame:
        return self.seen


def context_of(spark: SparkSession, log: Log) -> Context:
    """Let each user have one row, at the date before which all shown events lie."""
    num_users, num_items = log.shown_UV.shape
    user_ids, item_ids = (pa.array([f"{k:05d}" for k in range(size)]) for size in (num_users, num_items))
    user_E, item_E = (part.astype(np.int64) for part in log.shown_UV.nonzero())
    columns = {"user_id": user_ids.take(pa.array(user_E)), "item_id": item_ids.take(pa.array(item_E))}
    seen = spark.createDataFrame(pa.table(columns | {"num_events": log.shown_UV.data.astype(np.int64)}))
    empty = pa.RecordBatch.from_pydict({"user_id": user_ids})
    nobody_N = np.zeros(num_users, np.int64)
    rows = Rows(user_ids, (UNTIL,), np.arange(num_users), nobody_N, np.full(num_users, TEST, np.int8), empty)
    activity = Activity(
        (UNTIL,), user_ids, item_ids, user_E, item_E, np.zeros(len(user_E), np.int64), log.shown_UV.data,
        log.shown_UV.data, csr_array(log.shown_UV.shape, dtype=bool), np.zeros((1, num_items)),
        np.ones((1, num_items), bool),
    )  # fmt: skip
    plan = EvaluationPlan(UNTIL, UNTIL + timedelta(days=14), (7,), (UNTIL,), ())
    nothing = cast(Any, None)
    return ContextOf(nothing, nothing, nothing, plan, nothing, Futures(rows, activity), seed=1, seen=seen)


def test_als_in_spark_ranks_hidden_items_as_well_as_implicits_looked_up_or_folded_in(
    spark: SparkSession, log: Log
) -> None:
    context, reference = context_of(spark, log), log.reference("als")
    user_UD, items = factorized(context, ALS)
    vectors = {"als_static": looked_up(user_UD, context), "als_folded": folded_in(items, ALS, context)}
    model = implicit_als(log, mean_ridge(log))
    theirs_UV = model.user_factors @ model.item_factors.T
    for name, x_UD in vectors.items():
        score_UV = x_UD[:, :-1] @ items.item_ID.T
        found = log.quality(score_UV)
        assert found.auc > reference.auc - MARGIN, name
        assert found.recall > reference.recall - MARGIN, name
        assert np.corrcoef(score_UV.ravel(), theirs_UV.ravel())[0, 1] > 0.85, name


def test_a_user_folded_in_has_the_factors_that_implicit_recalculates(log: Log) -> None:
    model = implicit_als(log, mean_ridge(log))
    item_VD = model.item_factors
    fitted = ItemFactors(item_VD, item_VD.T.astype(np.float64) @ item_VD)
    found_UD = folded(log.shown_UV, fitted, ALS)
    num_items_U = np.diff(log.shown_UV.indptr)
    for num_items in np.unique(num_items_U)[:20]:  # implicit's ridge is the same for users of any number of items
        model.regularization = ALS.regularization * num_items
        users = np.flatnonzero(num_items_U == num_items)
        wanted_UD = model.recalculate_user(users, log.confidence_UV[users])
        np.testing.assert_allclose(found_UD[users], wanted_UD, atol=1e-3)


# -- principal components ----------------------------------------------------------------------------------------------


def test_components_of_bags_span_what_those_of_scikit_learn_span(log: Log) -> None:
    bags_UV = (log.shown_UV.toarray() > 0).astype(np.float32)
    context = cast(Context, SimpleNamespace(earlier_rows=bags_UV, scaled=lambda: bags_UV, seed=1))
    found_UD = fit_pca(context, num_components=10)(context).astype(np.float64)
    wanted_UD = PCA(10, svd_solver="full").fit(bags_UV.astype(np.float64)).transform(bags_UV)
    np.testing.assert_allclose(found_UD @ found_UD.T, wanted_UD @ wanted_UD.T, atol=2e-2)  # in rotated coordinates


# -- crippled baselines fall behind ------------------------------------------------------------------------------------


def noise_for_factors(log: Log) -> Quality:
    model, rng = implicit_als(log, mean_ridge(log)), np.random.default_rng(0)
    item_VD = rng.normal(size=model.item_factors.shape).astype(np.float32)
    fitted = ItemFactors(item_VD, item_VD.T.astype(np.float64) @ item_VD)
    return log.quality(folded(log.shown_UV, fitted, ALS) @ item_VD.T)


def vectors_of_other_users(log: Log) -> Quality:
    x_UD = vectors_of_nmf(log)
    return log.quality_of_vectors(x_UD[np.random.default_rng(0).permutation(len(x_UD))])


@pytest.mark.parametrize(
    ("crippled", "reference"),
    [
        (noise_for_factors, "als"),
        (vectors_of_other_users, "nmf"),
    ],
    ids=["als", "nmf"],
)
def test_a_baseline_without_training_falls_behind_its_reference(
    log: Log, crippled: Callable[[Log], Quality], reference: str
) -> None:
    found, wanted = crippled(log), log.reference(reference)
    assert found.auc < wanted.auc - MARGIN
    assert found.recall < wanted.recall - MARGIN
