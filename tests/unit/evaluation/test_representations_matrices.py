"""The non-negative factorization of counts against its own objective."""

import numpy as np
import pytest
from scipy.optimize import nnls
from scipy.sparse import csr_array
from sklearn.preprocessing import normalize

from tests.support.evaluation_world import counts_of, events_of_groups
from userrep.evaluation.representations.matrices import Nmf

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
