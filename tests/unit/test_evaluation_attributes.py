"""Attributes that are no inputs: read from the users' table, split by user, told apart."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from tests.support.builders import config_of, write_rows
from tests.support.evaluation_world import PLAN, Event, rows_at_all_dates, truth_of, user_ids, world
from userrep.errors import UsageError
from userrep.evaluation.attributes import as_kinds, read_attributes
from userrep.evaluation.metrics import value_of
from userrep.evaluation.rows import NO_ROLE, TEST, TRAIN, VALID, rows_of
from userrep.evaluation.tasks.attributes import WhichValue, split_by_user
from userrep.evaluation.tasks.catalog import tasks_of
from userrep.evaluation.tasks.neighbours import NeighbourProblem, NeighboursByAttribute
from userrep.evaluation.tasks.rows import RowProblem
from userrep.evaluation.tasks.task import Truth
from userrep.features.sides import check_sources

pytestmark = pytest.mark.default

NUM_USERS = 300


def truth_with(**values: list[str | None]) -> Truth:
    """Let users have values of attributes that are no inputs."""
    planted = world(num_users=NUM_USERS)
    return replace(planted.truth, attributes={name: pa.array(of, pa.string()) for name, of in values.items()})


def groups(num_values: int) -> list[str | None]:
    return [f"g{user % num_values}" for user in range(NUM_USERS)]


def test_each_user_is_in_one_row_its_newest_and_in_one_part() -> None:
    features = pa.table({
        "user_id": ["a", "b", "b", "c", *(f"u{k}" for k in range(200) for _ in PLAN.dates)],
        "as_of": pa.array([PLAN.dates[-1], *PLAN.dates[:2], PLAN.dates[1], *(PLAN.dates * 200)], pa.date32()),
    })  # fmt: skip
    rows = split_by_user(rows_of(features, PLAN, seed=1))
    taking_part = np.flatnonzero(rows.role_N != NO_ROLE)
    assert rows.user_N[taking_part].tolist() == list(range(203))
    for n in taking_part:
        assert rows.date_N[n] == rows.date_N[rows.user_N == rows.user_N[n]].max()
    shares = Counter(rows.role_N[taking_part].tolist())
    assert 0.3 < shares[TRAIN] / 203 < 0.5
    assert 0.1 < shares[VALID] / 203 < 0.3
    assert 0.3 < shares[TEST] / 203 < 0.5


def test_labels_are_the_values_of_the_newest_rows_and_the_most_frequent_ten_count() -> None:
    truth = truth_with(many=[f"g{min(user % 14, 11)}" if user % 7 else None for user in range(NUM_USERS)])
    problem = WhichValue("many").problem(truth, 1)
    assert isinstance(problem, RowProblem)
    counts = Counter(value for value in truth.attributes["many"].to_pylist() if value)
    enough = [value for value, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:10]]
    kept = [
        value for value in enough
        if all(sum(truth.attributes["many"][int(u)].as_py() == value
                   for u in problem.rows.user_N[problem.rows.role_N == role]) >= 10 for role in (TRAIN, VALID, TEST))
    ]  # fmt: skip
    assert problem.y_NK.shape[1] == len(kept) > 0
    for n in np.flatnonzero(problem.rows.role_N != NO_ROLE):
        value = truth.attributes["many"][int(problem.rows.user_N[n])].as_py()
        assert value is not None
        assert problem.y_NK[n].tolist() == [float(value == of) for of in kept]
    assert sum(problem.num_examples.values()) == sum(counts.values())


def test_what_knows_the_value_is_found_and_what_knows_the_user_alone_is_not() -> None:
    truth = truth_with(group=groups(3))
    task, rows = WhichValue("group"), truth.rows
    problem = task.problem(truth, 1)
    assert isinstance(problem, RowProblem)
    assert problem.num_examples["test"] + problem.num_examples["train"] + problem.num_examples["valid"] == NUM_USERS
    holds = np.eye(3, dtype=np.float32)[rows.user_N % 3]
    own = np.random.default_rng(0).normal(size=(NUM_USERS, 16)).astype(np.float32)[rows.user_N]
    found = [value_of("auc", problem.scores(x, problem.chosen(x, 1), 1)) for x in (holds, own)]
    assert found[0] > 0.99
    assert 0.4 < found[1] < 0.6
    by_neighbours = NeighboursByAttribute("group").problem(truth, 1)
    assert isinstance(by_neighbours, NeighbourProblem)
    assert value_of("ndcg", by_neighbours.scores(holds, by_neighbours.chosen(holds, 1), 1)) > 0.99


def test_an_attribute_with_one_value_or_too_few_users_of_each_says_so() -> None:
    truth = truth_with(
        same=["x"] * NUM_USERS, own=list(user_ids(NUM_USERS)), none=[None] * NUM_USERS, rare=["x", *["y"] * 299]
    )
    for name, said in (
        ("same", "attribute same has 1 value here"),
        ("none", "attribute none has 0 values here"),
        ("own", "no value of own is that of 10 users, and not of as many, in each part"),
        ("rare", "no value of rare is that of 10 users, and not of as many, in each part"),
    ):
        assert WhichValue(name).problem(truth, 1) == said
    assert NeighboursByAttribute("same").problem(truth, 1) == "attribute same has 1 value here"


def test_tasks_of_left_out_attributes_come_last_and_are_not_akin_to_the_training() -> None:
    tasks = tasks_of(PLAN, ["country"], ["age"])[-3:]
    assert [task.name for task in tasks] == ["neighbours_by_country", "neighbours_by_age", "attribute_age"]
    assert not any(task.is_akin_to_training for task in tasks)


def test_many_numbers_are_cut_at_their_quartiles_and_few_are_taken_as_they_are() -> None:
    ages = np.random.default_rng(0).permutation(np.arange(20.0, 60.0))
    quarters = as_kinds(pa.array([*ages, None, float("nan")], from_pandas=False))
    assert quarters.to_pylist() == [*(str(2 * int((age - 20) // 10)) for age in ages), None, None]
    for heap in (0.0, 500.0):  # most at the least or at the largest value
        skewed = np.append(np.full(800, heap), np.arange(1.0, 201.0))
        kinds = np.array(as_kinds(pa.array(skewed)).to_pylist())
        assert len(set(kinds)) == 2
        assert set(kinds[skewed == heap]).isdisjoint(kinds[skewed != heap])
    assert len(set(as_kinds(pa.array([1.0, 2.0, 1.0, None])).to_pylist())) == 3
    assert as_kinds(pa.array(["a", None])).to_pylist() == ["a", None]


def test_attributes_are_read_for_the_users_of_the_rows(spark: SparkSession, tmp_path: Path) -> None:
    rows = rows_at_all_dates(40)
    table = [{"id": f"u{k:04d}", "Age": 20 + k, "home": {"town": "ab"[k % 2]}} for k in range(5, 60)]
    table += [{"id": "u0007", "Age": 90, "home": {"town": None}}, {"id": None, "Age": 1, "home": {"town": "c"}}]
    users = {"path": str(write_rows(tmp_path / "users" / "part.parquet", table)), "columns": {"user_id": "id"}}
    config = config_of(tmp_path, users=users, evaluation={"attributes": ["Age", "home.town"]})
    found = read_attributes(spark, config, rows, seed=1)
    assert list(found) == ["age", "home_town"]
    known = {user: 20.0 + user for user in range(5, 40)} | {7: 90.0}
    edges = np.quantile(list(known.values()), [0.25, 0.5, 0.75])
    assert found["age"].to_pylist() == [
        str(sum((known[user] >= edge) + int(known[user] > edge) for edge in edges)) if user in known else None
        for user in range(40)
    ]
    assert found["home_town"].to_pylist() == [None] * 5 + ["ab"[k % 2] for k in range(5, 40)]
    assert read_attributes(spark, config_of(tmp_path), rows, seed=1) == {}


def test_a_column_that_the_users_table_lacks_is_refused_with_those_there_are(
    spark: SparkSession, tmp_path: Path
) -> None:
    users = {"path": str(write_rows(tmp_path / "users" / "part.parquet", [{"id": "u1", "age": 3}])),
             "columns": {"user_id": "id"}}  # fmt: skip
    write_rows(tmp_path / "events" / "part.parquet", [{"user_id": "u1", "item_id": "i1", "event_at": None}])
    config = config_of(tmp_path, users=users, evaluation={"attributes": ["age", "gender"]})
    with pytest.raises(UsageError, match=r"evaluation.attributes\[1\]: no column 'gender'; columns found: id, age."):
        check_sources(spark, config)


def test_labels_do_not_depend_on_what_users_did() -> None:
    truth = truth_with(group=groups(2))
    quiet = replace(truth_of([Event(0, 0, PLAN.test[0])], truth.rows, np.eye(3, dtype=np.float32)),
                    attributes=truth.attributes)  # fmt: skip
    made = [WhichValue("group").problem(of, seed) for of, seed in ((truth, 1), (quiet, 2))]
    assert all(isinstance(problem, RowProblem) for problem in made)
    first, second = (problem for problem in made if isinstance(problem, RowProblem))
    assert (first.y_NK == second.y_NK).all()
    assert (first.rows.role_N == second.rows.role_N).all()
