"""Which dates a self-check takes, and what follows from what it finds."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.model.test_self_check import check_of
from userrep.config.training import AsOfs
from userrep.errors import GateRefusedError
from userrep.evaluation.dates import CheckPlan, plan_check
from userrep.evaluation.run_self_check import check_gain

pytestmark = pytest.mark.fast

UNTIL = date(2024, 6, 1)


def grid(num_dates: int, *, future_days: int = 30, every_days: int = 7) -> list[date]:
    """Return dates of training as a schedule makes them."""
    return sorted(UNTIL - timedelta(days=future_days + every_days * k) for k in range(num_dates))


@given(
    num_dates=st.integers(1, 60),
    future_days=st.sampled_from([0, 7, 30]),
    every_days=st.sampled_from([1, 7, 10, 30]),
    horizons=st.sets(st.sampled_from([1, 7, 28, 30, 90]), min_size=1),
)
def test_the_model_sees_no_day_that_it_is_judged_on_and_all_labels_end_in_time(
    num_dates: int, future_days: int, every_days: int, horizons: set[int]
) -> None:
    days = grid(num_dates, future_days=future_days, every_days=every_days)
    found = plan_check(
        days, num_own=num_dates, until=UNTIL, future_days=future_days, every_days=every_days,
        horizons=sorted(horizons),
    )  # fmt: skip
    if found is None:
        return
    as_ofs, plan = found
    longest = timedelta(days=plan.longest)
    assert max(2, num_dates / 2) <= len(as_ofs) < num_dates
    assert max(as_ofs) + timedelta(days=future_days) <= plan.until == plan.train[0]
    assert plan.train[-1] + longest <= plan.test[0]
    assert plan.test[-1] + longest <= UNTIL == plan.end
    assert plan.horizons == tuple(sorted(h for h in horizons if h <= plan.longest))
    assert set(plan.dates) <= {day + timedelta(days=future_days) for day in days}


def test_the_longest_horizon_that_leaves_enough_dates_comes_before_the_number_of_dates() -> None:
    def plan_of(num_dates: int, num_trained: int) -> CheckPlan | None:
        return plan_check(
            grid(num_dates), num_own=num_trained, until=UNTIL, future_days=30, every_days=7, horizons=[7, 30]
        )

    settings = AsOfs()
    usual, of_9, of_26 = plan_of(settings.max_check_dates, settings.max_dates), plan_of(9, 9), plan_of(39, 26)
    assert of_26 is not None
    assert (of_26.plan.horizons, len(of_26.plan.test), len(of_26.as_ofs)) == ((7, 30), 4, 13)
    assert usual is not None
    assert (usual.plan.horizons, len(usual.plan.test), len(usual.as_ofs)) == ((7, 30), 2, 7)
    assert of_9 is not None
    assert (of_9.plan.horizons, len(of_9.plan.test), len(of_9.as_ofs)) == ((7,), 2, 5)
    assert plan_of(3, 3) is None


def test_a_lead_below_the_least_gain_is_refused_with_the_figures_and_one_below_zero_is_reported(
    lines: list[str],
) -> None:
    behind = check_of(raw=(-0.01, -0.02, 0.001))
    check_gain(check_of(raw=(0.02, 0.01, 0.03)), 0.02)
    assert not lines
    check_gain(behind, None)
    assert lines == ["self-check: the embedding is 1.0% behind raw [-2.0%, +0.1%]"]
    with pytest.raises(GateRefusedError, match=r"behind raw .*; quality\.min_gain is -0\.5%\. No space was trained"):
        check_gain(behind, -0.005)
    assert lines[1:] == behind.lines
