"""What an evaluation finds, as values: an estimate with its interval for each task, metric and representation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from userrep.evaluation.metrics import Floats

LEVEL = 0.9  # of intervals
_LEAST_JUDGED = 200  # test examples of either kind


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its 90 % interval, over resampled users."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, bootstraps_B: Floats) -> "Interval":
        """Take the ends from bootstraps; those that have no value (all labels of one kind) don't count."""
        whole = bootstraps_B[np.isfinite(bootstraps_B)]
        low, high = np.quantile(whole, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(whole) else (np.nan, np.nan)
        return cls(value, float(low), float(high))


@dataclass(frozen=True)
class Measured:
    """One representation at one task and metric. ``bootstraps_B``: means over seeds, the same users in each B.

    ``setting``: of the probe, as validation chose it. ``num_examples``: by role, and where examples have labels also
    the test examples of either kind.
    """

    task: str
    metric: str
    representation: str
    by_seed: tuple[float, ...]
    bootstraps_B: Floats
    setting: str
    num_examples: Mapping[str, int]

    @property
    def is_judged(self) -> bool:
        """Whether there are enough test examples to judge by: 200, or 200 positives and 200 negatives."""
        kinds = [self.num_examples[name] for name in ("test_positives", "test_negatives") if name in self.num_examples]
        return min(kinds, default=self.num_examples["test"]) >= _LEAST_JUDGED

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.by_seed))

    def interval(self) -> Interval:
        """Return the value with its interval."""
        return Interval.of(self.value, self.bootstraps_B)


@dataclass(frozen=True)
class Against:
    """How far the embedding is ahead of a baseline on the same rows, seeds and resampled users.

    ``share_above``: of the resamplings in which it is ahead. ``gain``: relative to the baseline's value; None where
    that is not above zero throughout.
    """

    baseline: str
    difference: Interval
    share_above: float
    gain: Interval | None

    @classmethod
    def of(cls, ours: Measured, theirs: Measured) -> "Against":
        """Compare in pairs."""
        difference_B = ours.bootstraps_B - theirs.bootstraps_B
        gain = None
        if theirs.value > 0 and (theirs.bootstraps_B > 0).all():
            gain = Interval.of(ours.value / theirs.value - 1, ours.bootstraps_B / theirs.bootstraps_B - 1)
        return cls(
            theirs.representation,
            Interval.of(ours.value - theirs.value, difference_B),
            float((difference_B > 0).mean()),
            gain,
        )


@dataclass(frozen=True)
class Cost:
    """Seconds that a representation took: to be fitted, and to describe the rows; the latter also for a million."""

    fit_seconds: float | None
    matrix_seconds: float
    num_rows: int
    width: int

    @property
    def seconds_per_million(self) -> float:
        """Seconds to describe a million users."""
        return self.matrix_seconds / self.num_rows * 1e6


@dataclass(frozen=True)
class Results:
    """All that was measured. ``left_out``: what is not there, mostly tasks, and why. ``akin``: see tasks/task.py."""

    manifest: Mapping[str, Any]
    measured: Sequence[Measured]
    costs: Mapping[str, Cost]
    left_out: Mapping[str, str]
    akin: Mapping[str, bool] = field(default_factory=dict)

    def of(self, task: str, metric: str) -> list[Measured]:
        """Return a task's figures of one metric, by representation."""
        return [one for one in self.measured if (one.task, one.metric) == (task, metric)]

    @property
    def lines(self) -> list[tuple[str, str]]:
        """List tasks and metrics in order."""
        return list(dict.fromkeys((one.task, one.metric) for one in self.measured))

    def against(self, task: str, metric: str) -> list[Against]:
        """Compare the embedding, which comes first, with each other representation."""
        ours, *others = self.of(task, metric)
        return [Against.of(ours, theirs) for theirs in others]
