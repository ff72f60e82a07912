"""Which as-of dates an embedding is judged on: after what its space was trained on, and before the labels' end."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from userrep.errors import UsageError


@dataclass(frozen=True)
class Plan:
    """The dates of an evaluation; a label with horizon h of an as-of date D is about the days ``[D, D+h)``.

    ``until``: what the space was trained on ends there. ``end``: the first day that the log does not have.
    ``horizons``: in days, those that the log has room for, ascending; ``left_out``: those that it has none for.
    ``train``: the dates that probes are fitted and tuned on, all at or after ``until``; ``test``: those that they are
    judged on. No test date lies before the end of the labels of a training date.
    """

    until: date
    end: date
    horizons: tuple[int, ...]
    left_out: tuple[int, ...]
    train: tuple[date, ...]
    test: tuple[date, ...]

    @property
    def dates(self) -> tuple[date, ...]:
        """All as-of dates, ascending."""
        return (*self.train, *self.test)

    @property
    def longest(self) -> int:
        """The longest horizon that is used, in days."""
        return self.horizons[-1]

    def cure(self, horizon: int) -> str:
        """Say when a space's training would have to end for the log to have room for a horizon."""
        return (
            f"a horizon of {horizon} days wants the space's training to end by {_latest_until(self.end, horizon)} "
            f"(training.as_ofs.until), {2 * horizon} days before the log's end; this one's ends on {self.until}"
        )


def make_plan(*, until: date, end: date, horizons: Sequence[int], every_days: int, max_dates: int, space: str) -> Plan:
    """Choose the dates: every ``every_days`` from ``until`` on, then again from where the last of their labels end.

    What is left of the log after both have had the longest horizon is halved between training and test dates; of each
    there are ``max_dates`` at most, those nearest to ``until``: what is judged is a space in the weeks that follow its
    training. ``space``: its id, for the message.

    Raises
    ------
    UsageError
        If the log ends too early after ``until`` for even the shortest horizon.
    """
    ascending = sorted(horizons)
    fitting = [h for h in ascending if _latest_until(end, h) >= until]
    if not fitting:
        least = ascending[0]
        raise UsageError(
            f"space {space} has been trained on events before {until}, and the log ends on {end - timedelta(days=1)}: "
            f"too few days after it to fit probes on {least} days of labels and to test them on {least} more. "
            f"Evaluate a space whose training.as_ofs.until is {_latest_until(end, least)} or earlier "
            "(`userrep pipeline --retrain` trains one), or set shorter evaluation.horizons_days."
        )
    longest = fitting[-1]
    free = min((end - until).days - 2 * longest, 2 * every_days * max_dates - 1)
    cut = until + timedelta(days=longest + free // 2)
    train = _every(until, cut - timedelta(days=longest), every_days)[:max_dates]
    test = _every(cut, until + timedelta(days=longest + free), every_days)[:max_dates]
    left_out = tuple(h for h in ascending if h not in fitting)
    return Plan(until, end, tuple(fitting), left_out, train, test)


def _latest_until(end: date, horizon: int) -> date:
    return end - timedelta(days=2 * horizon)


def _every(first: date, last: date, days: int) -> tuple[date, ...]:
    return tuple(first + timedelta(days=k) for k in range(0, (last - first).days + 1, days))
