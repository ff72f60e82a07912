"""The as-of dates of an evaluation or a self-check: after the training data, and early enough for labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import product
from typing import NamedTuple

from userrep.errors import UsageError

_CHECK_DATES = 4  # of a self-check, for fitting probes, and as many for testing


@dataclass(frozen=True)
class EvaluationPlan:
    """Dates of an evaluation. The label of an as-of date D with horizon h covers the days ``[D, D+h)``.

    ``until``: end of the space's training data, exclusive. ``end``: the first day after the log. ``horizons``: those
    that are not too long for the log, in days, ascending. ``train``: dates for fitting and tuning probes, all at or
    after ``until``; ``test``: dates for testing them. No test date precedes the end of the labels of a training date.
    """

    until: date
    end: date
    horizons: tuple[int, ...]
    train: tuple[date, ...]
    test: tuple[date, ...]

    @property
    def dates(self) -> tuple[date, ...]:
        """All as-of dates, ascending."""
        return (*self.train, *self.test)

    @property
    def longest(self) -> int:
        """The longest usable horizon in days."""
        return self.horizons[-1]

    def advice(self, horizon: int) -> str:
        """Return the latest end of training that would leave room in the log for a horizon."""
        latest = latest_until(self.end, horizon)
        return (
            f"a horizon of {horizon} days requires training.as_ofs.until at or before {latest}, "
            f"{2 * horizon} days before the end of the log; this space has {self.until}"
        )


def make_plan(
    *, until: date, end: date, horizons: Sequence[int], every_days: int, max_dates: int, space: str
) -> EvaluationPlan:
    """Choose the dates: every ``every_days`` from ``until``, and again from the end of the last training label.

    The days of the log that remain after both have the longest horizon are split evenly between training and test
    dates. At most ``max_dates`` of each are used, the nearest to ``until``, so that the space is judged on the weeks
    after its training. ``horizons``: ascending. ``space``: the space id, for the message.

    Raises
    ------
    UsageError
        If the log ends too soon after ``until`` for even the shortest horizon.
    """
    usable = [h for h in horizons if latest_until(end, h) >= until]
    if not usable:
        shortest = horizons[0]
        raise UsageError(
            f"space {space}: the log ends on {end - timedelta(days=1)}, too soon after the training data, which ends "
            f"on {until}. Probes need {shortest} days of labels, and their test another {shortest}. "
            f"Evaluate a space whose training.as_ofs.until is {latest_until(end, shortest)} or earlier "
            "(`userrep pipeline --as-of DATE --retrain` trains one), or set shorter evaluation.horizons_days."
        )
    longest = usable[-1]
    spare = min((end - until).days - 2 * longest, 2 * every_days * max_dates - 1)
    first_test = until + timedelta(days=longest + spare // 2)
    train = _every(until, first_test - timedelta(days=longest), every_days)[:max_dates]
    test = _every(first_test, until + timedelta(days=longest + spare), every_days)[:max_dates]
    return EvaluationPlan(until, end, tuple(usable), train, test)


class CheckPlan(NamedTuple):
    """``as_ofs``: training dates of the checked model. ``plan``: dates on which it is evaluated."""

    as_ofs: list[date]
    plan: EvaluationPlan


def plan_check(
    as_ofs: Sequence[date], *, num_own: int, until: date, future_days: int, every_days: int, horizons: Sequence[int]
) -> CheckPlan | None:
    """Choose the dates of a self-check; None if the log is too short.

    The checked model gets the space's training dates that are early enough, and still earlier dates until it has half
    as many as the space, at least two. The longest horizon that fits takes precedence, then the number of dates. No
    test label ends after ``until``, and no label of a probe's training date ends after the first test date.

    Parameters
    ----------
    as_ofs : dates that the checked model may be trained on, ascending; the last ``num_own`` are the space's.
    until, future_days, every_days : settings of the space's own training.
    horizons : in days, ascending.
    """
    own, least = {*as_ofs[-num_own:]}, max(2, -(-num_own // 2))
    for horizon, num_dates in product(reversed(horizons), range(_CHECK_DATES, 0, -1)):
        step = timedelta(days=every_days)
        label = step * -(-horizon // every_days)
        first_test = until - label - step * (num_dates - 1)
        end = first_test - label - step * (num_dates - 1)
        trained = [day for day in as_ofs if day + timedelta(days=future_days) <= end]
        if len(trained) >= least:
            trained = trained[-max(least, len(own & {*trained})) :]
            usable = tuple(h for h in horizons if h <= horizon)
            train, test = (tuple(first + step * k for k in range(num_dates)) for first in (end, first_test))
            return CheckPlan(trained, EvaluationPlan(end, until, usable, train, test))
    return None


def latest_until(end: date, horizon: int) -> date:
    """Return the latest end of training that leaves room for probes of a horizon and their test."""
    return end - timedelta(days=2 * horizon)


def _every(first: date, last: date, days: int) -> tuple[date, ...]:
    return tuple(first + timedelta(days=k) for k in range(0, (last - first).days + 1, days))
