"""What labels are made from, as tasks receive it."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tests.support.evaluation_world import PLAN, Event, rows_at_all_dates, truth_of
from userrep.evaluation.tasks.task import Truth, too_few_values

pytestmark = pytest.mark.fast


def truth() -> Truth:
    """Build rows of three users with one attribute among their features, and another that is not a feature."""
    rows = rows_at_all_dates(3, country=["de", None, "se"])
    found = truth_of([Event(0, 0, PLAN.test[0])], rows, np.eye(3, dtype=np.float32))
    return replace(found, attributes={"age": pa.array(["old", "new", None])})


def test_attributes_of_rows_are_inputs_or_what_is_known_besides() -> None:
    num_dates = len(PLAN.dates)
    assert (
        truth().attributes_of_rows("country").to_pylist()
        == ["de"] * num_dates + [None] * num_dates + ["se"] * num_dates
    )
    assert (
        truth().attributes_of_rows("age").to_pylist() == ["old"] * num_dates + ["new"] * num_dates + [None] * num_dates
    )


def test_an_attribute_that_is_no_input_takes_precedence_over_one_of_the_features() -> None:
    both = replace(truth(), attributes={"country": pa.array(["x", "y", "z"])})
    assert set(both.attributes_of_rows("country").to_pylist()) == {"x", "y", "z"}


def test_an_attribute_that_is_a_number_is_read_as_text() -> None:
    rows = rows_at_all_dates(2)
    numbers = pa.RecordBatch.from_pydict({"attribute_level": pa.array([1, 2] * len(PLAN.dates))})
    found = truth_of([Event(0, 0, PLAN.test[0])], replace(rows, features=numbers), np.eye(3, dtype=np.float32))
    assert found.attributes_of_rows("level").type == pa.string()
    assert found.attributes_of_rows("level").to_pylist()[:2] == ["1", "2"]


def test_an_attribute_needs_two_values() -> None:
    assert too_few_values("age", 0) == "attribute age needs at least 2 distinct values, got 0"
    assert too_few_values("age", 1) == "attribute age needs at least 2 distinct values, got 1"
    assert too_few_values("age", 2) is None
