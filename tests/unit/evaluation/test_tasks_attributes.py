"""The task of attributes that are not inputs: users split into parts, and values that enough users have."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tests.support.evaluation_world import PLAN, Event, judged, truth_of, truth_with, user_ids
from userrep.evaluation.sampled_rows import NO_ROLE, TEST, TRAIN, VALID, rows_of
from userrep.evaluation.tasks.attributes import attribute_value, roles_by_user
from userrep.evaluation.tasks.rows import RowProblem

pytestmark = pytest.mark.fast

NUM_USERS = 300


def groups(num_values: int) -> list[str | None]:
    return [f"g{user % num_values}" for user in range(NUM_USERS)]


def test_each_user_is_in_one_row_its_newest_and_in_one_part() -> None:
    features = pa.table({
        "user_id": ["a", "b", "b", "c", *(f"u{k}" for k in range(200) for _ in PLAN.dates)],
        "as_of": pa.array([PLAN.dates[-1], *PLAN.dates[:2], PLAN.dates[1], *(PLAN.dates * 200)], pa.date32()),
    })  # fmt: skip
    rows = rows_of(features, PLAN, seed=1)
    role_N = roles_by_user(rows)
    taking_part = np.flatnonzero(role_N != NO_ROLE)
    assert rows.user_N[taking_part].tolist() == list(range(203))
    for n in taking_part:
        assert rows.date_N[n] == rows.date_N[rows.user_N == rows.user_N[n]].max()
    shares = Counter(role_N[taking_part].tolist())
    assert 0.3 < shares[TRAIN] / 203 < 0.5
    assert 0.1 < shares[VALID] / 203 < 0.3
    assert 0.3 < shares[TEST] / 203 < 0.5


def test_labels_are_the_values_of_the_newest_rows_and_the_most_frequent_ten_count() -> None:
    truth = truth_with(NUM_USERS, many=[f"g{min(user % 14, 11)}" if user % 7 else None for user in range(NUM_USERS)])
    problem = attribute_value("many").problem(truth, 1)
    assert isinstance(problem, RowProblem)
    counts = Counter(value for value in truth.attributes["many"].to_pylist() if value)
    enough = [value for value, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:10]]
    kept = [
        value for value in enough
        if all(sum(truth.attributes["many"][int(u)].as_py() == value
                   for u in problem.user_N[problem.role_N == role]) >= 10 for role in (TRAIN, VALID, TEST))
    ]  # fmt: skip
    assert problem.y_NK.shape[1] == len(kept) > 0
    for n in np.flatnonzero(problem.role_N != NO_ROLE):
        value = truth.attributes["many"][int(problem.user_N[n])].as_py()
        assert value is not None
        assert problem.y_NK[n].tolist() == [float(value == of) for of in kept]
    assert sum(problem.num_examples.values()) == sum(counts.values())


def test_what_holds_the_value_is_found_and_what_only_identifies_the_user_is_worth_nothing() -> None:
    truth = truth_with(NUM_USERS, group=groups(3))
    task, rows = attribute_value("group"), truth.rows
    problem = task.problem(truth, 1)
    assert isinstance(problem, RowProblem)
    assert problem.num_examples["test"] + problem.num_examples["train"] + problem.num_examples["valid"] == NUM_USERS
    holds = np.eye(3, dtype=np.float32)[rows.user_N % 3]
    own = np.random.default_rng(0).normal(size=(NUM_USERS, 16)).astype(np.float32)[rows.user_N]
    found = [judged(truth, task, x_NF)[0] for x_NF in (holds, own)]
    assert found[0] > 0.99
    assert 0.4 < found[1] < 0.6


def test_an_attribute_with_one_value_or_too_few_users_of_each_is_left_out_with_the_reason() -> None:
    truth = truth_with(
        NUM_USERS, same=["x"] * NUM_USERS, own=list(user_ids(NUM_USERS)), none=[None] * NUM_USERS,
        rare=["x", *["y"] * 299],
    )  # fmt: skip
    for name, reason in (
        ("same", "attribute same needs at least 2 distinct values, got 1"),
        ("none", "attribute none needs at least 2 distinct values, got 0"),
        ("own", "no value of own has 10 users with and 10 users without it in each split"),
        ("rare", "no value of rare has 10 users with and 10 users without it in each split"),
    ):
        assert attribute_value(name).problem(truth, 1) == reason


def test_labels_do_not_depend_on_what_users_did() -> None:
    truth = truth_with(NUM_USERS, group=groups(2))
    quiet = replace(truth_of([Event(0, 0, PLAN.test[0])], truth.rows, np.eye(3, dtype=np.float32)),
                    attributes=truth.attributes)  # fmt: skip
    made = [attribute_value("group").problem(values, seed) for values, seed in ((truth, 1), (quiet, 2))]
    assert all(isinstance(problem, RowProblem) for problem in made)
    first, second = (problem for problem in made if isinstance(problem, RowProblem))
    assert (first.y_NK == second.y_NK).all()
    assert (first.role_N == second.role_N).all()


def test_an_attribute_names_its_task_and_is_not_drawn() -> None:
    task = attribute_value("gender")
    assert (task.name, task.is_drawn) == ("attribute_gender", False)
