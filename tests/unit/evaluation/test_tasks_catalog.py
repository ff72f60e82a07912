"""Which tasks an evaluation has."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import pytest

from tests.support.builders import config_of
from tests.support.evaluation_world import PLAN
from userrep.evaluation.tasks import catalog
from userrep.evaluation.tasks.catalog import audience_tasks, newcomer_tasks, tasks_of
from userrep.evaluation.tasks.task import is_akin_to_training

pytestmark = pytest.mark.fast


def test_the_tasks_follow_the_horizons_and_attributes_that_there_are() -> None:
    names = [task.name for task in tasks_of(PLAN, ["country"], [])]
    assert names == [
        "next_item_7d", "next_item_7d_new", "return_7d", "return_30d", "volume_30d", "next_categories_30d",
        "neighbours", "neighbours_by_country",
    ]  # fmt: skip
    short = [task.name for task in tasks_of(replace(PLAN, horizons=(7,)), [], [])]
    assert short == ["next_item_7d", "next_item_7d_new", "return_7d", "volume_7d", "next_categories_7d", "neighbours"]


def test_tasks_of_attributes_come_last_and_only_they_are_unlike_training() -> None:
    tasks = tasks_of(PLAN, ["country"], ["age"])
    assert [task.name for task in tasks[-3:]] == ["neighbours_by_country", "neighbours_by_age", "attribute_age"]
    unlike = [task for task in [*tasks, *audience_tasks(PLAN, ["age"])] if not is_akin_to_training(task.name)]
    assert unlike[:3] == tasks[-3:]
    assert [task.name for task in unlike[3:]] == [f"look_alikes_{seeds}_by_age" for seeds in (20, 100, 1000)]


def test_neighbours_are_judged_by_the_longest_horizon(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Mock(wraps=catalog.neighbours)
    monkeypatch.setattr(catalog, "neighbours", made)
    assert "neighbours" in {task.name for task in tasks_of(PLAN, [], [])}
    made.assert_called_once_with(30)


def test_audiences_have_a_task_for_each_number_of_seeds_and_left_out_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Mock(wraps=catalog.look_alikes)
    monkeypatch.setattr(catalog, "look_alikes", made)
    tasks = audience_tasks(PLAN, ["age"])
    names = [f"look_alikes_{seeds}{by}" for by in ("", "_by_age") for seeds in (20, 100, 1000)]
    assert [task.name for task in tasks] == names
    assert {called.args[1] for called in made.call_args_list} == {30}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Note how tasks of new users are made."""
    made = Mock(wraps=catalog.new_users)
    monkeypatch.setattr(catalog, "new_users", made)
    return made


def test_new_users_have_a_task_for_each_number_of_known_events(tmp_path: Path, made: Mock) -> None:
    tasks = newcomer_tasks(PLAN, config_of(tmp_path))
    assert {after: task.name for after, task in tasks.items()} == {k: f"new_users_after_{k}" for k in (0, 1, 3, 10)}
    assert [called.args for called in made.call_args_list] == [(k, 30) for k in (0, 1, 3, 10)]


@pytest.mark.parametrize(
    "known",
    [
        {"users": {"path": "u", "columns": {"user_id": "u"}, "attributes": ["country"]}},
        {"users": {"path": "u", "columns": {"user_id": "u", "registered_at": "t"}}},
        {"onboarding": {"path": "p", "columns": {"user_id": "u", "item_id": "i", "event_at": "t"}}},
    ],
    ids=["attributes", "registered_at", "onboarding"],
)
def test_without_an_event_something_is_known_of_users_with_profiles_only(
    tmp_path: Path, known: dict[str, Any], made: Mock
) -> None:
    newcomer_tasks(PLAN, config_of(tmp_path, evaluation={"newcomer_events": [5, 0]}, **known))
    assert made.call_args_list == [call(0, 30, is_blank=False), call(5, 30, is_blank=False)]
    made.reset_mock()
    nothing = {"users": {"path": "u", "columns": {"user_id": "u"}}}
    newcomer_tasks(PLAN, config_of(tmp_path, **nothing))
    assert made.call_args_list
    assert all(called.kwargs == {"is_blank": True} for called in made.call_args_list)
