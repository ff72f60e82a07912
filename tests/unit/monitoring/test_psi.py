"""The population stability index, by hand."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from userrep.monitoring.input_drift import Ranges

pytestmark = pytest.mark.fast

# What equals 0 or 1, the deciles here, is a range of its own.
ENDS = np.array([math.nextafter(0, -1), 0, math.nextafter(1, 0), 1])
RANGES = Ranges({"x": ENDS})
NUMBERS = st.lists(st.one_of(st.none(), st.floats(-3, 3), st.sampled_from([0.0, 1.0])), max_size=40)


def counts(values: list[float | None], ranges: Ranges = RANGES) -> np.ndarray:
    return ranges.counts(pa.RecordBatch.from_pydict({"x": pa.array(values, pa.float64())}))


def counted(*by_range: int) -> np.ndarray:
    """Return counts of one column, 0 in the other ranges."""
    return np.array([[*by_range, *[0] * (20 - len(by_range))]])


def index(now: np.ndarray, before: np.ndarray) -> float:
    return RANGES.indices(now, before)["x"]


def test_the_index_is_that_of_a_computation_by_hand() -> None:
    # (0.5 - 0.25) ln(0.5 / 0.25) + (0.5 - 0.75) ln(0.5 / 0.75) = 0.25 (0.6931472 + 0.4054651)
    assert index(counted(50, 50), counted(1, 3)) == pytest.approx(0.2746531, abs=1e-7)
    assert index(counted(1, 3), counted(50, 50)) == pytest.approx(0.2746531, abs=1e-7)
    assert index(counted(5, 15), counted(1, 3)) == pytest.approx(0, abs=1e-12)


def test_an_empty_range_counts_as_a_ten_thousandth() -> None:
    # (1 - 0.5) ln 2 + (0.0001 - 0.5) ln(0.0001 / 0.5) = 0.3465736 + 0.4999 * 8.5171932
    assert index(counted(7), counted(3, 3)) == pytest.approx(4.6043185, abs=1e-6)
    assert math.isfinite(index(counted(), counted(3, 3)))


def test_values_at_a_decile_are_a_range_of_their_own_and_nulls_the_last_one() -> None:
    (found,) = counts([-5.0, 0.0, 0.0, 0.5, 1.0, 7.0, 8.0, None]).tolist()
    assert found == [1, 2, 1, 1, 2, *[0] * 14, 1]


def test_flags_are_counted_as_zeros_and_ones() -> None:
    ranges = Ranges({"has": ENDS, "other": ENDS})
    batch = pa.RecordBatch.from_pydict({"other": [0.5] * 4, "has": [True, True, False, None]})
    found = ranges.counts(batch)
    assert found[:, [1, 2, 3, 19]].tolist() == [[1, 0, 2, 1], [0, 4, 0, 0]]
    assert ranges.indices(found, found) == {"has": 0.0, "other": 0.0}


@given(now=NUMBERS, before=NUMBERS)
def test_every_row_is_counted_once_and_no_index_is_negative(
    now: list[float | None], before: list[float | None]
) -> None:
    a, b = counts(now), counts(before)
    assert (a.sum(), b.sum()) == (len(now), len(before))
    assert index(a, b) >= 0
    assert index(a, a) == 0
    np.testing.assert_array_equal(counts(now + before), a + b)
