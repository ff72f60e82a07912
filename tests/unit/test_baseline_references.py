"""Baselines against reference libraries: held-out items are ranked as well, on a generated log and on MovieLens 100K.

A margin is what a baseline may fall behind its reference. The last tests cripple each baseline, and find that it then
falls behind by more. Shapes: U users, V items, D factors, N rows, P pairs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.bpr import BayesianPersonalizedRanking
from implicit.cpu.lmf import LogisticMatrixFactorization
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from scipy.sparse import csr_array, csr_matrix
from sklearn.decomposition import NMF, PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler, normalize
from threadpoolctl import threadpool_limits

from userrep.config import AlsVectors
from userrep.evaluation.activity import Activity, Futures
from userrep.evaluation.heads import PairData, Setting, standardised
from userrep.evaluation.plan import Plan
from userrep.evaluation.representation import Context
from userrep.evaluation.representations import matrices
from userrep.evaluation.representations.als import AlsFolded, AlsStatic, Factorisation, Fitted, folded
from userrep.evaluation.representations.hybrid import Hybrid
from userrep.evaluation.representations.matrices import Nmf, Pmf
from userrep.evaluation.representations.reduced import Pca
from userrep.evaluation.representations.supervised import DlrmHeads
from userrep.evaluation.representations.variational import MultVae
from userrep.evaluation.rows import TEST, Rows
from userrep.features.layout import Block

pytestmark = pytest.mark.full

SHARED = Path(__file__).parents[3] / "shared" / "data"
MARGIN = 0.01
MARGIN_OF_VAE = 0.03  # of recall; EASE is ahead on small logs, and seeds differ by as much
TOP = 20  # of recall
HYBRID_STEPS = 200  # a tenth of a full training
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
        """The shown counts as ALS, NMF and PMF take them; implicit and scikit-learn want scipy's old class."""
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


def ranked_by(model: BayesianPersonalizedRanking | LogisticMatrixFactorization, log: Log) -> Quality:
    ones = log.confidence_UV.copy()
    ones.data[:] = 1
    model.fit(ones, show_progress=False)
    return log.quality(model.user_factors @ model.item_factors.T)


def bpr(log: Log) -> Quality:
    settings = {"learning_rate": 0.05, "regularization": 0.05, "iterations": 200}
    return ranked_by(BayesianPersonalizedRanking(80, **settings, random_state=1, num_threads=1), log)


def lmf(log: Log) -> Quality:
    return ranked_by(LogisticMatrixFactorization(30, iterations=30, random_state=1, num_threads=1), log)


def ease(log: Log) -> Quality:
    """Fit the best item-to-item regression without a diagonal (Steck 2019), a closed form."""
    bags_UV, found = (log.shown_UV.toarray() > 0).astype(np.float64), []
    for ridge in (100, 300):
        inverse_VV = np.linalg.inv(bags_UV.T @ bags_UV + ridge * np.eye(bags_UV.shape[1]))
        weight_VV = -inverse_VV / np.diag(inverse_VV)
        np.fill_diagonal(weight_VV, 0)
        found.append(log.quality(bags_UV @ weight_VV))
    return max(found)


def sklearn_nmf(log: Log) -> Quality:
    model = NMF(80, init="nndsvda", max_iter=200, tol=0, random_state=1)
    return log.quality_of_vectors(model.fit_transform(normalize(log.log_counts_UV)))


def pmf_by_gradient(log: Log) -> Quality:
    """Fit the objective of PMF by Adam, users and items at once: zeros count as often as they are drawn."""
    target_UV = torch.from_numpy(log.log_counts_UV.toarray())
    is_met_UV = (target_UV > 0).float()
    num_U, num_V = is_met_UV.sum(dim=1), is_met_UV.sum(dim=0)
    weight_UV = is_met_UV + (num_U / target_UV.shape[1])[:, None]
    generator = torch.Generator().manual_seed(1)
    user_UD, item_VD = (
        (torch.randn(size, 80, generator=generator) * 80**-0.5).requires_grad_() for size in target_UV.shape
    )
    optimizer = torch.optim.Adam([user_UD, item_VD], lr=0.03)
    # A weighted square that equals (score - target)² of what is met and chance x score² of everything.
    aim_UV = torch.where(is_met_UV > 0, target_UV / weight_UV, 0)
    for _ in range(150):
        optimizer.zero_grad()
        error = (weight_UV * (user_UD @ item_VD.T - aim_UV).square()).sum()
        ridge = (num_U * user_UD.square().sum(dim=1)).sum() + (num_V * item_VD.square().sum(dim=1)).sum()
        (error + 0.02 * ridge).backward()
        optimizer.step()
    with torch.inference_mode():
        return log.quality((user_UD @ item_VD.T).numpy())


REFERENCES: dict[str, Callable[[Log], Quality]] = {
    "als": als, "bpr": bpr, "lmf": lmf, "ease": ease, "nmf": sklearn_nmf, "pmf": pmf_by_gradient,
}  # fmt: skip


# -- baselines ---------------------------------------------------------------------------------------------------------


def scores_of_pmf(log: Log) -> Floats:
    pmf = Pmf()
    pmf.fit_counts(log.shown_UV, seed=1)
    return pmf.folded(log.shown_UV)[:, :-1] @ pmf._item_VD.T


def vectors_of_nmf(log: Log) -> NDArray[np.float32]:
    nmf = Nmf()
    nmf.fit_counts(log.shown_UV, seed=1)
    return nmf.folded(log.shown_UV)


def scores_of_hybrid(log: Log, max_steps: int) -> NDArray[np.float32]:
    num_users, num_items = log.shown_UV.shape
    nothing_UA, nothing_VC = (np.zeros((size, 1), np.float32) for size in (num_users, num_items))
    hybrid = Hybrid(max_steps=max_steps)
    hybrid.fit_counts(log.shown_UV, nothing_VC, nothing_UA, seed=1)
    assert hybrid._net is not None
    x_UD = hybrid.described(log.shown_UV, nothing_UA)[:, :-1]
    with torch.inference_mode():
        return x_UD @ hybrid._net.items().numpy().T + hybrid._net.bias.numpy()


def scores_of_vae(log: Log, vae: MultVae, seed: int) -> NDArray[np.float32]:
    vae.fit_counts(log.shown_UV, seed=seed)
    assert vae._net is not None
    with torch.inference_mode():
        return vae._net.decoder(torch.from_numpy(vae.encoded(log.shown_UV)[:, :-1])).numpy()


def test_pmf_ranks_hidden_items_as_well_as_its_objective_fitted_by_gradient_descent(log: Log) -> None:
    found, reference = log.quality(scores_of_pmf(log)), log.reference("pmf")
    assert found.auc > reference.auc - MARGIN
    assert found.recall > reference.recall - MARGIN


def test_nmf_vectors_hold_as_much_as_those_of_scikit_learns_nmf_with_another_start_and_more_rounds(log: Log) -> None:
    found, reference = log.quality_of_vectors(vectors_of_nmf(log)), log.reference("nmf")
    assert found.auc > reference.auc - MARGIN
    assert found.recall > reference.recall - MARGIN


def test_the_hybrid_ranks_hidden_items_as_well_as_pairwise_and_logistic_factorisations_of_implicit(log: Log) -> None:
    found = log.quality(scores_of_hybrid(log, HYBRID_STEPS))
    for reference in (log.reference("bpr"), log.reference("lmf")):
        assert found.auc > reference.auc - MARGIN
        assert found.recall > reference.recall - MARGIN


def test_mult_vae_ranks_hidden_items_as_well_as_a_linear_autoencoder(log: Log) -> None:
    by_seed = [log.quality(scores_of_vae(log, MultVae(), seed)) for seed in (1, 2, 3)]
    found, reference = Quality(*np.mean(by_seed, axis=0).tolist()), log.reference("ease")
    assert found.auc > reference.auc - MARGIN
    assert found.recall > reference.recall - MARGIN_OF_VAE


# -- ALS: the factorisation in Spark, and rows folded in ---------------------------------------------------------------


@dataclass(frozen=True)
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
        log.shown_UV.data, csr_array(log.shown_UV.shape, dtype=bool), (UNTIL,), np.zeros((1, num_items)),
        np.ones((1, num_items), bool),
    )  # fmt: skip
    plan = Plan(UNTIL, UNTIL + timedelta(days=14), (7,), (), (UNTIL,), ())
    nothing = cast(Any, None)
    return ContextOf(nothing, nothing, nothing, plan, Futures(rows, activity), seed=1, seen=seen)


def test_als_in_spark_ranks_hidden_items_as_well_as_implicits_looked_up_or_folded_in(
    spark: SparkSession, log: Log
) -> None:
    context, factors, reference = context_of(spark, log), Factorisation(ALS), log.reference("als")
    static, folded_in = AlsStatic(factors), AlsFolded(factors)
    static.fit(context)
    item_VD = factors.fitted(context).item_ID
    model = implicit_als(log, mean_ridge(log))
    theirs_UV = model.user_factors @ model.item_factors.T
    for one in (static, folded_in):
        score_UV = one.matrix(context)[:, :-1] @ item_VD.T
        found = log.quality(score_UV)
        assert found.auc > reference.auc - MARGIN, one.name
        assert found.recall > reference.recall - MARGIN, one.name
        assert np.corrcoef(score_UV.ravel(), theirs_UV.ravel())[0, 1] > 0.85, one.name


def test_a_user_folded_in_has_the_factors_that_implicit_recalculates(log: Log) -> None:
    model = implicit_als(log, mean_ridge(log))
    item_VD = model.item_factors
    fitted = Fitted(np.zeros((0, ALS.dim), np.float32), item_VD, item_VD.T.astype(np.float64) @ item_VD)
    found_UD = folded(log.shown_UV, fitted, ALS)
    num_items_U = np.diff(log.shown_UV.indptr)
    for num_items in np.unique(num_items_U)[:20]:  # implicit's ridge is the same for users of any number of items
        model.regularization = ALS.regularization * num_items
        users = np.flatnonzero(num_items_U == num_items)
        wanted_UD = model.recalculate_user(users, log.confidence_UV[users])
        np.testing.assert_allclose(found_UD[users], wanted_UD, atol=1e-3)


# -- principal components, and the supervised model --------------------------------------------------------------------


def test_components_of_bags_span_what_those_of_scikit_learn_span(log: Log) -> None:
    bags_UV = (log.shown_UV.toarray() > 0).astype(np.float32)
    pca = Pca(num_components=10)
    pca.fit_rows(bags_UV)
    found_UD = (bags_UV - pca._center_F) @ pca._axes_FD
    wanted_UD = PCA(10, svd_solver="full").fit(bags_UV.astype(np.float64)).transform(bags_UV)
    np.testing.assert_allclose(np.abs(found_UD), np.abs(wanted_UD), atol=2e-3)


class LabelledPairs(NamedTuple):
    """Pairs of users and items with a label: to train on, to validate by, to test on."""

    x_NF: NDArray[np.float32]
    item_ME: NDArray[np.float32]
    row_P: NDArray[np.int64]
    item_P: NDArray[np.int64]
    y_P: NDArray[np.float32]
    blocks: tuple[Block, ...]

    @property
    def parts(self) -> list[NDArray[np.int64]]:
        part_P = np.random.default_rng(2).random(len(self.y_P))
        return [np.flatnonzero((part_P >= low) & (part_P < high)) for low, high in ((0, 0.6), (0.6, 0.8), (0.8, 1))]

    def side_by_side(self) -> NDArray[np.float32]:
        """Return what references read of a pair: its user's inputs, its item's, and products of their shared axes."""
        x_PF, item_PE = self.x_NF[self.row_P], self.item_ME[self.item_P]
        width = self.blocks[0].stop
        return np.hstack([x_PF, item_PE, x_PF[:, :width] * item_PE[:, :width]])


def generated_pairs() -> LabelledPairs:
    """Draw pairs whose label follows from a taste that users and items share, and from a country's own taste."""
    rng = np.random.default_rng(0)
    taste_NT, item_ME = rng.normal(size=(2000, 6)), rng.normal(size=(500, 6))
    country_N = rng.integers(0, 4, 2000)
    of_country = rng.normal(size=(4, 6))
    row_P, item_P = rng.integers(0, 2000, 60_000), rng.integers(0, 500, 60_000)
    logit_P = ((taste_NT + of_country[country_N])[row_P] * item_ME[item_P]).sum(axis=1) * 0.7
    y_P = rng.random(60_000) < 1 / (1 + np.exp(-logit_P))
    x_NF = np.hstack([taste_NT, np.eye(4)[country_N], rng.normal(size=(2000, 2))]).astype(np.float32)
    blocks = (
        Block(name="taste", kind="pooled", start=0, stop=6), Block(name="country", kind="one_hot", start=6, stop=10),
        Block(name="numbers", kind="scalar", start=10, stop=12),
    )  # fmt: skip
    return LabelledPairs(x_NF, item_ME.astype(np.float32), row_P, item_P, y_P.astype(np.float32), blocks)


def movielens_pairs() -> LabelledPairs:
    """Label ratings by whether they are four stars or more; users are the genres that they liked in training pairs."""
    folder = SHARED / "ml100k"
    if not folder.exists():
        pytest.skip("shared data is absent: ml100k")
    events, items = (pq.read_table(folder / name) for name in ("ml100k_events.parquet", "items.parquet"))
    genres_I = [genres.split("|") for genres in items.column("genres").to_pylist()]
    names = sorted({name for genres in genres_I for name in genres})
    genre_IG = np.array([[name in genres for name in names] for genres in genres_I], np.float32)
    users = events.column("user_id").combine_chunks().dictionary_encode()
    row_P = users.indices.to_numpy().astype(np.int64)
    at_P = pc.index_in(events.column("item_id").combine_chunks(), value_set=items.column("item_id").combine_chunks())
    item_P = at_P.to_numpy().astype(np.int64)
    y_P = (events.column("rating").to_numpy() >= 4).astype(np.float32)
    pairs = LabelledPairs(genre_IG, genre_IG, row_P, item_P, y_P, ())
    train, num_users = pairs.parts[0], len(users.dictionary)
    liked_NG = np.zeros((num_users, len(names)), np.float32)
    np.add.at(liked_NG, row_P[train], genre_IG[item_P[train]] * (2 * y_P[train] - 1)[:, None])
    count_N, count_I = np.bincount(row_P[train], minlength=num_users), np.bincount(item_P[train], minlength=len(items))
    liked_N, liked_I = (
        np.bincount(place_P[train], y_P[train], minlength=size)
        for place_P, size in ((row_P, num_users), (item_P, len(items)))
    )
    occupation = events.column("occupation").combine_chunks().dictionary_encode()
    of_user = np.zeros(num_users, np.int64)
    of_user[row_P] = occupation.indices.to_numpy()
    x_NF = np.hstack([
        liked_NG / np.maximum(count_N, 1)[:, None], np.eye(len(occupation.dictionary))[of_user],
        np.stack([np.log1p(count_N), (liked_N + 2) / (count_N + 4)], axis=1),
    ])  # fmt: skip
    item_ME = np.hstack([genre_IG, np.stack([np.log1p(count_I), (liked_I + 2) / (count_I + 4)], axis=1)])
    ends = np.cumsum([0, len(names), len(occupation.dictionary), 2]).tolist()
    kinds = (("liked", "pooled"), ("occupation", "one_hot"), ("numbers", "scalar"))
    blocks = tuple(
        Block(name=name, kind=cast(Any, kind), start=start, stop=stop)
        for (name, kind), start, stop in zip(kinds, ends, ends[1:], strict=False)
    )
    return LabelledPairs(
        standardised(x_NF.astype(np.float32), np.ones(num_users, bool)),
        standardised(item_ME.astype(np.float32), count_I > 0), row_P, item_P, y_P, blocks,
    )  # fmt: skip


def auc_of_dlrm(pairs: LabelledPairs, *, is_crippled: bool = False) -> float:
    train, valid, test = pairs.parts
    y_P = np.random.default_rng(0).permutation(pairs.y_P) if is_crippled else pairs.y_P
    arrays = (torch.from_numpy(array) for array in (pairs.x_NF, pairs.item_ME, pairs.row_P, pairs.item_P, y_P))
    net, _ = (data := PairData(*arrays, train, valid, DlrmHeads(pairs.blocks))).fitted(Setting(32, 1.0), 1)
    with torch.inference_mode():
        return float(roc_auc_score(pairs.y_P[test], data.logits(net, torch.from_numpy(test)).numpy()))


def auc_of_references(pairs: LabelledPairs) -> list[float]:
    train, _, test = pairs.parts
    x_PF = pairs.side_by_side()
    models = (HistGradientBoostingClassifier(random_state=0), LogisticRegression(max_iter=500))
    return [
        float(roc_auc_score(pairs.y_P[test], model.fit(x_PF[train], pairs.y_P[train]).predict_proba(x_PF[test])[:, 1]))
        for model in models
    ]


@pytest.mark.parametrize("make", [generated_pairs, movielens_pairs])
def test_the_dlrm_like_model_ranks_pairs_as_well_as_boosted_trees_and_a_regression(
    make: Callable[[], LabelledPairs],
) -> None:
    pairs = make()
    references = auc_of_references(pairs)
    assert auc_of_dlrm(pairs) > max(references) - MARGIN
    assert auc_of_dlrm(pairs, is_crippled=True) < max(references) - MARGIN


# -- crippled baselines fall behind ------------------------------------------------------------------------------------


def noise_for_factors(log: Log) -> Quality:
    model, rng = implicit_als(log, mean_ridge(log)), np.random.default_rng(0)
    item_VD = rng.normal(size=model.item_factors.shape).astype(np.float32)
    fitted = Fitted(np.zeros((0, ALS.dim), np.float32), item_VD, item_VD.T.astype(np.float64) @ item_VD)
    return log.quality(folded(log.shown_UV, fitted, ALS) @ item_VD.T)


def vectors_of_other_users(log: Log) -> Quality:
    x_UD = vectors_of_nmf(log)
    return log.quality_of_vectors(x_UD[np.random.default_rng(0).permutation(len(x_UD))])


def no_rounds_of_pmf(log: Log) -> Quality:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrices, "_PMF_ROUNDS", 0)
        return log.quality(scores_of_pmf(log))


@pytest.mark.parametrize(
    ("crippled", "reference"),
    [
        (noise_for_factors, "als"),
        (vectors_of_other_users, "nmf"),
        (no_rounds_of_pmf, "pmf"),
        (lambda log: log.quality(scores_of_hybrid(log, 0)), "lmf"),
        (lambda log: log.quality(scores_of_vae(log, MultVae(max_steps=0), 1)), "ease"),
    ],
    ids=["als", "nmf", "pmf", "hybrid", "mult_vae"],
)
def test_a_baseline_without_training_falls_behind_its_reference(
    log: Log, crippled: Callable[[Log], Quality], reference: str
) -> None:
    found, wanted = crippled(log), log.reference(reference)
    assert found.auc < wanted.auc - MARGIN
    assert found.recall < wanted.recall - MARGIN_OF_VAE
