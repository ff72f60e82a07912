"""Tasks of neighbours: rankings by hand, who takes part, and how cosines are taken."""

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
    truth_with,
    world,
)
from userrep.evaluation.metrics import value_of
from userrep.evaluation.sampled_rows import TEST
from userrep.evaluation.tasks.neighbours import (
    AS_IT_IS,
    STANDARDIZED,
    NeighbourProblem,
    neighbours,
    neighbours_by,
    neighbours_ndcg,
)
from userrep.evaluation.tasks.rows import events_by_cluster
from userrep.evaluation.tasks.task import LeftOut

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def planted() -> World:
    return world()


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


def test_a_vector_of_zeros_is_at_right_angles_to_all_others() -> None:
    x_QF = np.array([[1, 0], [0, 0], [-1, 0], [2, 0]], np.float32)
    # The nearest of row 0 is row 3, that of row 2 is row 1, and that of row 3 is row 0; row 1 has no nearest.
    for kinds, wanted in (([0, 1, 1, 0], [1, 1, 1]), ([0, 0, 1, 1], [0, 0, 0])):
        assert neighbours_ndcg(x_QF, np.array(kinds), 1)[[0, 2, 3]].tolist() == wanted


def test_a_representation_that_holds_the_favourite_is_found(planted: World) -> None:
    favourite = events_by_cluster(planted.truth, 7).argmax(axis=1)
    x_NF = np.eye(6, dtype=np.float32)[favourite]
    assert judged(planted.truth, neighbours(7), x_NF)[0] > 0.97


def test_the_kind_of_a_row_is_the_cluster_of_most_of_its_events_and_rows_without_an_event_take_no_part(
    planted: World,
) -> None:
    problem = neighbours(30).problem(planted.truth, 1)
    assert isinstance(problem, NeighbourProblem)
    rows, counts = planted.rows, planted.truth.futures.num_events(30).toarray()
    assert problem.pool_N.tolist() == (counts.sum(axis=1) > 0).tolist()
    for n in np.flatnonzero(problem.pool_N)[::7]:
        by_cluster: Counter[int] = Counter()
        for item in np.flatnonzero(counts[n]):
            by_cluster[int(planted.truth.cluster_I[item])] += int(counts[n, item])
        assert by_cluster[int(problem.kind_N[n])] == max(by_cluster.values())
    assert problem.num_examples["test"] == int((problem.pool_N & (rows.role_N == TEST)).sum())


def test_test_rows_are_ranked_within_their_date_and_training_rows_do_not_count() -> None:
    truth = truth_with(120, group=["a", "b"] * 60)
    problem = neighbours_by("group").problem(truth, 1)
    assert isinstance(problem, NeighbourProblem)
    rows = truth.rows
    x_NF = np.eye(2, dtype=np.float32)[rows.user_N % 2]
    x_NF[rows.role_N != TEST] = 1  # says nothing
    scores = problem.scores(x_NF, AS_IT_IS)["ndcg"]
    assert len(scores.user_M) == (rows.role_N == TEST).sum()
    assert scores.score_MK.min() == pytest.approx(1)
    half = rows.date_N % 2 == 1
    x_NF[half] = x_NF[half][:, ::-1]  # another code at every other date
    assert problem.scores(x_NF, AS_IT_IS)["ndcg"].score_MK.min() == pytest.approx(1)


def test_inputs_are_standardized_before_cosines_if_that_is_better_at_training_dates() -> None:
    truth = truth_with(120, group=["a", "b"] * 60)
    problem = neighbours_by("group").problem(truth, 1)
    assert isinstance(problem, NeighbourProblem)
    rows = truth.rows
    sign_N = (1 - 2 * (rows.user_N % 2)).astype(np.float32)
    offset = np.stack([np.full(len(rows), 100.0), sign_N, np.random.default_rng(0).normal(size=len(rows))], axis=1)
    x_NF = offset.astype(np.float32) * np.array([1, 1, 20], np.float32)
    assert problem.choose(x_NF) == STANDARDIZED
    better, worse = (value_of("ndcg", problem.scores(x_NF, how)["ndcg"]) for how in (STANDARDIZED, AS_IT_IS))
    assert better > worse + 0.2
    angle = np.stack([sign_N, np.random.default_rng(1).normal(scale=0.01, size=len(rows))], axis=1)
    assert problem.choose(angle.astype(np.float32)) == AS_IT_IS  # noise is small until it is scaled


def test_what_holds_an_attribute_has_neighbours_of_the_same_value() -> None:
    truth = truth_with(300, group=[f"g{user % 3}" for user in range(300)])
    holds = np.eye(3, dtype=np.float32)[truth.rows.user_N % 3]
    assert judged(truth, neighbours_by("group"), holds)[0] > 0.99


def test_rows_without_a_value_take_no_part() -> None:
    truth = truth_with(120, group=["a", "b", None] * 40)
    problem = neighbours_by("group").problem(truth, 1)
    assert isinstance(problem, NeighbourProblem)
    assert problem.pool_N.tolist() == (truth.rows.user_N % 3 != 2).tolist()


def test_values_that_nearly_every_user_has_alone_are_left_out() -> None:
    truth = truth_with(120, zip=[f"z{user}" for user in range(120)])
    left_out = neighbours_by("zip").problem(truth, 1)
    assert isinstance(left_out, LeftOut)
    assert "share their kind with another row of their date" in str(left_out)


def test_the_same_seed_gives_the_same_neighbours(planted: World) -> None:
    x_NF = planted.taste_of_rows()
    once, again = (judged(planted.truth, neighbours(30), x_NF, seed=4) for _ in range(2))
    assert once == again


def test_too_few_rows_or_kinds_are_named() -> None:
    rows = rows_at_all_dates(100, plan_of=["a"] * 100, sparse=["x"] * 3 + [None] * 97, few=["x", "y"] + [None] * 98)
    truth = truth_of([Event(0, 0, day) for day in PLAN.dates], rows, np.eye(3, dtype=np.float32))
    for task, reason in (
        (neighbours(30), "rows of 1 kinds in the train split; at least 20 rows of 2 kinds are required"),
        (neighbours_by("plan_of"), "attribute plan_of needs at least 2 distinct values, got 1"),
        (neighbours_by("sparse"), "attribute sparse needs at least 2 distinct values, got 1"),
        (
            neighbours_by("few"),
            "4 rows of 2 kinds in the train split; at least 20 rows of 2 kinds are required",
        ),
    ):
        found = task.problem(truth, 1)
        assert isinstance(found, LeftOut)
        assert reason in found
    nothing = replace(truth, cluster_I=np.full(3, -1))
    assert neighbours(30).problem(nothing, 1) == "no item has a vector, so items cannot be clustered"
    same = truth_with(300, same=["x"] * 300)
    assert neighbours_by("same").problem(same, 1) == "attribute same needs at least 2 distinct values, got 1"
