"""What an evaluation finds, as values: intervals, paired comparisons, and the order of results."""

from collections.abc import Sequence

import numpy as np
import pytest

from userrep.evaluation.results import Comparison, Cost, Measured, Results, comparisons, interval_of
from userrep.model.self_check import Interval

pytestmark = pytest.mark.fast


def measured(
    name: str, bootstraps: Sequence[float], *by_seed: float, task: str = "return_7d", metric: str = "auc"
) -> Measured:
    return Measured(task, metric, name, by_seed, np.array(bootstraps), "linear", {"train": 5, "valid": 2, "test": 3})


def test_differences_are_paired_by_resampling() -> None:
    ours, theirs = measured("embedding", [0.6, 0.7, 0.8], 0.7, 0.72), measured("rfm", [0.5, 0.61, 0.85], 0.6, 0.62)
    found = Comparison.of(ours, theirs)
    assert found.difference.value == pytest.approx(0.1)
    assert found.share_above == pytest.approx(2 / 3)
    assert (found.difference.low, found.difference.high) == pytest.approx(
        tuple(np.quantile([0.1, 0.09, -0.05], [0.05, 0.95]))
    )
    assert found.gain is not None
    assert found.gain.value == pytest.approx(0.71 / 0.61 - 1)
    assert Comparison.of(ours, measured("rfm", [-0.1, 0.2, 0.3], 0.1)).gain is None


def test_a_relative_gain_has_the_interval_of_paired_ratios_and_needs_a_positive_baseline() -> None:
    ours = measured("embedding", [0.6, 0.9], 0.75)
    gain = Comparison.of(ours, measured("rfm", [0.5, 0.6], 0.5)).gain
    assert gain is not None
    assert gain.value == pytest.approx(0.5)
    assert (gain.low, gain.high) == pytest.approx((0.2 + 0.05 * 0.3, 0.5 - 0.05 * 0.3))
    for bootstraps, value in (([0.0, 0.6], 0.5), ([0.5, 0.6], 0.0), ([0.5, 0.6], -0.1)):
        assert Comparison.of(ours, measured("rfm", bootstraps, value)).gain is None


def test_a_tie_is_not_ahead() -> None:
    undefined = Comparison.of(measured("embedding", [0.6, np.nan], 0.6), measured("rfm", [0.5, 0.5], 0.5))
    assert undefined.share_above == 1
    assert Comparison.of(measured("embedding", [0.5, 0.6], 0.5), measured("rfm", [0.5, 0.5], 0.5)).share_above == 0.5


def test_bootstraps_without_a_value_are_left_out_of_the_interval() -> None:
    assert interval_of(0.5, np.array([np.nan, 0.4, 0.4])) == Interval(0.5, 0.4, 0.4)
    assert np.isnan(interval_of(0.5, np.array([np.nan])).low)


def test_an_interval_holds_the_middle_ninety_percent_of_the_bootstraps() -> None:
    found = measured("rfm", np.random.default_rng(0).permutation(np.arange(101.0)).tolist(), 40, 44).interval()
    assert (found.value, found.low, found.high) == pytest.approx((42, 5, 95))


def test_results_list_tasks_and_metrics_in_the_order_measured_and_compare_within_each() -> None:
    found = [
        measured(name, [value], value, task=task, metric=metric)
        for task, metric, values in (
            ("return_7d", "auc", (0.9, 0.8, 0.7)), ("next_item_7d", "auc", (0.6, 0.5, 0.4)),
            ("next_item_7d", "accuracy", (0.3, 0.1, 0.2)),
        )
        for name, value in zip(("embedding", "raw", "rfm"), values, strict=True)
    ]  # fmt: skip
    results = Results({}, found, {}, {})
    assert list(results.lines) == [("return_7d", "auc"), ("next_item_7d", "auc"), ("next_item_7d", "accuracy")]
    assert [one.value for one in results.lines["next_item_7d", "auc"]] == [0.6, 0.5, 0.4]
    compared = comparisons(results.lines["next_item_7d", "accuracy"])
    assert [one.baseline for one in compared] == ["raw", "rfm"]
    assert [one.difference.value for one in compared] == pytest.approx([0.2, 0.1])


def test_seconds_are_scaled_from_the_rows_to_a_million() -> None:
    assert Cost(fit_seconds=9, matrix_seconds=3, num_rows=20_000, width=8).seconds_per_million == pytest.approx(150)
