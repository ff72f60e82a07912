"""Results of an evaluation: an estimate with its interval for each task, metric and representation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from userrep.evaluation.metrics import Floats
from userrep.model.self_check import Interval

LEVEL = 0.9  # confidence level of intervals
_MIN_TEST_EXAMPLES = 200  # of each class


def interval_of(value: float, bootstraps_B: Floats) -> Interval:
    """Return a value with the ends of its interval over bootstraps, except undefined ones (all labels of one class)."""
    defined = bootstraps_B[np.isfinite(bootstraps_B)]
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(defined) else (np.nan, np.nan)
    return Interval(value, float(low), float(high))


@dataclass(frozen=True)
class Measured:
    """The result of one representation at one task and metric.

    ``bootstraps_B``: means over seeds, with the same resampled users in each B for all representations. ``setting``:
    the probe's setting, chosen on validation examples. ``num_examples``: by role; for labeled examples also the number
    of test examples of each class.
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
        """Whether there are enough test examples: 200, and 200 of each class, on average over labels."""
        counts = [self.num_examples[name] for name in ("test_positives", "test_negatives") if name in self.num_examples]
        return min(counts, default=self.num_examples["test"]) >= _MIN_TEST_EXAMPLES

    @property
    def value(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.by_seed))

    def interval(self) -> Interval:
        """Return the value with its interval."""
        return interval_of(self.value, self.bootstraps_B)


@dataclass(frozen=True)
class Comparison:
    """The embedding's lead over a baseline on the same rows, seeds and resampled users.

    ``share_above``: share of the resamplings in which the embedding is ahead. ``gain``: the lead relative to the
    baseline's value; None unless that is positive in every resampling.
    """

    baseline: str
    difference: Interval
    share_above: float
    gain: Interval | None

    @classmethod
    def of(cls, embedding: Measured, baseline: Measured) -> "Comparison":
        """Compare the two resampling by resampling."""
        difference_B = embedding.bootstraps_B - baseline.bootstraps_B
        is_ahead_B = difference_B[np.isfinite(difference_B)] > 0  # a resampling may leave a metric undefined
        gain = None
        if baseline.value > 0 and (baseline.bootstraps_B > 0).all():
            gain = interval_of(embedding.value / baseline.value - 1, embedding.bootstraps_B / baseline.bootstraps_B - 1)
        return cls(
            baseline.representation,
            interval_of(embedding.value - baseline.value, difference_B),
            float(is_ahead_B.mean()) if len(is_ahead_B) else math.nan,
            gain,
        )


@dataclass(frozen=True)
class Cost:
    """Seconds to fit a representation and to compute the rows' vectors."""

    fit_seconds: float | None
    matrix_seconds: float
    num_rows: int
    width: int

    @property
    def seconds_per_million(self) -> float:
        """Seconds to compute vectors of a million users."""
        return self.matrix_seconds / self.num_rows * 1e6


@dataclass(frozen=True)
class Results:
    """All results of an evaluation.

    ``left_out``: the reason by name of what is missing, mostly tasks. ``akin``: the tasks whose labels resemble the
    training targets (see tasks/task.py).
    """

    manifest: Mapping[str, Any]
    measured: Sequence[Measured]
    costs: Mapping[str, Cost]
    left_out: Mapping[str, str]
    akin: Sequence[str] = ()

    @cached_property
    def lines(self) -> dict[tuple[str, str], list[Measured]]:
        """Results of all representations by task and metric, in order; the embedding comes first."""
        lines: dict[tuple[str, str], list[Measured]] = {}
        for result in self.measured:
            lines.setdefault((result.task, result.metric), []).append(result)
        return lines


def comparisons(measured: Sequence[Measured]) -> list[Comparison]:
    """Compare the embedding, which comes first, with each other representation at the same task and metric."""
    embedding, *baselines = measured
    return [Comparison.of(embedding, baseline) for baseline in baselines]
