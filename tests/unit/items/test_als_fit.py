"""The factorization of one version's interactions in this process, and the memory that it takes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from userrep.config import AlsVectors
from userrep.items import als_fit
from userrep.items.als_fit import event_counts, fit_item_factors, free_bytes, initial_factors, needed_bytes

pytestmark = pytest.mark.fast

ALS = AlsVectors(kind="als", dim=4, alpha=2.0, regularization=0.04)
Row = tuple[int, int, int]  # user_hash, item_index, num_events


def rows_of(rows: list[Row]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    types = {"user_hash": pa.int64(), "item_index": pa.int32(), "num_events": pa.int64()}
    return pa.table({name: pa.array(column, kind) for (name, kind), column in zip(types.items(), columns, strict=True)})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 5), st.integers(1, 9)), min_size=1))
def test_events_are_added_up_by_user_and_item(rows: list[Row]) -> None:
    wanted: dict[tuple[int, int], int] = {}
    for user, item, num in rows:
        wanted[user, item] = wanted.get((user, item), 0) + num
    counts = event_counts(rows_of(rows), 7)
    users = sorted({user for user, _, _ in rows})
    assert counts.shape == (len(users), 7)
    entries = zip(*counts.nonzero(), counts.data, strict=True)
    assert {(users[user], int(item)): num for user, item, num in entries} == wanted


def test_items_of_the_version_before_start_from_it_and_new_ones_at_a_direction_of_their_own() -> None:
    before = np.zeros((5, 4), np.float32)
    before[1] = [0, 1, 0, 0]
    start = initial_factors(before, seed=3)
    np.testing.assert_allclose(start[1], [0, 0.1, 0, 0], atol=1e-7)
    assert len({tuple(row) for row in start}) == 5
    assert np.linalg.norm(start, axis=1).max() < 0.3
    with_more_items = initial_factors(np.vstack([before, np.zeros((3, 4), np.float32)]), seed=3)
    np.testing.assert_array_equal(with_more_items[:5], start)
    assert (initial_factors(before, seed=4)[0] != start[0]).any()


def random_counts(seed: int) -> csr_matrix:
    """Return counts of 30 users and 12 items; the last item has no event."""
    rng = np.random.default_rng(seed)
    counts = csr_matrix((rng.poisson(0.6, (30, 12)) * (np.arange(12) < 11)).astype(np.float32))
    return counts[np.diff(counts.indptr) > 0]


def loss(counts: csr_matrix, item_ID: NDArray[np.float64]) -> float:
    """Return the loss of Hu, Koren, Volinsky 2008, with the best user factors for these item factors."""
    dense_UI = counts.toarray()
    ridge = ALS.regularization * (dense_UI > 0).sum() / ((len(dense_UI) + (dense_UI > 0).any(axis=0).sum()) / 2)
    confidence_UI, total = 1 + ALS.alpha * np.log1p(dense_UI), 0.0
    for confidence_I, is_met_I in zip(confidence_UI, dense_UI > 0, strict=True):
        gram = (item_ID.T * confidence_I) @ item_ID + ridge * np.eye(ALS.dim)
        x_D = np.linalg.solve(gram, item_ID.T @ (confidence_I * is_met_I))
        total += confidence_I @ (is_met_I - item_ID @ x_D) ** 2 + ridge * x_D @ x_D
    return float(total + ridge * (item_ID**2).sum())


def test_the_factors_are_a_minimum_of_the_published_loss() -> None:
    counts = random_counts(0)
    start = initial_factors(np.zeros((12, ALS.dim), np.float32), ALS.seed)
    factors = fit_item_factors(counts, start, settings=ALS, iterations=30, num_threads=1).astype(np.float64)
    assert not factors[11].any()
    at_the_minimum, rng = loss(counts, factors), np.random.default_rng(1)
    for _ in range(20):
        moved = factors + 0.05 * rng.normal(size=factors.shape) * factors.any(axis=1, keepdims=True)
        assert loss(counts, moved) > at_the_minimum


def test_the_number_of_threads_and_blas_threads_change_no_bit() -> None:
    counts = random_counts(2)
    start = initial_factors(np.zeros((12, ALS.dim), np.float32), ALS.seed)
    found = [fit_item_factors(counts, start, settings=ALS, iterations=30, num_threads=num) for num in (1, 2, 3)]
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()


def test_a_fit_needs_memory_for_its_interactions_and_for_the_factors_of_users_and_items() -> None:
    assert needed_bytes(50_000_000, 0, 80) == pytest.approx(4.8e9)
    assert needed_bytes(0, 1_000_000, 80) == pytest.approx(0.64e9)


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"meminfo": "MemTotal: 9 kB\nMemAvailable:   4000 kB\n"}, 4_096_000),
        ({"meminfo": "MemAvailable: 4000 kB\n", "memory.max": "3000000\n", "memory.current": "1000000\n"}, 2_000_000),
        ({"meminfo": "MemAvailable: 1000 kB\n", "memory.max": "3000000\n", "memory.current": "1000000\n"}, 1_024_000),
        (
            {
                "meminfo": "MemAvailable: 4000 kB\n",
                "memory.max": "3000000\n",
                "memory.current": "2900000\n",
                "memory.stat": "anon 5\ninactive_file 1900000\n",
            },
            2_000_000,
        ),
        ({"meminfo": "MemAvailable: 4000 kB\n", "memory.max": "max\n"}, 4_096_000),
        ({}, 0),
    ],
    ids=["machine", "container", "container on a full machine", "page cache", "container without a limit", "not Linux"],
)
def test_free_memory_is_that_of_the_machine_or_of_its_container(
    files: dict[str, str], free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(als_fit, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(als_fit, "_CGROUP", tmp_path)
    assert free_bytes() == free
