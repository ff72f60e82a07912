"""The example of a model's input: two invented users, one active and one of whom nothing is known."""

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.features.test_layout import ARROW, LAYOUT, SPEC, VOCABULARY
from userrep.features.layout import InputLayout
from userrep.inference.to_arrow import dicts_as_arrow
from userrep.tracking.example import invented_users

pytestmark = pytest.mark.fast


def test_an_example_has_the_columns_of_the_model_and_no_ids() -> None:
    users = invented_users(LAYOUT)
    assert users.schema == pa.schema([(name, ARROW[kind]) for name, kind in SPEC.columns() if name != "is_exact"])
    assert users.num_rows == 2


def test_the_first_user_has_an_event_a_day_and_the_first_value_of_each_vocabulary() -> None:
    known, _ = invented_users(LAYOUT).to_pylist()
    assert [known[f"num_events_{days}d"] for days in (2, 7)] == [2, 7]
    assert [known[f"weight_{days}d"] for days in (2, 7)] == [2.0, 7.0]
    assert [known[f"days_since_{what}"] for what in ("last_event", "first_event", "registration")] == [1.0, 1.0, 1.0]
    assert (known["attribute_country"], known["num_by_context_7d"]) == ("de", [("device=phone", 7)])
    assert known["content_2d"] == pytest.approx([1 / 3] * 3)
    assert sum(known["weekday_7d"]) == pytest.approx(1)
    assert known["has_content_2d"] is known["has_behaviour_onboarding"] is True


def test_nothing_is_known_of_the_second_user() -> None:
    _, unknown = invented_users(LAYOUT).to_pylist()
    as_batch = pa.RecordBatch.from_pylist([unknown], invented_users(LAYOUT).schema)
    nothing = dicts_as_arrow([{}], SPEC)
    assert np.array_equal(LAYOUT.raw(as_batch), LAYOUT.raw(nothing))


def test_an_example_is_the_same_again_and_follows_the_vocabulary() -> None:
    assert invented_users(LAYOUT).equals(invented_users(LAYOUT))
    other = InputLayout.of(SPEC, VOCABULARY | {"attribute_country": ["se", "(other)"]})
    assert invented_users(other)["attribute_country"].to_pylist() == ["se", None]
