"""Nearest neighbors that two sets of vectors share, and cosines of pairs."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from userrep.spaces.agreement import _unit, shared_neighbours

pytestmark = pytest.mark.fast


def test_shared_neighbors_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(2)
    a_BD = random.normal(size=(60, 5))
    b_BD = a_BD + 0.5 * random.normal(size=a_BD.shape)

    def nearest(z_BD: np.ndarray) -> list[set[int]]:
        places = NearestNeighbors(n_neighbors=11, metric="cosine").fit(z_BD).kneighbors(z_BD, return_distance=False)
        return [set(row) - {k} for k, row in enumerate(places.tolist())]

    shared = [len(a & b) / 10 for a, b in zip(nearest(a_BD), nearest(b_BD), strict=True)]
    assert 0.2 < np.mean(shared) < 0.8
    assert shared_neighbours(a_BD, b_BD) == pytest.approx(np.mean(shared))


def test_lengths_of_vectors_do_not_matter() -> None:
    random = np.random.default_rng(3)
    z_BD = random.normal(size=(40, 3))
    assert shared_neighbours(z_BD * random.uniform(0.1, 9, size=(40, 1)), z_BD) == 1


def test_fewer_than_eleven_rows_share_all_the_others() -> None:
    random = np.random.default_rng(4)
    assert shared_neighbours(random.normal(size=(11, 4)), random.normal(size=(11, 4))) == 1
    assert shared_neighbours(random.normal(size=(12, 4)), random.normal(size=(12, 4))) < 1
    assert shared_neighbours(np.ones((1, 4)), np.zeros((1, 4))) == 1
    assert shared_neighbours(np.ones((0, 4)), np.ones((0, 4))) == 1


def test_cosines_are_of_the_two_vectors_of_each_row() -> None:
    a_BD = np.array([[3.0, 4.0], [1.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    b_BD = np.array([[6.0, 8.0], [0.0, 5.0], [-1.0, -2.0], [1.0, 1.0]])
    assert (_unit(a_BD) * _unit(b_BD)).sum(axis=1) == pytest.approx([1, 0, -1, 0])
    random = np.random.default_rng(5)
    a_BD, b_BD = random.normal(size=(2, 9, 4))
    cosines_B = (_unit(a_BD) * _unit(b_BD)).sum(axis=1)
    np.testing.assert_allclose(cosines_B, np.diag(cosine_similarity(a_BD, b_BD)))
