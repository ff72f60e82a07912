"""How much a reconstruction error has grown."""

import pytest

from userrep.monitoring.input_drift import _growth

pytestmark = pytest.mark.fast


def test_growth_is_relative_to_the_date_before() -> None:
    assert _growth(1.5, 1.0) == 0.5
    assert _growth(1.0, 4.0) == -0.75
    assert _growth(0.0, 0.0) == -1
