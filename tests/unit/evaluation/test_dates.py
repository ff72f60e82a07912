"""The dates of an evaluation."""

from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userrep.errors import UsageError
from userrep.evaluation.dates import EvaluationPlan, make_plan

pytestmark = pytest.mark.fast

UNTIL = date(2011, 9, 1)


def plan_of(num_days: int, horizons: list[int], *, every_days: int = 7, max_dates: int = 8) -> EvaluationPlan:
    end = UNTIL + timedelta(days=num_days)
    return make_plan(
        until=UNTIL, end=end, horizons=sorted(horizons), every_days=every_days, max_dates=max_dates, space="s001-a"
    )


@given(
    st.integers(0, 500), st.lists(st.integers(1, 90), min_size=1, max_size=3, unique=True), st.integers(1, 30),
    st.integers(1, 9),
)  # fmt: skip
def test_no_date_is_seen_twice_and_no_label_reaches_past_the_log(
    num_days: int, horizons: list[int], every_days: int, max_dates: int
) -> None:
    if num_days < 2 * min(horizons):
        with pytest.raises(UsageError, match="too soon after the training data"):
            plan_of(num_days, horizons, every_days=every_days, max_dates=max_dates)
        return
    plan = plan_of(num_days, horizons, every_days=every_days, max_dates=max_dates)
    span = timedelta(days=plan.longest)
    assert plan.train[0] == UNTIL  # the first date that training has not seen past
    assert max(plan.train) + span <= min(plan.test)
    assert max(plan.test) + span <= plan.end
    assert 1 <= len(plan.train) <= max_dates
    assert 1 <= len(plan.test) <= max_dates
    assert abs(len(plan.train) - len(plan.test)) <= 1
    for dates in (plan.train, plan.test):
        assert {(b - a).days for a, b in pairwise(dates)} <= {every_days}
    assert plan.horizons == tuple(sorted(h for h in horizons if 2 * h <= num_days))


def test_a_hundred_days_after_training_give_three_weeks_to_train_heads_on_and_three_to_test_them() -> None:
    plan = plan_of(100, [7, 30])
    assert plan.train == (date(2011, 9, 1), date(2011, 9, 8), date(2011, 9, 15))
    assert plan.test == (date(2011, 10, 21), date(2011, 10, 28), date(2011, 11, 4))


def test_a_horizon_that_does_not_fit_is_left_out_with_the_date_that_would_do() -> None:
    plan = plan_of(40, [7, 30])
    assert (plan.horizons, plan.longest) == ((7,), 7)
    assert plan.advice(30) == (
        "a horizon of 30 days requires training.as_ofs.until at or before 2011-08-12, "
        "60 days before the end of the log; this space has 2011-09-01"
    )


def test_a_log_too_short_for_any_label_is_refused_with_the_date_that_would_do() -> None:
    with pytest.raises(
        UsageError,
        match=r"space s001-a: the log ends on 2011-09-13, too soon after the training data, .* 7 days of "
        r"labels.*until is 2011-08-31 or earlier",
    ):
        plan_of(13, [30, 7])
