"""How what tasks have counted of inputs is added up."""

import numpy as np
import pytest
from pyspark.sql import Row

from userrep.monitoring.input_drift import Inputs, Ranges, _growth

pytestmark = pytest.mark.fast

RANGES = Ranges({"num_events_7d": np.array([0.0]), "weight_7d": np.array([0.0])})


def part(num_rows: int, idle: int, errors: list[float], **counts: int) -> Row:
    """Return what a task yields; ``counts``: of the first range of each column."""
    found = np.zeros((2, 20), np.int64)
    found[:, 0] = [counts["num_events_7d"], counts["weight_7d"]]
    return Row(num_rows=num_rows, idle=idle, counts=found.ravel().tolist(), errors=errors)


def test_sums_of_tasks_add_up_to_means_over_all_their_rows() -> None:
    parts = [
        part(3, 3, [6.0, 1.5], num_events_7d=3, weight_7d=1),
        part(1, 0, [2.0, 0.0], num_events_7d=0, weight_7d=1),
    ]
    found = Inputs.of(parts, ["behaviour_7d", "flags"], RANGES)
    assert found.idle_share == 0.75
    assert found.errors == {"behaviour_7d": 2.0, "flags": 0.375}
    assert found.counts[:, 0].tolist() == [3, 2]
    assert found.counts.sum() == 5


def test_a_date_without_rows_in_the_sample_has_neither_errors_nor_idle_users() -> None:
    found = Inputs.of([], ["flags"], RANGES)
    assert (found.idle_share, found.errors, found.counts.sum()) == (0.0, {"flags": 0.0}, 0)


def test_growth_is_relative_to_the_date_before() -> None:
    assert _growth(1.5, 1.0) == 0.5
    assert _growth(1.0, 4.0) == -0.75
    assert _growth(0.0, 0.0) == -1
