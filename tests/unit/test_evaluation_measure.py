"""Representations described and judged in this process: what is measured, what is left out, what is refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.builders import config_of
from tests.support.evaluation_world import PLAN, Event, context_of, rows_at_all_dates, truth_of, world
from userrep.errors import UsageError
from userrep.evaluation.heads import SMALL, Heads, SmallHeads
from userrep.evaluation.measure import (
    Described,
    beside_each_other,
    check_measured,
    described_by,
    fitted_and_described,
    measure,
)
from userrep.evaluation.metrics import bootstrapped, resampled_users, value_of
from userrep.evaluation.output import result_lines
from userrep.evaluation.representation import Context, Floats32
from userrep.evaluation.representations.supervised import DlrmHeads
from userrep.evaluation.results import Cost, Results
from userrep.evaluation.tasks.neighbours import NeighboursByFavourite
from userrep.evaluation.tasks.rows import Return, RowProblem, Volume
from userrep.features.layout import Block

pytestmark = pytest.mark.fast

BLOCKS = (Block(name="one", kind="pooled", start=0, stop=4), Block(name="count", kind="scalar", start=4, stop=10))


def described(**matrices: Floats32) -> list[Described]:
    return [Described(name, x_NF, Cost(0, 0, *x_NF.shape)) for name, x_NF in matrices.items()]


@dataclass
class Ones:
    """Ones for each row, and a note of what was called."""

    x_NF: Floats32 | None = None
    name: str = "ones"
    calls: list[str] = field(default_factory=list)

    def fit(self, context: Context) -> None:
        self.calls.append("fit")

    def matrix(self, context: Context) -> Floats32:
        self.calls.append("matrix")
        return np.ones((len(context.rows), 3), np.float32) if self.x_NF is None else self.x_NF


class OnesWithHeads(Ones):
    """The same, with nets of its own."""

    own = SmallHeads(SMALL.grid[:1])

    def heads(self, context: Context) -> Heads:
        self.calls.append("heads")
        return self.own


def test_tasks_are_measured_for_each_representation_and_seed_and_those_without_examples_left_out(
    tmp_path: Path,
) -> None:
    planted = world(num_users=150)
    config = config_of(tmp_path, evaluation={"num_seeds": 2, "num_bootstraps": 20})
    both = described(embedding=planted.taste_of_rows(), popularity=np.zeros((len(planted.rows), 1), np.float32))
    truth = replace(planted.truth, cluster_I=np.full(80, -1))
    lines: list[str] = []
    found, left_out = measure([Return(7), NeighboursByFavourite(30)], truth, both, config, lines.append)
    assert [(one.task, one.representation, len(one.by_seed)) for one in found] == [
        ("return_7d", "embedding", 2), ("return_7d", "popularity", 2),
    ]  # fmt: skip
    assert left_out == {"neighbours": "no item has a vector to be clustered by"}
    assert "neighbours: left out; no item has a vector to be clustered by" in lines


def test_figures_are_means_over_seeds_of_the_same_resampled_users_with_the_setting_of_the_first_seed(
    tmp_path: Path,
) -> None:
    planted = world(num_users=150)
    config = config_of(tmp_path, evaluation={"num_seeds": 2, "num_bootstraps": 25, "seed": 6})
    x_NF = planted.taste_of_rows()
    [found], _ = measure([Volume(30)], planted.truth, described(embedding=x_NF), config, lambda _: None)
    problem = Volume(30).problem(planted.truth, 6)
    assert isinstance(problem, RowProblem)
    setting = problem.chosen(x_NF, 6)
    scores = [problem.scores(x_NF, setting, seed) for seed in (6, 7)]
    assert (found.metric, found.setting, found.num_examples) == ("r2", str(setting), problem.num_examples)
    assert found.by_seed == tuple(value_of("r2", of_seed) for of_seed in scores)
    weight_UB = resampled_users(150, 25, 6)
    one, other = (bootstrapped("r2", of_seed, weight_UB) for of_seed in scores)
    np.testing.assert_allclose(found.bootstraps_B, (one + other) / 2)


def test_what_brings_its_own_nets_is_left_out_of_tasks_without_any_and_its_place_is_empty(tmp_path: Path) -> None:
    planted = world(num_users=150)
    x_NF = np.zeros((len(planted.rows), 10), np.float32)
    x_NF[:, :4] = planted.taste_of_rows()
    cost = Cost(0.0, 0.0, *x_NF.shape)
    config = config_of(tmp_path, evaluation={"num_seeds": 1, "num_bootstraps": 20})
    both = [Described("embedding", x_NF, cost), Described("dlrm_like", x_NF, cost, DlrmHeads(BLOCKS))]
    found, left_out = measure(
        [Return(7), NeighboursByFavourite(30)], planted.truth, both, config, report=lambda line: None
    )
    assert not left_out
    assert [(one.task, one.representation) for one in found] == [
        ("return_7d", "embedding"), ("return_7d", "dlrm_like"), ("neighbours", "embedding"),
    ]  # fmt: skip
    _, (with_heads, without) = result_lines(Results({}, found, {"embedding": cost, "dlrm_like": cost}, {}))
    assert with_heads[3]
    assert without[3] == ""


def test_an_evaluation_without_any_task_is_refused_with_all_reasons(tmp_path: Path) -> None:
    rows = rows_at_all_dates(50)
    truth = truth_of([Event(0, 0, day) for day in PLAN.dates], rows, np.eye(3, dtype=np.float32))
    with pytest.raises(UsageError, match=r"(?s)evaluate: return_7d: .*\nevaluate: volume_30d: .* rows with it"):
        check_measured(*measure([Return(7), Volume(30)], truth, [], config_of(tmp_path), lambda _: None))


@pytest.mark.parametrize("kind", [Ones, OnesWithHeads])
def test_a_representation_is_fitted_then_described_and_read_by_its_own_nets_if_it_has_any(kind: type[Ones]) -> None:
    context, one, lines = context_of([]), kind(), list[str]()
    found = fitted_and_described(one, context, lines.append)
    assert one.calls == ["fit", "matrix", *(["heads"] if kind is OnesWithHeads else [])]
    assert found.heads is (OnesWithHeads.own if kind is OnesWithHeads else SMALL)
    assert (found.name, found.cost.num_rows, found.cost.width) == ("ones", len(context.rows), 3)
    assert lines[0].startswith("ones: 3 numbers a row, fitted in ")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.ones((5, 2), np.float32), "ones: 5 rows, wanted 240"),
        (np.ones((240, 2)), "ones: float64, wanted float32"),
        (np.full((240, 2), np.nan, np.float32), "ones: not all numbers are finite"),
        (np.full((240, 2), np.inf, np.float32), "ones: not all numbers are finite"),
    ],
)
def test_a_matrix_of_another_shape_or_kind_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        described_by(Ones(wrong), context_of([]), fit_seconds=0)


def test_few_rows_are_measured_in_this_process() -> None:
    called: list[int] = []

    def double(value: int) -> int:
        called.append(value)
        return 2 * value

    values: Sequence[int] = [1, 2]
    with beside_each_other(4_999) as each:
        assert list(each(double, values)) == [2, 4]
    assert called == values
