"""Tasks on a small planted world: labels against plain Python, and leaks that must be found or be impossible."""

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.evaluation_world import (
    PLAN,
    Event,
    World,
    activity_from,
    item_vectors,
    rows_at_all_dates,
    truth_of,
    world,
)
from userrep.evaluation.activity import Futures
from userrep.evaluation.heads import standardised
from userrep.evaluation.items import ItemVectors, clustered
from userrep.evaluation.metrics import bootstrapped, resampled_users, value_of
from userrep.evaluation.rows import TEST, TRAIN, VALID
from userrep.evaluation.tasks.catalog import tasks_of
from userrep.evaluation.tasks.neighbours import NeighboursByAttribute, NeighboursByFavourite, neighbours_ndcg
from userrep.evaluation.tasks.pairs import NextItem, PairProblem, Pairs
from userrep.evaluation.tasks.rows import NextCategories, Return, RowProblem, Volume, clusters_touched
from userrep.evaluation.tasks.task import LeftOut, Task

pytestmark = pytest.mark.fast

D = PLAN.test[0]


@pytest.fixture(scope="module")
def planted() -> World:
    return world()


def judged(planted: World, task: Task, x_NF: NDArray[np.float32], seed: int = 1) -> tuple[float, float, float]:
    """Return a task's first metric for a representation, with the ends of its 90 % interval."""
    problem = task.problem(planted.truth, seed)
    assert not isinstance(problem, LeftOut)
    scores = problem.scores(x_NF, problem.chosen(x_NF, seed), seed)
    weight_UB = resampled_users(len(planted.rows.user_ids), 200, seed)
    low, high = np.quantile(bootstrapped(task.metrics[0], scores, weight_UB), [0.05, 0.95])
    return value_of(task.metrics[0], scores), float(low), float(high)


def windows_by_hand(events: list[Event], user: int, day: date, days: int) -> tuple[Counter[int], Counter[int], float]:
    """Return what a user did before a date and in the days from it on, and the weight of the latter."""
    mine = [event for event in events if event.user == user]
    after = [e for e in mine if day <= e.day < day + timedelta(days=days)]
    return Counter(e.item for e in mine if e.day < day), Counter(e.item for e in after), sum(e.weight for e in after)


def test_histories_futures_and_popularity_are_those_counted_one_by_one(planted: World) -> None:
    rows, futures = planted.rows, planted.truth.futures
    history, soon, late, weight = (
        m.toarray() for m in (futures.history, futures.num_events(7), futures.num_events(30), futures.weight(30))
    )
    for row in np.random.default_rng(0).choice(len(rows), 60, replace=False):
        user, day = int(rows.user_N[row]), rows.dates[rows.date_N[row]]
        before, within_30, weighs = windows_by_hand(planted.events, user, day, 30)
        _, within_7, _ = windows_by_hand(planted.events, user, day, 7)
        for counted, found in ((before, history), (within_7, soon), (within_30, late)):
            assert {i: n for i, n in enumerate(found[row]) if n} == counted
        assert weight[row].sum() == weighs
    for d, day in enumerate(rows.dates):
        popular = Counter(e.item for e in planted.events if day - timedelta(days=30) <= e.day < day)
        assert {i: n for i, n in enumerate(planted.truth.activity.popularity_DI[d]) if n} == popular
        sold = {e.item for e in planted.events if e.day < day}
        assert set(np.flatnonzero(planted.truth.activity.is_sold_DI[d])) == sold


def test_an_event_moved_past_the_date_changes_what_lies_before_and_after_it_and_nothing_else() -> None:
    planted = world(num_users=40, num_items=20, per_day=0.5)
    moved = next(e for e in planted.events if e.day == D - timedelta(days=1))
    events = [replace(e, day=D) if e is moved else e for e in planted.events]
    there, then = planted.truth.futures, Futures(planted.rows, activity_from(events, planted.rows, 20))
    mine = planted.rows.user_N == moved.user
    at_date = mine & (planted.rows.as_of_N == np.datetime64(D))
    for name, was, now in (
        ("history", there.history, then.history),
        ("7 days", there.num_events(7), then.num_events(7)),
    ):
        rows, items = (now - was).nonzero()
        assert set(rows) == set(np.flatnonzero(at_date)), name  # no row of training ends its future at this date
        assert set(items) == {moved.item}, name
    changed = there.activity.popularity_DI != then.activity.popularity_DI
    assert [(PLAN.dates[d], i) for d, i in zip(*np.nonzero(changed), strict=True)] == [(D, moved.item)]


def test_labels_of_rows_are_those_told_one_by_one(planted: World) -> None:
    rows, truth = planted.rows, planted.truth
    problems = [task.problem(truth, 1) for task in (Return(7), Return(30), Volume(30))]
    assert all(isinstance(problem, RowProblem) for problem in problems)
    labels = np.hstack([problem.y_NK for problem in problems if isinstance(problem, RowProblem)])
    touched = clusters_touched(truth, 30)
    for row in range(0, len(rows), 17):
        user, day = int(rows.user_N[row]), rows.dates[rows.date_N[row]]
        _, within_7, _ = windows_by_hand(planted.events, user, day, 7)
        _, within_30, weighs = windows_by_hand(planted.events, user, day, 30)
        assert labels[row] == pytest.approx([float(bool(within_7)), float(bool(within_30)), np.log1p(weighs)])
        by_cluster = Counter(dict.fromkeys(range(touched.shape[1]), 0))
        for item, count in within_30.items():
            by_cluster[int(truth.cluster_I[item])] += count
        assert dict(enumerate(touched[row])) == by_cluster


def test_training_and_validation_have_no_user_in_common_and_no_test_date_lies_within_their_labels(
    planted: World,
) -> None:
    rows = planted.rows
    users = {role: set(rows.user_N[rows.role_N == role]) for role in (TRAIN, VALID)}
    assert users[TRAIN] & users[VALID] == set()
    assert 0.1 < len(users[VALID]) / len(rows.user_ids) < 0.3
    assert min(rows.as_of_N[rows.role_N == TEST]) >= max(rows.as_of_N[rows.role_N != TEST]) + PLAN.longest


@pytest.mark.parametrize("only_new", [False, True])
def test_at_each_date_an_item_and_a_user_are_as_often_a_positive_as_a_negative(planted: World, only_new: bool) -> None:
    pairs = NextItem(7, only_new=only_new).pairs(planted.truth, np.random.default_rng(0))
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
        pairs = NextItem(7, only_new=only_new).pairs(planted.truth, np.random.default_rng(0))
        taken = planted.truth.futures.num_events(7).toarray() > 0
        before = planted.truth.futures.history.toarray() > 0
        assert taken[pairs.row_P, pairs.item_P].tolist() == pairs.is_positive_P.tolist()
        assert planted.truth.activity.is_sold_DI[planted.rows.date_N[pairs.row_P], pairs.item_P].all()
        assert before[pairs.row_P, pairs.item_P].any() is np.bool_(not only_new)
        positives = Counter(pairs.row_P[pairs.is_positive_P].tolist())
        assert max(positives.values()) <= 10


def test_an_item_that_a_user_picked_is_in_none_of_its_pairs() -> None:
    planted = world(num_users=120)
    picks = [(user, item) for user in range(120) for item in range(0, 80, 5)]
    truth = truth_of(planted.events, planted.rows, planted.item_IT, picks=picks)
    there, without = (NextItem(7).pairs(of, np.random.default_rng(0)) for of in (planted.truth, truth))
    assert (there.item_P % 5 == 0).any()
    assert not (without.item_P % 5 == 0).any()


def test_an_item_never_sold_before_the_date_is_in_no_pair() -> None:
    rows = rows_at_all_dates(60)
    events = [Event(user, user % 10, day) for user in range(60) for day in (date(2024, 2, 1), D, D + timedelta(days=1))]
    events += [Event(user, 10, D) for user in range(0, 60, 2)]
    pairs = NextItem(7).pairs(truth_of(events, rows, np.eye(11, dtype=np.float32)), np.random.default_rng(0))
    at_date = pairs.row_P[rows.as_of_N[pairs.row_P] == np.datetime64(D)]
    assert len(at_date)
    assert 10 not in pairs.item_P


def test_a_representation_that_holds_the_label_is_found(planted: World) -> None:
    truth = planted.truth
    for task in (Return(7), Return(30), Volume(30), NextCategories(30)):
        problem = task.problem(truth, 1)
        assert isinstance(problem, RowProblem)
        assert judged(planted, task, problem.y_NK)[0] > 0.97, task.name
    favourite = clusters_touched(truth, 7).argmax(axis=1)
    assert judged(planted, NeighboursByFavourite(7), np.eye(6, dtype=np.float32)[favourite])[0] > 0.97


def test_a_mean_of_the_items_to_come_is_ahead_of_the_very_taste_that_they_are_drawn_by() -> None:
    many = world(num_users=900)
    taken = many.truth.futures.num_events(7)
    future = (taken @ many.item_IT) / np.maximum(taken.sum(axis=1), 1)[:, None]
    knows, honest = (judged(many, NextItem(7), x_NF.astype(np.float32)) for x_NF in (future, many.taste_of_rows()))
    assert knows[1] > honest[2]


def test_a_representation_of_other_users_is_worth_nothing(planted: World) -> None:
    rng = np.random.default_rng(5)
    x_NF = planted.taste_UT[rng.permutation(len(planted.taste_UT))[planted.rows.user_N]].astype(np.float32)
    x_NF = np.hstack([x_NF, rng.normal(size=(len(x_NF), 20)).astype(np.float32)])
    for task in (NextItem(7), NextItem(7, only_new=True), Return(7), Return(30), NextCategories(30)):
        value, low, high = judged(planted, task, x_NF)
        assert low - 0.02 < 0.5 < high + 0.02, (task.name, value)
    assert judged(planted, Volume(30), x_NF)[0] < 0.02


def test_what_knows_the_items_alone_is_at_one_half(planted: World) -> None:
    nobody = np.zeros((len(planted.rows), 1), np.float32)
    popular = planted.truth.activity.popularity_DI[PLAN.dates.index(D)]
    assert popular.max() > 5 * np.median(popular)  # popularity is there to be found
    for only_new in (False, True):
        value, low, high = judged(planted, NextItem(7, only_new=only_new), nobody)
        assert value == pytest.approx(0.5, abs=1e-9)
        assert low < 0.5 < high
    assert judged(planted, Return(30), nobody)[0] == 0.5


def test_popularity_would_tell_negatives_that_are_drawn_from_all_items_alike(planted: World) -> None:
    truth, rng = planted.truth, np.random.default_rng(0)
    pairs = NextItem(7).pairs(truth, rng)
    anything = np.where(pairs.is_positive_P, pairs.item_P, rng.integers(0, 80, len(pairs.item_P)))
    careless = PairProblem(truth, Pairs(pairs.row_P, anything, pairs.is_positive_P))
    nobody = np.zeros((len(planted.rows), 1), np.float32)
    assert value_of("auc", careless.scores(nobody, careless.chosen(nobody, 1), 1)) > 0.6


def test_taste_tells_items_and_clusters_but_not_returns(planted: World) -> None:
    x_NF = planted.taste_of_rows()
    assert judged(planted, NextItem(7), x_NF)[1] > 0.7
    assert judged(planted, NextCategories(30), x_NF)[1] > 0.6
    _, low, high = judged(planted, Return(30), x_NF)
    assert low - 0.03 < 0.5 < high + 0.03


def test_the_same_seed_gives_the_same_scores(planted: World) -> None:
    x_NF = planted.taste_of_rows()
    for task in (NextItem(7), Return(7), NeighboursByFavourite(30)):
        once, again = (judged(planted, task, x_NF, seed=4) for _ in range(2))
        assert once == again


def test_item_vectors_that_know_the_future_are_found() -> None:
    vectors = np.eye(3, dtype=np.float32)
    with pytest.raises(AssertionError, match="item vectors that know the future: valid from 2024-04-02"):
        ItemVectors({"content": 3}, {date(2024, 4, 1): date(2024, 4, 2)}, {date(2024, 4, 2): vectors}, {})


def test_pairs_see_the_item_vectors_that_were_valid_at_their_date(planted: World) -> None:
    first, second = PLAN.until, PLAN.test[0]
    version_of = {day: first if day < second else second for day in (PLAN.until, *PLAN.dates)}
    has = np.ones((80, 1), bool)
    vectors = {first: planted.item_IT, second: planted.item_IT + 100}
    dated = ItemVectors({"content": 4}, version_of, vectors, {first: has, second: has})
    problem = NextItem(7).problem(replace(planted.truth, items=dated), 1)
    assert isinstance(problem, PairProblem)
    x_ME, at_P = problem.item_side()
    for pair in range(0, len(at_P), 13):
        row, item = problem.pairs.row_P[pair], problem.pairs.item_P[pair]
        d = planted.rows.date_N[row]
        wanted = [*vectors[version_of[PLAN.dates[d]]][item], 1, np.log1p(planted.truth.activity.popularity_DI[d, item])]
        assert x_ME[at_P[pair]].tolist() == pytest.approx(wanted)


def test_neighbours_are_ranked_as_by_hand() -> None:
    rng = np.random.default_rng(2)
    x_QF, kind_Q = rng.normal(size=(30, 5)).astype(np.float32), rng.integers(0, 6, 30)
    kind_Q[0] = 9  # of a kind of its own
    found = neighbours_ndcg(x_QF, kind_Q, 7)
    assert np.isnan(found[0])
    unit = x_QF / np.linalg.norm(x_QF, axis=1, keepdims=True)
    for q in range(1, 30):
        others = sorted((p for p in range(30) if p != q), key=lambda p: -float(unit[q] @ unit[p]))[:7]
        alike = int((kind_Q == kind_Q[q]).sum()) - 1
        gain = sum((kind_Q[p] == kind_Q[q]) / np.log2(place + 2) for place, p in enumerate(others))
        best = sum(1 / np.log2(place + 2) for place in range(min(7, alike)))
        assert found[q] == pytest.approx(gain / best) if alike else np.isnan(found[q])


def test_tasks_with_too_few_examples_say_so(planted: World) -> None:
    rows = rows_at_all_dates(100, plan_of=["a"] * 100, sparse=["x"] * 3 + [None] * 97)
    events = [Event(0, 0, day) for day in PLAN.dates]
    truth = truth_of(events, rows, np.eye(3, dtype=np.float32))
    for task, said in (
        (Return(7), "0 rows with it in the valid part; 10 are wanted|rows with it in the train part"),
        (Volume(30), "rows with it in the"),
        (NextItem(7), "0 pairs of users and items in the train part; 40 are wanted"),
        (NextCategories(30), "no cluster of items is met by 10 users, and not met by as many, in each part"),
        (NeighboursByFavourite(30), "rows of 1 kinds in the train part"),
        (NeighboursByAttribute("plan_of"), "attribute plan_of has 1 value here"),
        (NeighboursByAttribute("sparse"), "attribute sparse has 1 value here"),
    ):
        reason = task.problem(truth, 1)
        assert isinstance(reason, LeftOut)
        assert any(part in reason for part in said.split("|")), reason
    nothing = replace(truth, cluster_I=np.full(3, -1))
    assert NeighboursByFavourite(30).problem(nothing, 1) == "no item has a vector to be clustered by"


def test_the_tasks_follow_the_horizons_and_attributes_that_there_are() -> None:
    names = [task.name for task in tasks_of(PLAN, ["country"], [])]
    assert names == [
        "next_item_7d", "next_item_7d_new", "return_7d", "return_30d", "volume_30d", "next_categories_30d",
        "neighbours", "neighbours_by_country",
    ]  # fmt: skip
    short = [task.name for task in tasks_of(replace(PLAN, horizons=(7,)), [], [])]
    assert short == ["next_item_7d", "next_item_7d_new", "return_7d", "volume_7d", "next_categories_7d", "neighbours"]


def test_inputs_are_standardised_by_training_rows_alone() -> None:
    x_NF = np.array([[1.0, 5], [3, 5], [1000, 7]], np.float32)
    found = standardised(x_NF, np.array([True, True, False]))
    assert found.tolist() == [[-1, 0], [1, 0], [8, 0]]  # clipped; what does not vary in training is nothing


def test_clusters_find_planted_directions_and_leave_out_items_without_a_vector() -> None:
    rng = np.random.default_rng(0)
    planted = rng.integers(0, 4, 200)
    x_IE = (np.eye(4, 8)[planted] + rng.normal(scale=0.05, size=(200, 8))).astype(np.float32)
    has = np.ones(200, bool)
    has[:5] = False
    x_IE[5] = 0
    found = clustered(x_IE, has, num_clusters=4, seed=1)
    assert (found[:6] == -1).all()
    assert len({(a, b) for a, b in zip(planted[6:], found[6:], strict=True)}) == 4
    assert (clustered(x_IE, np.zeros(200, bool), num_clusters=4, seed=1) == -1).all()
    assert item_vectors(x_IE).of("content", D)[0].shape == (200, 8)
