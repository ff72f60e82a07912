"""Categories of an attribute: numbers are cut at their quartiles."""

import numpy as np
import pyarrow as pa
import pytest

from userrep.sources.categories import as_categories

pytestmark = pytest.mark.fast


def test_many_numbers_are_cut_at_their_quartiles_and_few_are_taken_as_they_are() -> None:
    ages = np.random.default_rng(0).permutation(np.arange(20.0, 60.0))
    quarters = as_categories(pa.array([*ages, None, float("nan")], from_pandas=False))
    assert quarters.to_pylist() == [*(str(2 * int((age - 20) // 10)) for age in ages), None, None]
    for heap in (0.0, 500.0):  # most at the least or at the largest value
        skewed = np.append(np.full(800, heap), np.arange(1.0, 201.0))
        kinds = np.array(as_categories(pa.array(skewed)).to_pylist())
        assert len(set(kinds)) == 2
        assert set(kinds[skewed == heap]).isdisjoint(kinds[skewed != heap])
    assert len(set(as_categories(pa.array([1.0, 2.0, 1.0, None])).to_pylist())) == 3
    assert as_categories(pa.array(["a", None])).to_pylist() == ["a", None]
