"""What a join adds to labels, and which labels it takes."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from userrep.errors import UsageError
from userrep.joins.options import JoinOptions, check_labels

pytestmark = pytest.mark.fast


def labels(**columns: str) -> Any:
    """Stand for a frame with these columns."""
    return cast(Any, SimpleNamespace(dtypes=list(columns.items())))


def faults(frame: Any, **options: Any) -> list[str]:
    with pytest.raises(UsageError) as caught:
        check_labels(frame, JoinOptions(**options))
    return list(caught.value.faults)


def test_columns_are_named_after_that_of_vectors() -> None:
    assert JoinOptions().added == ("snapshot_id", "as_of", "embedding", "embedding_status")
    assert JoinOptions(output="taste").added == ("snapshot_id", "as_of", "taste", "taste_status")


def test_an_age_limit_of_no_days_is_one_and_a_negative_one_is_not() -> None:
    assert JoinOptions(max_age_days=0).max_age_days == 0
    with pytest.raises(
        UsageError, match="max_age_days: expected a whole number of at least 0, or None for no limit, got -1"
    ):
        JoinOptions(max_age_days=-1)


def test_params_of_the_stage_have_one_option_each() -> None:
    options = JoinOptions.of_params({"userCol": "who", "maxAgeDays": 3, "handleInvalid": "skip", "inSample": "refuse"})
    assert options == JoinOptions(user="who", max_age_days=3, handle_invalid="skip", in_sample="refuse")
    with pytest.raises(UsageError, match="unknown option max_age_days; did you mean maxAgeDays") as caught:
        JoinOptions.of_params({"max_age_days": 3, "x": 1})
    assert len(caught.value.faults) == 2


def test_columns_may_have_other_names() -> None:
    check_labels(labels(who="string", when="timestamp", user_id="int"), JoinOptions(user="who", time="when"))


def test_all_faults_of_labels_are_reported_together() -> None:
    frame = labels(user_id="bigint", as_of="date", taste_status="string", embedding="string")
    assert [fault.partition(":")[2].strip() for fault in faults(frame, output="taste")[:2]] == [
        "column 'user_id' must be of type string, got bigint. Cast it to string.",
        "column 'label_at' of type timestamp is missing. The columns are user_id, as_of, taste_status, embedding.",
    ]
    assert [fault.split("'")[1] for fault in faults(frame, output="taste")[2:]] == ["as_of", "taste_status"]


def test_columns_of_the_same_name_are_a_fault() -> None:
    frame = cast(
        Any, SimpleNamespace(dtypes=[("user_id", "string"), ("label_at", "timestamp"), ("x", "int"), ("x", "int")])
    )
    assert faults(frame) == ["labels: several columns are named 'x'. Rename or drop all but one."]


def test_a_nameless_column_and_texts_for_switches_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        JoinOptions.of_params({"outputCol": "", "updates": "no"})
    assert caught.value.faults == [
        "updates: expected True or False, got 'no'.",
        "outputCol: expected the name of a column, got an empty text.",
    ]
