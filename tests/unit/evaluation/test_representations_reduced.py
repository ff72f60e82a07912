"""Principal components against scikit-learn's."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from userrep.evaluation.representations.reduced import Pca

pytestmark = pytest.mark.fast


def scaled_to(x_NF: NDArray[np.float32]) -> Any:
    """Return a context whose scaled rows are these."""
    return cast(Any, SimpleNamespace(scaled=lambda: x_NF))


def rows(num_rows: int = 300, seed: int = 0) -> NDArray[np.float32]:
    """Draw rows of 12 inputs that go together, far from the origin and of very different variances."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(num_rows, 12)) * 2.0 ** -np.arange(12) @ rng.normal(size=(12, 12))
    return (mixed + 5).astype(np.float32)


def test_components_are_those_of_scikit_learn_up_to_their_signs() -> None:
    x_BF, x_NF = rows(), rows(50, seed=1)
    pca = Pca(num_components=5)
    pca.fit_rows(x_BF)
    found_ND = pca.matrix(scaled_to(x_NF))
    wanted_ND = PCA(5).fit(x_BF.astype(np.float64)).transform(x_NF.astype(np.float64))
    assert found_ND.dtype == np.float32
    np.testing.assert_allclose(np.abs(found_ND), np.abs(wanted_ND), rtol=1e-3, atol=1e-3)


def test_there_are_as_many_components_as_inputs_at_most() -> None:
    pca, x_BF = Pca(), rows()
    pca.fit_rows(x_BF)
    found_ND = pca.matrix(scaled_to(x_BF))
    assert found_ND.shape == (300, 12)
    lengths = np.linalg.norm(found_ND.astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(x_BF - x_BF.mean(axis=0), axis=1), rtol=1e-3)  # nothing is lost
