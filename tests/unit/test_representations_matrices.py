"""Factorisations of the matrix of counts against scikit-learn and against their own objective."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.sparse import csr_array
from sklearn.preprocessing import normalize

from tests.support.evaluation_world import counts_of, events_of_groups
from userrep.evaluation.representations.matrices import Nmf, Pmf

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def counts_UV() -> csr_array:
    return counts_of(events_of_groups())


def test_nmf_gives_square_roots_of_the_factors_of_log_counts_of_length_one(counts_UV: csr_array) -> None:
    nmf = Nmf()
    nmf.fit_counts(counts_UV, seed=3)
    x_UD = nmf.folded(counts_UV)[:, :-1].astype(np.float64)
    assert nmf._model is not None
    items_DV = nmf._model.components_
    target_UV = normalize(np.log1p(counts_UV.toarray()))
    found_U = np.linalg.norm(target_UV - np.square(x_UD) @ items_DV, axis=1)
    best_U = np.array([nnls(items_DV.T.astype(np.float64), row_V)[1] for row_V in target_UV])
    assert (found_U >= best_U - 1e-5).all()
    assert found_U.mean() < best_U.mean() + 0.01
    assert found_U.mean() < 0.4  # of rows of length 1


def test_nmf_does_not_see_how_much_a_user_buys(counts_UV: csr_array) -> None:
    nmf = Nmf()
    nmf.fit_counts(counts_UV, seed=3)
    once = csr_array((counts_UV > 0).astype(np.float64))
    thrice = csr_array(once * 7.0)
    np.testing.assert_allclose(nmf.folded(once), nmf.folded(thrice), atol=1e-4)


def loss_of_pmf(user_D: NDArray[np.float64], item_VD: NDArray[np.float64], row_V: NDArray[np.float64]) -> float:
    """Return a row's squared errors, items that it lacks drawn as often as items that it has, and its ridge."""
    met_V = row_V > 0
    score_V = item_VD @ user_D
    chance = met_V.mean()
    zeros = chance * np.square(score_V).sum()
    return float(np.square(score_V - np.log1p(row_V))[met_V].sum() + zeros + 0.02 * met_V.sum() * user_D @ user_D)


def test_a_user_of_pmf_has_the_least_loss_given_the_items(counts_UV: csr_array) -> None:
    pmf, rng = Pmf(), np.random.default_rng(0)
    pmf.fit_counts(counts_UV, seed=3)
    rows_UV, x_UD = counts_UV.toarray(), pmf.folded(counts_UV)[:, :-1].astype(np.float64)
    for user in (0, 7, 31):
        best = loss_of_pmf(x_UD[user], pmf._item_VD, rows_UV[user])
        for scale in (1e-2, 1e-1, 1):
            moved = x_UD[user] + rng.normal(scale=scale / 9, size=x_UD.shape[1])
            assert loss_of_pmf(moved, pmf._item_VD, rows_UV[user]) > best
        assert best < 0.5 * loss_of_pmf(0 * x_UD[user], pmf._item_VD, rows_UV[user])


def test_pmf_orders_the_items_that_a_user_has_by_its_counts(counts_UV: csr_array) -> None:
    pmf = Pmf()
    pmf.fit_counts(counts_UV, seed=3)
    rows_UV, x_UD = counts_UV.toarray(), pmf.folded(counts_UV)[:, :-1]
    met = rows_UV > 0
    assert np.corrcoef((x_UD @ pmf._item_VD.T)[met], np.log1p(rows_UV[met]))[0, 1] > 0.8
