"""Representations described and judged in this process: what is measured, what is left out, what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tests.support.builders import config_of
from tests.support.evaluation_world import PLAN, Event, context_of, rows_at_all_dates, truth_of, world
from userrep.errors import UsageError
from userrep.evaluation import measure as module
from userrep.evaluation.measure import Described, check_measured, describe, fit_and_describe, measure
from userrep.evaluation.metrics import Floats32, bootstrapped, resampled_users, value_of
from userrep.evaluation.representation import Context, Matrix
from userrep.evaluation.results import Cost, Measured
from userrep.evaluation.tasks.look_alikes import look_alikes
from userrep.evaluation.tasks.neighbours import neighbours
from userrep.evaluation.tasks.pairs import PairProblem, next_item
from userrep.evaluation.tasks.rows import volume, will_return

pytestmark = pytest.mark.fast


def described(**matrices: Floats32) -> list[Described]:
    return [Described(name, x_NF, Cost(0, 0, *x_NF.shape)) for name, x_NF in matrices.items()]


def test_tasks_are_measured_for_each_representation_and_draw_and_those_without_examples_left_out(
    tmp_path: Path, lines: list[str]
) -> None:
    planted = world(num_users=150)
    config = config_of(tmp_path, evaluation={"num_seeds": 2, "num_bootstraps": 20})
    both = described(embedding=planted.taste_of_rows(), popularity=np.zeros((len(planted.rows), 1), np.float32))
    truth = replace(planted.truth, cluster_I=np.full(80, -1))
    found, left_out = measure([next_item(7), will_return(7), neighbours(30)], truth, both, config.evaluation)
    assert [(one.task, one.metric, one.representation, len(one.by_seed)) for one in found] == [
        (task, metric, name, num_draws)
        for task, metrics, num_draws in (
            ("next_item_7d", ("auc", "accuracy"), 2), ("return_7d", ("auc", "auc_linear", "auc_trees"), 1),
        )
        for name in ("embedding", "popularity")
        for metric in metrics
    ]  # fmt: skip
    assert left_out == {"neighbours": "no item has a vector, so items cannot be clustered"}
    assert lines[2] == "neighbours: left out: no item has a vector, so items cannot be clustered"
    auc = {one.representation: f"{one.value:.4f}" for one in found if (one.task, one.metric) == ("next_item_7d", "auc")}
    assert lines[0].endswith(f"s; auc: embedding {auc['embedding']}, popularity {auc['popularity']}")


def test_figures_are_means_over_seeds_of_the_same_resampled_users_with_the_setting_of_the_first_seed(
    tmp_path: Path,
) -> None:
    planted = world(num_users=150)
    config = config_of(tmp_path, evaluation={"num_seeds": 2, "num_bootstraps": 25, "seed": 6})
    x_NF = planted.taste_of_rows()
    [found, _], _ = measure([next_item(7)], planted.truth, described(embedding=x_NF), config.evaluation)
    problems = [
        problem for seed in (6, 7) if isinstance(problem := next_item(7).problem(planted.truth, seed), PairProblem)
    ]
    with threadpool_limits(1):
        setting = problems[0].choose(x_NF)
        scores = [problem.scores(x_NF, setting)["auc"] for problem in problems]
    assert (found.metric, found.setting) == ("auc", str(setting))
    half = problems[0].num_examples["test"] // 2  # exchanged: of two pairs one is positive
    assert found.num_examples == problems[0].num_examples | {"test_positives": half, "test_negatives": half}
    assert found.by_seed == tuple(value_of("auc", one) for one in scores)
    weight_UB = resampled_users(150, 25, 6)
    one, other = (bootstrapped("auc", of_draw, weight_UB) for of_draw in scores)
    np.testing.assert_allclose(found.bootstraps_B, (one + other) / 2)


def test_an_evaluation_without_any_task_is_refused_with_all_reasons(tmp_path: Path) -> None:
    rows = rows_at_all_dates(50)
    truth = truth_of([Event(0, 0, day) for day in PLAN.dates], rows, np.eye(3, dtype=np.float32))
    with pytest.raises(UsageError, match=r"(?s)evaluate: return_7d: .*\nevaluate: volume_30d: .* positive rows"):
        check_measured(*measure([will_return(7), volume(30)], truth, [], config_of(tmp_path).evaluation))


def test_a_representation_is_fitted_then_described(lines: list[str]) -> None:
    def matrix(context: Context) -> Floats32:
        calls.append("matrix")
        return np.ones((len(context.rows), 3), np.float32)

    def fit(_: Context) -> Matrix:
        calls.append("fit")
        return matrix

    context, calls = context_of([]), list[str]()
    fitted, found = fit_and_describe("ones", fit, context)
    assert calls == ["fit", "matrix"]
    assert fitted is matrix
    assert (found.name, found.cost.num_rows, found.cost.width) == ("ones", len(context.rows), 3)
    assert lines[0].startswith("ones: 3 values per row, fitted in ")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.ones((5, 2), np.float32), "ones: expected 240 rows, got 5"),
        (np.ones((240, 2)), "ones: expected float32, got float64"),
        (np.full((240, 2), np.nan, np.float32), "ones: expected finite values, got NaN or infinity"),
        (np.full((240, 2), np.inf, np.float32), "ones: expected finite values, got NaN or infinity"),
    ],
)
def test_a_matrix_of_another_shape_or_kind_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        describe("ones", lambda _: wrong, context_of([]))


def test_several_threads_give_the_same_figures_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = world(num_users=150)
    rng, settings = np.random.default_rng(0), config_of(tmp_path, evaluation={"num_bootstraps": 20}).evaluation
    both = described(
        embedding=planted.taste_of_rows(), popularity=np.zeros((len(planted.rows), 1), np.float32),
        noise=rng.normal(size=(len(planted.rows), 40)).astype(np.float32),
    )  # fmt: skip
    tasks = [will_return(7), next_item(7), neighbours(30), look_alikes(20, 30)]
    monkeypatch.setattr(module.os, "cpu_count", lambda: 4)
    found, _ = measure(tasks, planted.truth, both, settings)
    one_by_one = [
        one for name in ("embedding", "popularity", "noise") for one in
        measure(tasks, planted.truth, [entry for entry in both if entry.name == name], settings)[0]
    ]  # fmt: skip
    assert {one.task for one in found} == {task.name for task in tasks}
    assert {figures(one) for one in found} == {figures(one) for one in one_by_one}
    assert len(found) == len(one_by_one)


def figures(one: Measured) -> tuple[Any, ...]:
    return one.task, one.metric, one.representation, one.by_seed, one.bootstraps_B.tobytes(), one.setting
