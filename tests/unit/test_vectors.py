"""Directions of factors, rotated onto those of another version."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from userrep.items.vectors import aligned_directions

pytestmark = pytest.mark.fast


def unit(x_ID: NDArray[Any]) -> NDArray[Any]:
    return x_ID / np.linalg.norm(x_ID, axis=1, keepdims=True)


def test_directions_have_length_1_and_zeros_stay() -> None:
    factors = np.random.default_rng(5).normal(size=(6, 3)).astype(np.float32)
    factors[2] = 0
    found = aligned_directions(factors, np.zeros_like(factors))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found * np.linalg.norm(factors, axis=1, keepdims=True), factors, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 0, 1, 1, 1], atol=1e-6)


def test_the_rotation_is_found_from_the_items_in_both_versions() -> None:
    rng = np.random.default_rng(4)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    before = rng.normal(size=(60, 5)).astype(np.float32)
    now = (before * rng.uniform(0.5, 2, (60, 1)) @ rotation.T).astype(np.float32)
    now[40:50] = rng.normal(size=(10, 5))  # new items
    seen = unit(before)
    seen[40:50] = 0
    now[50:] = 0  # items that have no event any more
    found = aligned_directions(now, seen.astype(np.float32))
    np.testing.assert_allclose(found[:40], unit(before)[:40], atol=1e-5)
    np.testing.assert_allclose(found[40:50], unit(now[40:50]) @ rotation, atol=1e-5)


def test_without_an_item_in_both_versions_nothing_is_rotated() -> None:
    factors, before = np.zeros((2, 4, 3), np.float32)
    factors[:2], before[2:] = np.eye(3)[:2], np.eye(3)[1:]
    np.testing.assert_array_equal(aligned_directions(factors, before), factors)
