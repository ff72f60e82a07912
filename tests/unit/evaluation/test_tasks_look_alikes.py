"""Tasks of look-alike audiences: planted lists are found, seeds do not count, and which lists are used."""

import numpy as np
import pytest

from tests.support.evaluation_world import World, judged, truth_with, world
from userrep.evaluation.metrics import value_of
from userrep.evaluation.sampled_rows import TEST
from userrep.evaluation.tasks.look_alikes import LookAlikeProblem, look_alikes
from userrep.evaluation.tasks.neighbours import AS_IT_IS, STANDARDIZED
from userrep.evaluation.tasks.rows import events_by_cluster
from userrep.evaluation.tasks.task import Task, Truth

pytestmark = [pytest.mark.fast, pytest.mark.usefixtures("one_core")]

GROUPS: list[str | None] = ["a", "b", "b", "b", "b"] * 48  # four in five are too many for a list


@pytest.fixture(scope="module")
def planted() -> World:
    return world(num_users=200)


def problem_of(task: Task, truth: Truth) -> LookAlikeProblem:
    problem = task.problem(truth, 1)
    assert isinstance(problem, LookAlikeProblem)
    return problem


def test_the_rest_of_a_list_is_found_from_vectors_that_hold_it_and_random_ones_find_no_more_than_chance() -> None:
    truth, task = truth_with(240, group=GROUPS), look_alikes(20, 30, "group")
    noise = np.random.default_rng(0).normal(size=(len(truth.rows), 6)).astype(np.float32)
    holds = noise.copy()
    holds[:, 0] += 8 * (truth.rows.user_N % 5 == 0)
    problem = problem_of(task, truth)
    scores = problem.scores(holds, AS_IT_IS)
    assert value_of("recall", scores["recall"]) == 1
    assert value_of("lift", scores["lift"]) == pytest.approx(220 / 28)
    assert value_of("recall", problem.scores(noise, AS_IT_IS)["recall"]) < 0.3  # 28 of 220 users by chance


def test_a_list_has_the_users_with_an_event_in_a_cluster_at_the_newest_test_date_and_its_seeds_do_not_count(
    planted: World,
) -> None:
    task = look_alikes(5, 30)
    problem, rows = problem_of(task, planted.truth), planted.rows
    scores = problem.scores(planted.taste_of_rows(), AS_IT_IS)["recall"]
    row_Q = problem.test.row_Q
    assert sorted(row_Q) == np.flatnonzero((rows.role_N == TEST) & (rows.date_N == rows.date_N.max())).tolist()
    has_event_NC = events_by_cluster(planted.truth, 30) > 0
    num_DC = np.stack([has_event_NC[pool.row_Q].sum(axis=0) for pool in (problem.training, problem.test)])
    used = np.flatnonzero(((num_DC >= 10) & (num_DC <= 0.75 * len(row_Q))).all(axis=0))
    longest = sorted(used, key=lambda c: -has_event_NC[row_Q, c].sum())[:3]
    assert problem.test.is_listed_QL.tolist() == has_event_NC[np.ix_(row_Q, longest)].tolist()
    is_seed_QL = np.isnan(scores.label_MK)
    assert is_seed_QL.sum(axis=0).tolist() == [5] * len(longest)
    assert (problem.test.is_listed_QL == ((scores.label_MK == 1) | is_seed_QL)).all()
    assert scores.user_M.tolist() == rows.user_N[row_Q].tolist()


def test_tastes_find_future_buyers_better_than_chance() -> None:
    many = world(num_users=600)
    _, low, _ = judged(many.truth, look_alikes(40, 30), many.taste_of_rows(), metric="lift")
    assert low > 1.3


def test_numbers_are_standardized_if_that_finds_more_at_the_newest_training_date() -> None:
    truth = truth_with(240, group=GROUPS)
    rng, is_listed_N = np.random.default_rng(0), truth.rows.user_N % 5 == 0
    x_NF = np.column_stack([is_listed_N, 1000 * rng.normal(size=(len(truth.rows), 5))]).astype(np.float32)
    problem = problem_of(look_alikes(20, 30, "group"), truth)
    assert problem.choose(x_NF) == STANDARDIZED
    better, worse = (value_of("recall", problem.scores(x_NF, how)["recall"]) for how in (STANDARDIZED, AS_IT_IS))
    assert better > worse + 0.3


def test_the_same_seed_draws_the_same_seeds_and_another_one_others(planted: World) -> None:
    x_NF, task = planted.taste_of_rows(), look_alikes(5, 30)
    first, again, other = (judged(planted.truth, task, x_NF, seed=seed) for seed in (4, 4, 5))
    assert first == again != other


@pytest.mark.parametrize(("num_seeds", "least"), [(100, 200), (1000, 1200)])
def test_without_a_list_that_hides_as_many_users_as_there_are_seeds_or_200_the_task_is_left_out(
    planted: World, num_seeds: int, least: int
) -> None:
    reason = look_alikes(num_seeds, 30).problem(planted.truth, 1)
    assert reason == f"no list has at least {least} users and at most 75% of the 200 users"


def test_an_attribute_with_one_value_has_no_list() -> None:
    alone = truth_with(200, group=["a"] * 200)
    assert look_alikes(20, 30, "group").problem(alone, 1) == "attribute group needs at least 2 distinct values, got 1"


def test_users_whose_attribute_is_unknown_are_on_no_list() -> None:
    values = [value if user % 7 else None for user, value in enumerate(GROUPS)]
    truth = truth_with(240, group=values)
    problem = problem_of(look_alikes(20, 30, "group"), truth)
    listed = problem.test.is_listed_QL.any(axis=1)
    assert not listed[truth.rows.user_N[problem.test.row_Q] % 7 == 0].any()
