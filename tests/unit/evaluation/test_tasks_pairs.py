"""The task of pairs on a planted world: how negatives are drawn, and leaks that must be found or be impossible."""

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from tests.support.builders import config_of
from tests.support.evaluation_world import (
    FIRST_DAY,
    PLAN,
    Event,
    World,
    first_days,
    judged,
    only_new_users_tested,
    rows_at_all_dates,
    truth_of,
    world,
    world_with_newcomers,
)
from userrep.evaluation.item_vectors import ItemVectors
from userrep.evaluation.metrics import value_of
from userrep.evaluation.sampled_rows import NO_ROLE, TEST
from userrep.evaluation.tasks.catalog import newcomer_tasks
from userrep.evaluation.tasks.pairs import PairProblem, draw_pairs, exchanged, new_users, next_item
from userrep.evaluation.tasks.task import LeftOut

pytestmark = pytest.mark.fast

D = PLAN.test[0]


@pytest.fixture(scope="module")
def planted() -> World:
    return world()


@pytest.mark.parametrize("only_new", [False, True])
def test_at_each_date_an_item_and_a_user_are_as_often_a_positive_as_a_negative(planted: World, only_new: bool) -> None:
    pairs = draw_pairs(planted.truth, 7, np.random.default_rng(0), only_new=only_new)
    date_P, role_P = planted.rows.date_N[pairs.row_P], planted.rows.role_N[pairs.row_P]
    for what in (pairs.item_P, pairs.row_P):
        both = [
            Counter(zip(date_P[kind], role_P[kind], what[kind], strict=True))
            for kind in (pairs.is_positive_P, ~pairs.is_positive_P)
        ]
        assert both[0] == both[1]
    assert len(pairs.row_P) > 1000


def test_positives_are_events_of_the_window_and_negatives_are_not(planted: World) -> None:
    for only_new in (False, True):
        pairs = draw_pairs(planted.truth, 7, np.random.default_rng(0), only_new=only_new)
        taken = planted.truth.futures.num_events(7).toarray() > 0
        before = planted.truth.futures.history.toarray() > 0
        assert taken[pairs.row_P, pairs.item_P].tolist() == pairs.is_positive_P.tolist()
        assert planted.truth.activity.is_sold_DI[planted.rows.date_N[pairs.row_P], pairs.item_P].all()
        assert before[pairs.row_P, pairs.item_P].any() is np.bool_(not only_new)
        positives = Counter(pairs.row_P[pairs.is_positive_P].tolist())
        assert max(positives.values()) <= 10


def test_a_user_with_more_than_ten_items_gives_ten_of_them() -> None:
    rows = rows_at_all_dates(40)
    events = [Event(user, item, day) for user in range(40) for item in range(60) for day in (date(2024, 2, 1),)]
    events += [Event(user, (user * 7 + k) % 60, D) for user in range(40) for k in range(14)]
    pairs = draw_pairs(truth_of(events, rows, np.eye(60, dtype=np.float32)), 7, np.random.default_rng(0))
    positives = Counter(pairs.row_P[pairs.is_positive_P].tolist())
    assert max(positives.values()) == 10


def test_an_item_that_a_user_picked_is_in_none_of_its_pairs() -> None:
    planted = world(num_users=120)
    picks = [(user, item) for user in range(120) for item in range(0, 80, 5)]
    truth = truth_of(planted.events, planted.rows, planted.item_IT, picks=picks)
    without_picks, with_picks = (draw_pairs(each, 7, np.random.default_rng(0)) for each in (planted.truth, truth))
    assert (without_picks.item_P % 5 == 0).any()
    assert not (with_picks.item_P % 5 == 0).any()


def test_an_item_never_sold_before_the_date_is_in_no_pair() -> None:
    rows = rows_at_all_dates(60)
    events = [Event(user, user % 10, day) for user in range(60) for day in (date(2024, 2, 1), D, D + timedelta(days=1))]
    events += [Event(user, 10, D) for user in range(0, 60, 2)]
    pairs = draw_pairs(truth_of(events, rows, np.eye(11, dtype=np.float32)), 7, np.random.default_rng(0))
    at_date = pairs.row_P[rows.as_of_N[pairs.row_P] == np.datetime64(D)]
    assert len(at_date)
    assert 10 not in pairs.item_P


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 30), st.integers(2, 12))
def test_exchanged_pairs_are_two_positives_whose_items_are_swapped_and_never_a_barred_pair(
    seed: int, num_positives: int, num_items: int
) -> None:
    rng = np.random.default_rng(seed)
    positives = np.unique(rng.integers(0, 8 * num_items, num_positives))
    barred = np.unique(np.concatenate([positives, rng.integers(0, 8 * num_items, 10)]))
    never = csr_array((np.ones(len(barred)), np.divmod(barred, num_items)), shape=(8, num_items))
    row_P, item_P, is_positive_P = exchanged(*np.divmod(positives, num_items), never, rng)
    half = len(row_P) // 2
    assert is_positive_P.tolist() == [True] * half + [False] * half
    keys = row_P * num_items + item_P
    assert len(set(keys[:half].tolist())) == half  # each positive once
    assert set(keys[:half].tolist()) <= set(positives.tolist())
    assert not set(keys[half:].tolist()) & set(barred.tolist())
    swapped = {(int(row_P[k]), int(item_P[k])): int(item_P[half + k]) for k in range(half)}
    for (row, item), other in swapped.items():  # a negative's item is a positive of the partner, and vice versa
        assert any(r != row and i == other and swapped[r, i] == item for r, i in swapped)


def test_a_representation_that_knows_the_items_to_come_is_ahead_of_the_taste_that_they_are_drawn_by() -> None:
    many = world(num_users=900)
    taken = many.truth.futures.num_events(7)
    future = (taken @ many.item_IT) / np.maximum(taken.sum(axis=1), 1)[:, None]
    knows, honest = (
        judged(many.truth, next_item(7), x_NF.astype(np.float32)) for x_NF in (future, many.taste_of_rows())
    )
    assert knows[1] > honest[2]


def test_a_representation_of_other_users_is_worth_nothing(planted: World) -> None:
    rng = np.random.default_rng(5)
    x_NF = planted.taste_UT[rng.permutation(len(planted.taste_UT))[planted.rows.user_N]].astype(np.float32)
    x_NF = np.hstack([x_NF, rng.normal(size=(len(x_NF), 20)).astype(np.float32)])
    for task in (next_item(7), next_item(7, only_new=True)):
        value, low, high = judged(planted.truth, task, x_NF)
        assert low - 0.02 < 0.5 < high + 0.02, (task.name, value)


def test_what_knows_the_items_only_is_at_one_half(planted: World) -> None:
    zeros_N1 = np.zeros((len(planted.rows), 1), np.float32)
    popular = planted.truth.activity.popularity_DI[PLAN.dates.index(D)]
    assert popular.max() > 5 * np.median(popular)  # popularity is there to be found
    for only_new in (False, True):
        assert judged(planted.truth, next_item(7, only_new=only_new), zeros_N1) == pytest.approx(
            (0.5, 0.5, 0.5), abs=1e-9
        )


def test_popularity_would_separate_negatives_that_are_drawn_from_all_items_alike(planted: World) -> None:
    truth, rng = planted.truth, np.random.default_rng(0)
    pairs = draw_pairs(truth, 7, rng)
    anything = np.where(pairs.is_positive_P, pairs.item_P, rng.integers(0, 80, len(pairs.item_P)))
    drawn_from_all = replace(pairs, item_P=anything)
    zeros_N1 = np.zeros((len(planted.rows), 1), np.float32)
    assert value_of("auc", drawn_from_all.scores(zeros_N1, drawn_from_all.choose(zeros_N1))["auc"]) > 0.6


def test_taste_predicts_which_items_a_user_takes(planted: World) -> None:
    assert judged(planted.truth, next_item(7), planted.taste_of_rows())[1] > 0.7


def test_the_same_seed_gives_the_same_scores(planted: World) -> None:
    x_NF = planted.taste_of_rows()
    once, again = (judged(planted.truth, next_item(7), x_NF, seed=4) for _ in range(2))
    assert once == again


def test_pairs_see_the_item_vectors_that_were_valid_at_their_date(planted: World) -> None:
    first, second = PLAN.until, PLAN.test[0]
    version_of = {day: first if day < second else second for day in (PLAN.until, *PLAN.dates)}
    vectors = {first: planted.item_IT, second: planted.item_IT + 100}
    flagged = {version: np.hstack([x_IE, np.ones((80, 1), np.float32)]) for version, x_IE in vectors.items()}
    dated = ItemVectors({"content": 4}, version_of, flagged)
    problem = next_item(7).problem(replace(planted.truth, items=dated), 1)
    assert isinstance(problem, PairProblem)
    x_ME, at_P = problem.item_inputs()
    for pair in range(0, len(at_P), 13):
        row, item = problem.row_P[pair], problem.item_P[pair]
        d = planted.rows.date_N[row]
        wanted = [*vectors[version_of[PLAN.dates[d]]][item], 1, np.log1p(planted.truth.activity.popularity_DI[d, item])]
        assert x_ME[at_P[pair]].tolist() == pytest.approx(wanted)


def test_scores_are_of_the_test_pairs_and_their_users(planted: World) -> None:
    problem = next_item(7).problem(planted.truth, 1)
    assert isinstance(problem, PairProblem)
    x_NF = planted.taste_of_rows()
    scores = problem.scores(x_NF, problem.choose(x_NF))["auc"]
    is_test_P = planted.rows.role_N[problem.row_P] == TEST
    in_order = np.flatnonzero(is_test_P)[np.argsort(problem.row_P[is_test_P], kind="stable")]
    assert scores.user_M.tolist() == planted.rows.user_N[problem.row_P[in_order]].tolist()
    assert scores.label_MK[:, 0].tolist() == problem.is_positive_P[in_order].tolist()
    assert problem.num_examples["test"] == is_test_P.sum()


def test_too_few_pairs_are_named() -> None:
    rows = rows_at_all_dates(100)
    truth = truth_of([Event(0, 0, day) for day in PLAN.dates], rows, np.eye(3, dtype=np.float32))
    reason = next_item(7).problem(truth, 1)
    assert isinstance(reason, LeftOut)
    assert reason == "0 user-item pairs in the train split; at least 40 are required"


# -- new users --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arrivals() -> World:
    return world_with_newcomers()


def test_all_numbers_of_events_are_judged_by_the_same_pairs(arrivals: World) -> None:
    truth = only_new_users_tested(arrivals, PLAN.longest)
    made = [new_users(after, 30, is_blank=False).problem(truth, 1) for after in (0, 10)]
    first, second = (problem for problem in made if isinstance(problem, PairProblem))
    assert all((getattr(first, name) == getattr(second, name)).all() for name in ("row_P", "item_P", "is_positive_P"))


def test_test_pairs_are_of_new_users_only(arrivals: World) -> None:
    truth = only_new_users_tested(arrivals, PLAN.longest)
    problem = new_users(3, 30, is_blank=False).problem(truth, 1)
    assert isinstance(problem, PairProblem)
    rows, first = truth.rows, first_days(arrivals.events)
    tested = {int(n) for n in problem.row_P if rows.role_N[n] == TEST}
    assert len(tested) > 100
    assert all((rows.dates[rows.date_N[n]] - first[int(rows.user_N[n])]).days <= 30 for n in tested)


def test_a_pick_is_never_a_hit_of_a_new_user(arrivals: World) -> None:
    picks = [(user, item) for user in range(len(arrivals.rows.user_ids)) for item in range(0, 80, 5)]
    with_picks, without = (
        new_users(0, 30, is_blank=False).problem(only_new_users_tested(arrivals, PLAN.longest, known_picks), 1)
        for known_picks in (picks, None)
    )
    assert isinstance(with_picks, PairProblem)
    assert isinstance(without, PairProblem)
    assert (without.item_P % 5 == 0).any()
    assert not (with_picks.item_P % 5 == 0).any()


def test_without_new_users_or_anything_known_of_them_the_task_is_left_out_with_the_reason(
    arrivals: World, tmp_path: Path
) -> None:
    untested_rows = replace(
        arrivals.rows,
        role_N=np.where(arrivals.rows.role_N == TEST, NO_ROLE, arrivals.rows.role_N),
    )
    truth = truth_of(arrivals.events, untested_rows, arrivals.item_IT)
    reason = "0 of 500 sampled users are new at a test date (for at most 30 days); at least 10 are required"
    assert new_users(3, 30, is_blank=False).problem(truth, 1) == reason
    at_rest = truth_of([Event(0, 0, FIRST_DAY)], arrivals.rows, arrivals.item_IT)
    found = new_users(3, 30, is_blank=False).problem(at_rest, 1)
    assert isinstance(found, LeftOut)
    assert found.endswith("for at most 30 days); 0 user-item pairs in the train split; at least 40 are required")
    tasks = newcomer_tasks(PLAN, config_of(tmp_path))
    assert [isinstance(task.problem(arrivals.truth, 1), LeftOut) for task in tasks.values()] == [
        True,
        False,
        False,
        False,
    ]
    assert "the configuration has no onboarding, no users.attributes and no users." in str(tasks[0].problem(truth, 1))


def test_ten_new_users_are_enough_and_nine_are_not(arrivals: World) -> None:
    users = np.unique(arrivals.rows.user_N[arrivals.rows.role_N == TEST])
    for num_users, is_refused in ((9, True), (10, False)):
        is_new_N = np.isin(arrivals.rows.user_N, users[:num_users])
        role_N = np.where((arrivals.rows.role_N == TEST) & ~is_new_N, NO_ROLE, arrivals.rows.role_N)
        truth = truth_of(arrivals.events, replace(arrivals.rows, role_N=role_N), arrivals.item_IT)
        found = new_users(3, 30, is_blank=False).problem(truth, 1)
        refusal = (
            f"{num_users} of 500 sampled users are new at a test date (for at most 30 days); at least 10 are required"
        )
        assert (found == refusal) is is_refused
