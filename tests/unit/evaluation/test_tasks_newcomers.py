"""Tasks of new users on a planted world in which half of the users come shortly before a test date."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.builders import config_of
from tests.support.evaluation_world import (
    FIRST_DAY,
    PLAN,
    Event,
    World,
    first_days,
    only_new_users_tested,
    truth_of,
    world_with_newcomers,
)
from userrep.evaluation.sampled_users import NO_ROLE, TEST
from userrep.evaluation.tasks.catalog import newcomer_tasks
from userrep.evaluation.tasks.newcomers import NewUsers
from userrep.evaluation.tasks.pairs import PairProblem
from userrep.evaluation.tasks.task import LeftOut

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def planted() -> World:
    return world_with_newcomers()


def test_all_numbers_of_events_are_judged_by_the_same_pairs(planted: World) -> None:
    truth = only_new_users_tested(planted, PLAN.longest)
    made = [NewUsers(after, 30, is_blank=False).problem(truth, 1) for after in (0, 10)]
    first, second = (problem.pairs for problem in made if isinstance(problem, PairProblem))
    assert all((getattr(first, name) == getattr(second, name)).all() for name in vars(first))


def test_test_pairs_are_of_new_users_only(planted: World) -> None:
    truth = only_new_users_tested(planted, PLAN.longest)
    problem = NewUsers(3, 30, is_blank=False).problem(truth, 1)
    assert isinstance(problem, PairProblem)
    rows, first = truth.rows, first_days(planted.events)
    tested = {int(n) for n in problem.pairs.row_P if rows.role_N[n] == TEST}
    assert len(tested) > 100
    assert all((rows.dates[rows.date_N[n]] - first[int(rows.user_N[n])]).days <= 30 for n in tested)


def test_a_pick_is_never_a_hit_of_a_new_user(planted: World) -> None:
    picks = [(user, item) for user in range(len(planted.rows.user_ids)) for item in range(0, 80, 5)]
    with_picks, without = (
        NewUsers(0, 30, is_blank=False).problem(only_new_users_tested(planted, PLAN.longest, of), 1)
        for of in (picks, None)
    )
    assert isinstance(with_picks, PairProblem)
    assert isinstance(without, PairProblem)
    assert (without.pairs.item_P % 5 == 0).any()
    assert not (with_picks.pairs.item_P % 5 == 0).any()


def test_without_new_users_or_anything_to_know_of_them_the_task_says_so(planted: World, tmp_path: Path) -> None:
    nobody = replace(planted.rows, role_N=np.where(planted.rows.role_N == TEST, NO_ROLE, planted.rows.role_N))
    truth = truth_of(planted.events, nobody, planted.item_IT)
    reason = "0 of 500 sampled users are new at a test date (for at most 30 days); at least 10 are required"
    assert NewUsers(3, 30, is_blank=False).problem(truth, 1) == reason
    at_rest = truth_of([Event(0, 0, FIRST_DAY)], planted.rows, planted.item_IT)
    found = NewUsers(3, 30, is_blank=False).problem(at_rest, 1)
    assert isinstance(found, LeftOut)
    assert found.endswith("for at most 30 days); 0 user-item pairs in the train split; at least 40 are required")
    tasks = newcomer_tasks(PLAN, config_of(tmp_path))
    assert [isinstance(task.problem(planted.truth, 1), LeftOut) for task in tasks] == [True, False, False, False]
    assert "the configuration has no onboarding, no users.attributes and no users." in str(tasks[0].problem(truth, 1))


def test_ten_new_users_are_enough_and_nine_are_not(planted: World) -> None:
    users = np.unique(planted.rows.user_N[planted.rows.role_N == TEST])
    for num_users, is_refused in ((9, True), (10, False)):
        is_new_N = np.isin(planted.rows.user_N, users[:num_users])
        role_N = np.where((planted.rows.role_N == TEST) & ~is_new_N, NO_ROLE, planted.rows.role_N)
        truth = truth_of(planted.events, replace(planted.rows, role_N=role_N), planted.item_IT)
        found = NewUsers(3, 30, is_blank=False).problem(truth, 1)
        refusal = (
            f"{num_users} of 500 sampled users are new at a test date (for at most 30 days); at least 10 are required"
        )
        assert (found == refusal) is is_refused
