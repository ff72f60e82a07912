"""What follows from the facts of a report: small days, rejected shares, verdicts."""

from dataclasses import replace
from datetime import date, datetime

import pytest

from tests.support.report_facts import SPACE, a_day, a_space, a_task, drift, facts, stage
from userrep.report.log_facts import Day, LogFacts
from userrep.report.space_facts import Figure, TaskFacts, TrainingFacts

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("num_events", "usual", "is_small"), [(19, 100.0, True), (20, 100.0, False), (0, None, False), (0, 1.0, True)]
)
def test_a_day_is_small_below_a_fifth_of_what_is_usual(num_events: int, usual: float | None, is_small: bool) -> None:
    assert Day(date(2024, 5, 1), num_events, 0, is_missing=False, usual=usual).is_small is is_small


def test_rejected_rows_are_a_share_of_all_rows() -> None:
    days = [a_day(0, num_events=60), a_day(1, num_events=30)]
    found = LogFacts(days, {"bad_time": 7, "missing_user_id": 3}, 0.05)
    assert (found.num_events, found.rejected_share) == (90, 0.1)
    assert LogFacts([], {}, 0.05).rejected_share == 0


def test_missing_days_in_a_row_are_one_gap() -> None:
    days = [a_day(k, is_missing=k in (2, 3, 5)) for k in range(7)]
    log = LogFacts(days, {}, 0.05)
    assert log.num_missing == 3
    assert log.gaps == [(days[2].day, days[3].day), (days[5].day, days[5].day)]


@pytest.mark.parametrize(
    ("ahead", "verdict"),
    [
        ((0.1, 0.001, 0.2), "ahead"),
        ((0.1, 0.0, 0.2), "tied"),
        ((0.1, -0.1, 0.2), "tied"),
        ((-0.1, -0.2, 0.0), "tied"),
        ((-0.1, -0.2, -0.001), "behind"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(ahead: tuple[float, float, float], verdict: str) -> None:
    assert a_task("return_7d", ahead).verdict == verdict


def test_the_nearest_representation_is_the_one_that_the_embedding_is_least_ahead_of() -> None:
    def other(name: str, ahead_by: float) -> Figure:
        return Figure(name, 0.8 - ahead_by, 0.0, 1.0, ahead_by, ahead_by - 0.01, ahead_by + 0.01)

    own = [Figure("embedding", 0.8, 0.7, 0.9, None, None, None)]
    task = TaskFacts("return_7d", "auc", 10, None, [*own, other("als", 0.1), other("counts", -0.05), other("bag", 0.0)])
    assert task.nearest is not None
    assert (task.nearest.representation, task.verdict) == ("counts", "behind")
    without_others = replace(task, figures=own)
    assert (without_others.nearest, without_others.verdict) == (None, "tied")
    stored = TaskFacts("return_7d", "auc", 10, None, [*own, other("als", 0.1), other("embedding_int8", 0.0001)])
    assert stored.nearest is not None
    assert stored.nearest.representation == "als"  # the embedding in another storage type is no rival


def test_the_newest_drift_is_that_of_the_last_date_only() -> None:
    found = replace(drift(0.4, "warn"), points={**drift(0.4, "warn").points, "old": drift().points["psi"][:5]})
    assert {name: (point.value, point.outcome) for name, point in found.newest.items()} == {
        "psi": (0.4, "warn"), "new_share": (0.01, "ok"),
    }  # fmt: skip


def test_the_time_of_a_night_is_that_of_its_stages() -> None:
    known = facts(latest_run=[stage("a", hours=0.5), stage("b", hours=None)], latest_run_is_daily=False)
    assert (known.latest_run_name, known.latest_run_seconds, known.latest_run_core_hours) == (
        "latest pipeline run",
        25.0,
        0.5,
    )
    assert facts().latest_run_name == "latest daily run"


def test_a_training_is_validated_if_held_out_users_have_a_loss() -> None:
    def training(**metrics: float) -> TrainingFacts:
        return TrainingFacts(datetime(2024, 5, 1), 1, 1, 1, [], metrics)

    assert training(train_loss=1.0, valid_users_loss=1.0).is_validated
    assert not training(train_loss=1.0, valid_dates_loss=1.0).is_validated


def test_the_space_of_a_report_is_found_by_its_id() -> None:
    others = [a_space(space_id="s000-x"), a_space(), a_space(space_id="s002-z")]
    assert facts(spaces=others).space == others[1]
    assert others[1].space_id == SPACE
    assert facts(spaces=others, space_id=None).space is None
