"""The charts about a space: which marks they have, in which color and order."""

import re
from dataclasses import replace
from datetime import date

import pytest

from tests.support.report_facts import NOW, a_task, bar_chart, drift, facts
from userrep.report.space_drawings import (
    ahead,
    drift_panel,
    loss_curves,
    outcome_bars,
    representation_bars,
    user_map,
)
from userrep.report.space_facts import Figure, Outcome, TaskFacts, TrainingFacts
from userrep.report.user_map import Group, MapFacts

pytestmark = pytest.mark.fast


def names(drawn: str) -> list[str]:
    return re.findall(r'<span class="name">(.*?)(?:<small>.*?</small>)?</span>', drawn)


def titles(drawn: str) -> list[str]:
    return re.findall("<title>(.*?)</title>", drawn)


def training(curve: list[dict[str, float]], **metrics: float) -> TrainingFacts:
    return TrainingFacts(NOW, 10, 3, 16, curve, metrics)


def test_a_metric_is_drawn_under_the_limits_that_it_has() -> None:
    found = replace(drift(0.4, "warn"), fail={"psi": 0.5, "new_share": None})
    drawn = drift_panel(found, "psi")
    assert re.findall('class="limit (\\w+)"', drawn) == ["warn", "bad"]
    assert titles(drawn)[-1] == "2024-05-30: 0.400 (warn)"
    assert re.findall(r'<circle class="(c0|warn|bad)" cx', drawn) == ["c0"] * 9 + ["warn"]
    assert 'class="limit bad"' not in drift_panel(found, "new_share")


def test_inputs_that_moved_are_bars() -> None:
    moved = replace(drift(), inputs={"num_events_7d": 0.04, "weight_7d": 0.0123456})
    (drawn,) = bar_chart("Population stability index by input", facts(drift=moved))
    assert names(drawn) == ["num_events_7d", "weight_7d"]
    assert re.findall('<span class="text">(.*?)</span>', drawn) == ["0.04", "0.0123"]


def test_tasks_show_the_distance_to_their_nearest_representation() -> None:
    own = TaskFacts("own", "auc", 5, False, [Figure("embedding", 0.8, 0.7, 0.9, None, None, None)])
    tasks = [
        a_task("a", (0.1, 0.05, 0.15), touched=True),
        a_task("b", (-0.1, -0.2, -0.05)),
        own,
        a_task("c", (0, -1, 1)),
    ]
    drawn = ahead(tasks)
    assert names(drawn) == ["a *", "b", "c"]
    assert re.findall(r'<circle class="(\w+)"', drawn) == ["ok", "bad", "note"]
    assert titles(drawn)[0] == "a: +0.100 auc over counts, 90% interval +0.050 to +0.150"


def test_representations_are_ordered_by_their_value_and_the_embedding_is_highlighted() -> None:
    drawn = representation_bars(a_task("a", (-0.1, -0.2, -0.05)))
    assert names(drawn) == ["counts", "embedding", "popularity"]
    assert re.findall(r'<circle class="(\w+)"', drawn) == ["c0", "c1", "c0"]
    (last,) = re.findall(r'<line class="span c0" x1="([\d.]+)%" x2="([\d.]+)%"', drawn)[1:]
    assert last[0] == last[1]  # an interval that is not known has no length


def test_a_metric_that_is_undefined_on_the_test_rows_is_left_out() -> None:
    nan = float("nan")
    undefined = [Figure("embedding", nan, nan, nan, None, None, None), Figure("counts", nan, nan, nan, nan, nan, nan)]
    task = TaskFacts("a", "r2", 5, False, undefined)
    assert names(representation_bars(task)) == []
    assert names(ahead([task, a_task("b", (0.1, 0.05, 0.15)), a_task("c", (0.1, nan, nan))])) == ["b", "c"]


def test_only_an_auc_is_drawn_next_to_chance() -> None:
    task = a_task("a", (-0.1, -0.2, -0.05))
    assert 'class="reference"' in representation_bars(task)
    assert ">0.50</text>" in representation_bars(task)
    assert 'class="reference"' not in representation_bars(replace(task, metric="ndcg"))


def test_the_consumer_s_result_on_the_embedding_is_highlighted() -> None:
    drawn = outcome_bars(facts(outcomes=[Outcome("embedding", 120, 0.84, 400), Outcome("recency", 2, 0.8, 400)]))
    assert ">0.50</text>" in drawn
    assert drawn.count('class="reference"') == 2
    assert re.findall(r'<circle class="(\w+)"', drawn) == ["c1", "c0"]
    assert re.findall("<small>(.*?)</small>", drawn) == ["120 numbers", "2 numbers"]


def test_curves_are_those_that_every_epoch_has_and_the_kept_epoch_is_marked() -> None:
    curve = [
        {"epoch": k, "train_loss": 3.0 - k, "valid_users_loss": 4.0 - k} | ({"valid_dates_loss": 1.0} if k > 1 else {})
        for k in (1, 2)
    ]
    drawn, legend = loss_curves(training(curve, best_epoch=2.0))
    assert legend == [("training rows", "c0"), ("held-out users", "c1")]
    assert titles(drawn) == [
        "epoch 1: 2.000, training rows", "epoch 2, kept: 1.000, training rows",
        "epoch 1: 3.000, held-out users", "epoch 2, kept: 2.000, held-out users",
    ]  # fmt: skip


def test_the_loss_of_a_kind_is_the_mean_of_its_windows_and_the_eight_largest_are_drawn() -> None:
    losses = {"train_loss.weight_7d": 9.0, "valid_users_loss.weight_7d": 0.25, "valid_users_loss.weight_28d": 0.75}
    losses |= {f"valid_users_loss.kind{k}": k / 100 for k in range(9)}
    curve = [{"epoch": 1.0, "train_loss": 1.0}]
    (drawn,) = bar_chart("Loss by kind of block", facts(training=training(curve, valid_users_loss=1.0, **losses)))
    assert names(drawn) == ["weight", *(f"kind{k}" for k in range(8, 1, -1))]
    assert re.findall('<span class="text">(.*?)</span>', drawn)[0] == "0.500"
    (trained,) = bar_chart("Loss by kind of block", facts(training=training(curve, **losses)))
    assert names(trained) == ["weight"]  # users were not held out: of training rows


def test_groups_of_ranges_get_shades_and_users_without_a_number_get_none() -> None:
    groups = [Group("0", [(0.0, 0.0)]), Group("1 to 2", [(0.1, 0.1)] * 2), Group("300 or more", [(0.2, 0.2)])]
    found = MapFacts("x", date(2024, 5, 1), 4, (0.5, 0.2), "events in 7 days", groups)
    assert user_map(found)[1] == [("0 (1)", "s0"), ("1 to 2 (2)", "s3"), ("300 or more (1)", "s6")]
    drawn, legend = user_map(replace(found, groups=[groups[0], Group("not known", [(0.0, 0.0)])]))
    assert legend == [("0 (1)", "s0"), ("not known (1)", "rest")]
    assert 'aria-label="Users by events in 7 days"' in drawn
