"""The non-negative factorization of counts against its own objective, and the sample of counts that it is fitted on."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from scipy.sparse import csr_array
from sklearn.preprocessing import normalize

from tests.support.evaluation_world import (
    NUM_GROUPED,
    PLAN,
    context_of,
    events_of_groups,
    item_id,
    sample_of_groups,
)
from userrep.evaluation.representations.nmf import SampledCounts, factorized, folded, matrix_of, sample_of

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def sample() -> SampledCounts:
    return sample_of_groups(events_of_groups())


def test_nmf_gives_square_roots_of_the_factors_of_log_counts_of_length_one(sample: SampledCounts) -> None:
    model = factorized(sample.num_events_UV, seed=3)
    x_UD = folded(model, sample.num_events_UV)[:, :-1].astype(np.float64)
    items_DV = model.components_
    target_UV = normalize(np.log1p(sample.num_events_UV.toarray()))
    found_U = np.linalg.norm(target_UV - np.square(x_UD) @ items_DV, axis=1)
    best_U = np.array([nnls(items_DV.T.astype(np.float64), row_V)[1] for row_V in target_UV])
    assert (found_U >= best_U - 1e-5).all()
    assert found_U.mean() < best_U.mean() + 0.01
    assert found_U.mean() < 0.4  # of rows of length 1


def test_nmf_does_not_see_how_much_a_user_buys(sample: SampledCounts) -> None:
    model = factorized(sample.num_events_UV, seed=3)
    once = csr_array((sample.num_events_UV > 0).astype(np.float64))
    thrice = csr_array(once * 7.0)
    np.testing.assert_allclose(folded(model, once), folded(model, thrice), atol=1e-4)


def test_a_rows_vector_is_that_of_its_events_before_its_date_under_the_samples_items() -> None:
    events = events_of_groups()
    items = [3, 8, 39]
    columns = {"user_id": ["a", "b", "b"], "item_id": [item_id(k) for k in items], "num_events": [1.0, 2.0, 1.0]}
    context, sample = context_of(events), sample_of(pa.table(columns))
    model, x_ND = factorized(sample.num_events_UV, seed=1), matrix_of(sample, seed=1)(context)
    for n in range(0, len(context.rows), 11):
        user, day = int(context.rows.user_N[n]), context.rows.dates[context.rows.date_N[n]]
        counts = [sum((e.user, e.item) == (user, item) and e.day < day for e in events) for item in items]
        np.testing.assert_allclose(x_ND[n], folded(model, csr_array([counts]).astype(np.float64))[0], atol=1e-5)
    assert len(context.rows) == NUM_GROUPED * len(PLAN.dates)


# -- the sample --------------------------------------------------------------------------------------------------------


def test_a_sample_keeps_the_items_that_most_users_met_whatever_the_order_of_its_entries() -> None:
    entries = [("b", "y", 2.0), ("a", "x", 1.0), ("a", "y", 4.0), ("c", "z", 9.0), ("c", "w", 1.0)]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        columns = zip(*(entries[k] for k in order), strict=True)
        table = pa.table(dict(zip(("user_id", "item_id", "num_events"), columns, strict=True)))
        sample = sample_of(table, max_items=2)
        assert (sample.user_ids.to_pylist(), sample.item_ids.to_pylist()) == (["a", "b", "c"], ["w", "y"])
        assert sample.num_events_UV.toarray().tolist() == [[0, 4], [0, 2], [1, 0]]
    moved = sample.columns_of(csr_array([[1, 2, 3]]), pa.array(["v", "w", "y"]))
    assert moved.toarray().tolist() == [[2, 3]]


def test_a_user_whose_items_are_all_dropped_stays_as_an_empty_row() -> None:
    entries = pa.table({"user_id": ["a", "b", "c"], "item_id": ["x", "x", "rare"], "num_events": [1.0, 2.0, 3.0]})
    sample = sample_of(entries, max_items=1)
    assert sample.user_ids.to_pylist() == ["a", "b", "c"]
    assert sample.num_events_UV.toarray().tolist() == [[1], [2], [0]]


ids = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


@settings(deadline=None)
@given(ids, ids, st.integers(0, 2**31))
def test_counts_are_put_under_the_same_items_of_the_sample(ours: list[str], theirs: list[str], seed: int) -> None:
    counts_NI = np.random.default_rng(seed).integers(0, 3, (4, len(theirs)))
    sample = SampledCounts(pa.array([], pa.string()), pa.array(sorted(ours), pa.string()), csr_array((0, len(ours))))
    found_NV = sample.columns_of(csr_array(counts_NI), pa.array(theirs, pa.string())).toarray()
    assert found_NV.shape == (4, len(ours))
    for v, item in enumerate(sorted(ours)):
        assert found_NV[:, v].tolist() == (counts_NI[:, theirs.index(item)].tolist() if item in theirs else [0] * 4)
