"""Factors of rows against one overdetermined system, solved by numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array

from userrep.evaluation.representations import least_squares
from userrep.evaluation.representations.least_squares import factors_of_rows

pytestmark = pytest.mark.fast


def by_stacked_least_squares(
    row_I: NDArray[np.float64], item_ID: NDArray[np.float64], zeros: float, ridge: float
) -> NDArray[np.float64]:
    """Minimize the squared errors of items met, of all items from zero, and the ridge, as one overdetermined system."""
    met = np.flatnonzero(row_I)
    left = [item_ID[met], np.sqrt(zeros) * item_ID, np.sqrt(ridge * len(met)) * np.eye(item_ID.shape[1])]
    right = [row_I[met], np.zeros(len(item_ID)), np.zeros(item_ID.shape[1])]
    found: NDArray[np.float64] = np.linalg.lstsq(np.vstack(left), np.concatenate(right))[0]
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(0, 2), st.floats(0.01, 2))
def test_factors_are_those_of_least_squares(seed: int, zeros: float, ridge: float) -> None:
    rng = np.random.default_rng(seed)
    rows_NI, item_ID = rng.poisson(0.4, size=(5, 12)).astype(np.float64), rng.normal(size=(12, 3))
    counts_NI = csr_array(rows_NI)
    found_ND = factors_of_rows(
        counts_NI, np.ones(counts_NI.nnz), counts_NI.data, item_ID,
        zeros_N=np.full(5, zeros), gram_DD=item_ID.T @ item_ID, ridge=ridge,
    )  # fmt: skip
    for row_I, found_D in zip(rows_NI, found_ND, strict=True):
        wanted = by_stacked_least_squares(row_I, item_ID, zeros, ridge) if row_I.any() else np.zeros(3)
        np.testing.assert_allclose(found_D, wanted, atol=1e-8)


def test_each_entry_has_its_own_weights_and_each_row_its_own_chance_of_zeros() -> None:
    rng = np.random.default_rng(0)
    rows_NI, item_ID = rng.poisson(0.6, size=(6, 9)).astype(np.float64), rng.normal(size=(9, 3))
    counts_NI, zeros_N = csr_array(rows_NI), rng.random(6)
    left_E, right_E = rng.random((2, counts_NI.nnz))
    found_ND = factors_of_rows(
        counts_NI, left_E, right_E, item_ID, zeros_N=zeros_N, gram_DD=item_ID.T @ item_ID, ridge=0.3
    )
    e = 0
    for n in range(6):
        met = np.flatnonzero(rows_NI[n])
        left_DD = zeros_N[n] * item_ID.T @ item_ID + 0.3 * len(met) * np.eye(3)
        right_D = np.zeros(3)
        for item in met:
            left_DD += left_E[e] * np.outer(item_ID[item], item_ID[item])
            right_D += right_E[e] * item_ID[item]
            e += 1
        np.testing.assert_allclose(found_ND[n], np.linalg.solve(left_DD, right_D), atol=1e-9)


def test_rows_are_the_same_in_chunks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    rows_NI, item_ID = rng.poisson(0.3, size=(11, 8)).astype(np.float64), rng.normal(size=(8, 2))
    rows_NI[3:6] = 0  # a chunk without any entry
    counts_NI, found = csr_array(rows_NI), []
    for size in (3, 11, 512):
        monkeypatch.setattr(least_squares, "_CHUNK", size)
        found.append(
            factors_of_rows(
                counts_NI, counts_NI.data, counts_NI.data, item_ID, zeros_N=np.zeros(11), gram_DD=np.eye(2), ridge=1
            )
        )
    assert (found[0] == found[1]).all()
    assert (found[1] == found[2]).all()
    assert (found[0].any(axis=1) == rows_NI.any(axis=1)).all()
