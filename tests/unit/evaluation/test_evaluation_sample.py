"""The sample that baselines are trained on: which items it keeps, and how counts are put into its columns."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from userrep.evaluation.sample import Sample, sample_of

pytestmark = pytest.mark.fast


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
    sample = Sample(pa.array([], pa.string()), pa.array(sorted(ours), pa.string()), csr_array((0, len(ours))))
    found_NV = sample.columns_of(csr_array(counts_NI), pa.array(theirs, pa.string())).toarray()
    assert found_NV.shape == (4, len(ours))
    for v, item in enumerate(sorted(ours)):
        assert found_NV[:, v].tolist() == (counts_NI[:, theirs.index(item)].tolist() if item in theirs else [0] * 4)
