"""The items' side: vectors by date, and clusters of their directions."""

from datetime import date

import numpy as np
import pytest

from tests.support.evaluation_world import PLAN, item_vectors
from userrep.evaluation.item_vectors import ItemVectors, clustered

pytestmark = pytest.mark.fast


def test_item_vectors_that_know_the_future_are_found() -> None:
    vectors = np.eye(3, dtype=np.float32)
    with pytest.raises(AssertionError, match="item vectors must not be newer than their date, got version 2024-04-02"):
        ItemVectors({"content": 3}, {date(2024, 4, 1): date(2024, 4, 2)}, {date(2024, 4, 2): vectors})


def test_clusters_find_planted_directions_and_leave_out_items_without_a_vector() -> None:
    rng = np.random.default_rng(0)
    planted = rng.integers(0, 4, 200)
    x_IE = (np.eye(4, 8)[planted] + rng.normal(scale=0.05, size=(200, 8))).astype(np.float32)
    has = np.ones(200, bool)
    has[:5] = False
    x_IE[5] = 0
    found = clustered(x_IE, has, num_clusters=4, seed=1)
    assert (found[:6] == -1).all()
    assert len({(a, b) for a, b in zip(planted[6:], found[6:], strict=True)}) == 4
    assert (clustered(x_IE, np.zeros(200, bool), num_clusters=4, seed=1) == -1).all()
    assert item_vectors(x_IE).of("content", PLAN.test[0])[0].shape == (200, 8)


def test_each_modality_has_its_own_columns_of_the_vectors_and_its_own_marks() -> None:
    day, version = date(2024, 4, 3), date(2024, 4, 1)
    vectors_IE = np.arange(10, dtype=np.float32).reshape(2, 5)
    x_IX = np.hstack([vectors_IE, np.array([[1, 0], [1, 1]], np.float32)])
    vectors = ItemVectors({"behaviour": 2, "content": 3}, {day: version}, {version: x_IX})
    for modality, columns, has in (("behaviour", slice(0, 2), [True, True]), ("content", slice(2, 5), [False, True])):
        found_IE, found_I = vectors.of(modality, day)
        assert found_IE.tolist() == vectors_IE[:, columns].tolist()
        assert found_I.tolist() == has
    assert vectors.at(day).tolist() == [[0, 1, 2, 3, 4, 1, 0], [5, 6, 7, 8, 9, 1, 1]]
