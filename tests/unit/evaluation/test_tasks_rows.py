"""Tasks that label rows: labels against plain Python, and representations that must or must not tell them."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.support.evaluation_world import (
    PLAN,
    Event,
    World,
    judged,
    rows_at_all_dates,
    truth_of,
    windows_by_hand,
    world,
)
from userrep.evaluation.metrics import value_of
from userrep.evaluation.sampled_rows import TEST, TRAIN, VALID
from userrep.evaluation.tasks.rows import (
    RowProblem,
    Setting,
    events_by_cluster,
    next_categories,
    too_few_rows,
    volume,
    will_return,
)
from userrep.evaluation.tasks.task import LeftOut

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def planted() -> World:
    return world()


def test_labels_of_rows_are_those_counted_one_by_one(planted: World) -> None:
    rows, truth = planted.rows, planted.truth
    problems = [task.problem(truth, 1) for task in (will_return(7), will_return(30), volume(30))]
    assert all(isinstance(problem, RowProblem) for problem in problems)
    labels = np.hstack([problem.y_NK for problem in problems if isinstance(problem, RowProblem)])
    touched = events_by_cluster(truth, 30)
    for row in range(0, len(rows), 17):
        user, day = int(rows.user_N[row]), rows.dates[rows.date_N[row]]
        _, within_7, _ = windows_by_hand(planted.events, user, day, 7)
        _, within_30, weighs = windows_by_hand(planted.events, user, day, 30)
        assert labels[row] == pytest.approx([float(bool(within_7)), float(bool(within_30)), np.log1p(weighs)])
        by_cluster = Counter(dict.fromkeys(range(touched.shape[1]), 0))
        for item, count in within_30.items():
            by_cluster[int(truth.cluster_I[item])] += count
        assert dict(enumerate(touched[row])) == by_cluster


def test_items_without_a_cluster_are_in_none(planted: World) -> None:
    without = planted.truth.cluster_I.copy()
    without[::2] = -1
    touched = events_by_cluster(replace(planted.truth, cluster_I=without), 30)
    counts = planted.truth.futures.num_events(30).toarray()
    assert touched.sum(axis=1).tolist() == counts[:, 1::2].sum(axis=1).tolist()


def test_a_representation_that_holds_the_label_is_found(planted: World) -> None:
    truth = planted.truth
    for task in (will_return(7), will_return(30), volume(30), next_categories(30)):
        problem = task.problem(truth, 1)
        assert isinstance(problem, RowProblem)
        assert judged(truth, task, problem.y_NK)[0] > 0.97, task.name


def test_a_representation_of_other_users_is_worth_nothing(planted: World) -> None:
    rng = np.random.default_rng(5)
    x_NF = planted.taste_UT[rng.permutation(len(planted.taste_UT))[planted.rows.user_N]].astype(np.float32)
    x_NF = np.hstack([x_NF, rng.normal(size=(len(x_NF), 20)).astype(np.float32)])
    for task in (will_return(7), will_return(30), next_categories(30)):
        value, low, high = judged(planted.truth, task, x_NF)
        assert low - 0.02 < 0.5 < high + 0.02, (task.name, value)
    assert judged(planted.truth, volume(30), x_NF)[0] < 0.02


def test_a_row_of_zeros_does_not_predict_returns(planted: World) -> None:
    assert judged(planted.truth, will_return(30), np.zeros((len(planted.rows), 1), np.float32))[0] == 0.5


def test_taste_predicts_clusters_but_not_returns(planted: World) -> None:
    # Trees can tell by its taste which user a row is of, and know it from earlier dates.
    x_NF = planted.taste_of_rows()
    assert judged(planted.truth, next_categories(30), x_NF)[1] > 0.6
    _, low, high = judged(planted.truth, will_return(30), x_NF, metric="auc_linear")
    assert low - 0.03 < 0.5 < high + 0.03


def test_the_same_seed_gives_the_same_scores(planted: World) -> None:
    x_NF = planted.taste_of_rows()
    once, again = (judged(planted.truth, will_return(7), x_NF, seed=4) for _ in range(2))
    assert once == again


def test_numbers_are_returned_in_the_unit_of_their_labels_and_for_test_rows_only(planted: World) -> None:
    problem = volume(30).problem(planted.truth, 1)
    assert isinstance(problem, RowProblem)
    large = replace(problem, y_NK=100 + 1000 * problem.y_NK)
    setting = Setting(np.array([0.1]), 30)
    scores = large.scores(problem.y_NK, setting)["r2"]
    is_test_N = planted.rows.role_N == TEST
    assert scores.user_M.tolist() == planted.rows.user_N[is_test_N].tolist()
    np.testing.assert_allclose(scores.label_MK, large.y_NK[is_test_N])
    small = problem.scores(problem.y_NK, setting)["r2"]
    np.testing.assert_allclose(scores.score_MK, 100 + 1000 * small.score_MK, rtol=1e-3, atol=1)


def test_the_mean_of_both_probes_counts_and_both_are_given(planted: World) -> None:
    problem = will_return(7).problem(planted.truth, 1)
    assert isinstance(problem, RowProblem)
    rng = np.random.default_rng(0)
    noisy_NF = (problem.y_NK + rng.normal(scale=2, size=(len(problem.role_N), 20))).astype(np.float32)
    distance_NF = (rng.normal(size=noisy_NF.shape) * (0.3 + problem.y_NK)).astype(np.float32)  # its square tells
    for x_NF, better, worse in ((noisy_NF, "linear", "trees"), (distance_NF, "trees", "linear")):
        setting = problem.choose(x_NF)
        assert re.fullmatch(r"linear, penalty \S+; trees, \d+ rounds", str(setting))
        scores = problem.scores(x_NF, setting)
        assert list(scores) == ["auc", "auc_linear", "auc_trees"]
        each = [scores["auc_linear"].score_MK, scores["auc_trees"].score_MK]
        np.testing.assert_allclose(scores["auc"].score_MK, np.mean(each, axis=0))
        assert value_of("auc", scores["auc"]) > 0.9
        assert value_of("auc", scores[f"auc_{better}"]) > value_of("auc", scores[f"auc_{worse}"])
    assert value_of("auc", scores["auc_linear"]) < 0.6


def test_labels_of_test_rows_change_no_setting_and_no_score(planted: World) -> None:
    for task in (will_return(7), volume(30), next_categories(30)):
        problem = task.problem(planted.truth, 1)
        assert isinstance(problem, RowProblem)
        x_NF, is_test_N = planted.taste_of_rows(), problem.role_N == TEST
        changed = replace(problem, y_NK=np.where(is_test_N[:, None], 1 - problem.y_NK, problem.y_NK))
        settings = [one.choose(x_NF) for one in (problem, changed)]
        assert str(settings[0]) == str(settings[1])
        (one, other) = (p.scores(x_NF, settings[0])[problem.metric] for p in (problem, changed))
        assert (one.score_MK == other.score_MK).all()


def test_several_labels_are_read_by_a_regression_alone(planted: World) -> None:
    problem = next_categories(30).problem(planted.truth, 1)
    assert isinstance(problem, RowProblem)
    setting = problem.choose(planted.taste_of_rows())
    assert setting.num_rounds is None
    assert str(setting).startswith("linear, penalty ")
    assert list(problem.scores(planted.taste_of_rows(), setting)) == ["auc"]


def test_ten_rows_of_either_kind_in_each_part_are_enough_and_nine_are_not(planted: World) -> None:
    role_N = planted.rows.role_N
    enough = np.zeros(len(role_N), bool)
    for role in (TRAIN, VALID, TEST):
        enough[np.flatnonzero(role_N == role)[:10]] = True
    assert too_few_rows(role_N, enough) is None
    assert too_few_rows(role_N, ~enough) is None
    for name, role in (("train", TRAIN), ("valid", VALID), ("test", TEST)):
        too_few = enough.copy()
        too_few[np.flatnonzero(enough & (role_N == role))[0]] = False
        assert too_few_rows(role_N, too_few) == f"9 positive rows in the {name} split; at least 10 are required"
        assert too_few_rows(role_N, ~too_few) == f"9 negative rows in the {name} split; at least 10 are required"


def test_only_clusters_with_enough_rows_of_either_kind_are_labels(planted: World) -> None:
    cluster_I = planted.truth.cluster_I.copy()
    counts = planted.truth.futures.num_events(30).sum(axis=0)
    rare = int(np.argmin(np.where(counts > 0, counts, np.inf)))
    cluster_I[rare] = cluster_I.max() + 1  # a cluster of one rare item
    problem = next_categories(30).problem(replace(planted.truth, cluster_I=cluster_I), 1)
    assert isinstance(problem, RowProblem)
    touched = events_by_cluster(replace(planted.truth, cluster_I=cluster_I), 30) > 0
    np.testing.assert_array_equal(problem.y_NK, touched[:, :-1])


def test_too_few_examples_are_named() -> None:
    rows = rows_at_all_dates(100)
    truth = truth_of([Event(0, 0, day) for day in PLAN.dates], rows, np.eye(3, dtype=np.float32))
    for task, reasons in (
        (
            will_return(7),
            ("0 positive rows in the valid split; at least 10 are required", "positive rows in the train split"),
        ),
        (volume(30), ("positive rows in the",)),
        (next_categories(30), ("no cluster of items has 10 positive and 10 negative rows in each split",)),
    ):
        found = task.problem(truth, 1)
        assert isinstance(found, LeftOut)
        assert any(reason in found for reason in reasons), found
