"""Which columns user features have, in which order and of which types, and what a configuration decides of them."""

from pathlib import Path

import pytest

from tests.support.builders import config_of
from userrep.features.spec import FeatureSpec

pytestmark = pytest.mark.fast

SPEC = FeatureSpec(
    windows_days=[2, 7],
    modalities={"behaviour": 2, "content": 3},
    onboarding=True,
    registered_at=True,
    attributes=["country"],
    context=["device"],
)
WITH_HISTORY = SPEC.model_copy(update={"history_days": 30})


def test_columns_are_ordered_by_modality_and_window_then_counts_recency_shares_context_attributes() -> None:
    assert [name for name, _ in SPEC.columns()] == [
        *("behaviour_2d", "has_behaviour_2d", "behaviour_7d", "has_behaviour_7d"),
        *("behaviour_onboarding", "has_behaviour_onboarding"),
        *("content_2d", "has_content_2d", "content_7d", "has_content_7d"),
        *("content_onboarding", "has_content_onboarding"),
        *("num_events_2d", "weight_2d", "num_active_days_2d", "num_events_7d", "weight_7d", "num_active_days_7d"),
        *("days_since_last_event", "days_since_first_event", "days_since_registration"),
        *("part_of_day_7d", "weekday_7d", "num_by_context_7d", "attribute_country", "is_exact"),
    ]


def test_columns_of_the_history_follow_those_of_the_windows_and_have_their_types() -> None:
    columns = list(WITH_HISTORY.columns())
    names = [name for name, _ in columns]
    added = dict(columns[k] for k in range(len(columns)) if names[k] not in dict(SPEC.columns()))
    assert added == {
        "behaviour_30d": "ARRAY<FLOAT>", "has_behaviour_30d": "BOOLEAN",
        "content_30d": "ARRAY<FLOAT>", "has_content_30d": "BOOLEAN",
        "num_events_30d": "BIGINT", "weight_30d": "DOUBLE", "num_active_days_30d": "BIGINT",
    }  # fmt: skip
    for before, first in (("has_behaviour_7d", "behaviour_30d"), ("num_active_days_7d", "num_events_30d")):
        assert names.index(first) == names.index(before) + 1
    assert [column for column in columns if column[0] not in added] == list(SPEC.columns())
    assert (WITH_HISTORY.longest, WITH_HISTORY.span, WITH_HISTORY.windows) == (7, 30, [2, 7, 30])
    assert (SPEC.longest, SPEC.span, SPEC.windows) == (7, 7, [2, 7])


def test_a_spec_that_was_stored_before_there_was_a_history_has_none() -> None:
    stored = SPEC.model_dump(exclude={"history_days"})
    assert FeatureSpec.model_validate(stored) == SPEC


def test_columns_have_sql_types_and_the_ddl_lists_them_in_order() -> None:
    kinds = dict(SPEC.columns())
    assert kinds["behaviour_7d"] == "ARRAY<FLOAT>"
    assert kinds["has_behaviour_7d"] == "BOOLEAN"
    assert kinds["num_events_7d"] == "BIGINT"
    assert kinds["weight_7d"] == "DOUBLE"
    assert kinds["num_by_context_7d"] == "MAP<STRING,BIGINT>"
    assert kinds["attribute_country"] == "STRING"


def test_the_vectors_of_all_pooled_blocks_are_stored_in_one_column() -> None:
    lists = {block.column for block in SPEC.pooled}
    stored = dict(SPEC.stored_columns())
    assert stored.pop("pooled") == "BINARY"
    assert stored == {name: kind for name, kind in SPEC.columns() if name not in lists}
    assert SPEC.pooled_width == sum(block.dim for block in SPEC.pooled)
    assert SPEC.ddl() == ", ".join(f"`{name}` {kind}" for name, kind in SPEC.stored_columns())


def test_a_configuration_decides_the_columns(tmp_path: Path) -> None:
    plain = FeatureSpec.of(config_of(tmp_path))
    assert plain == FeatureSpec(
        windows_days=[2, 7],
        history_days=14,
        modalities={"behaviour": 4},
        onboarding=False,
        registered_at=False,
        attributes=[],
        context=[],
    )
    assert plain.context_column is None
    rich = FeatureSpec.of(
        config_of(
            tmp_path,
            windows_days=[30, 3],
            history_days=0,
            item_vectors={"zeta": {"kind": "als", "dim": 3}, "alpha": {"kind": "als", "dim": 2}},
            users={"path": "u", "columns": {"user_id": "u", "registered_at": "r"}, "attributes": ["b", "a"]},
            onboarding={"path": "o", "columns": {"user_id": "u", "item_id": "i", "event_at": "t"}},
        )
    )
    assert list(rich.modalities) == ["alpha", "zeta"]
    assert (rich.windows_days, rich.history_days, rich.windows) == ([3, 30], None, [3, 30])
    assert (rich.onboarding, rich.registered_at, rich.attributes) == (True, True, ["b", "a"])


def test_scalars_that_may_be_unknown_are_the_days_since_something() -> None:
    unknown = ["days_since_last_event", "days_since_first_event", "days_since_registration"]
    assert WITH_HISTORY.flagged_scalars == unknown
    assert WITH_HISTORY.scalars == [
        *(f"{count}_{days}d" for days in (2, 7, 30) for count in ("num_events", "weight", "num_active_days")), *unknown
    ]  # fmt: skip
    unregistered = SPEC.model_copy(update={"registered_at": False})
    assert unregistered.flagged_scalars == unknown[:2]


def test_shares_and_context_are_of_the_longest_window_without_the_history() -> None:
    assert WITH_HISTORY.shares == {"part_of_day_7d": 4, "weekday_7d": 7}
    assert WITH_HISTORY.context_column == "num_by_context_7d"
    assert SPEC.model_copy(update={"context": []}).context_column is None
