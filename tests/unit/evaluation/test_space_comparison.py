"""Two spaces on a consumer's labels: verdicts on planted spaces, and intervals by a bootstrap in NumPy."""

import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import r2_score, roc_auc_score

from tests.support.planted_spaces import DIM, OLD, Planted, Tastes, noise, richer, rotated
from userrep.config import Evaluation
from userrep.errors import UsageError
from userrep.evaluation.consumer_labels import LabelRows
from userrep.evaluation.metrics import Scores, resampled_users
from userrep.evaluation.space_comparison import Difference, Split, compare, paired_difference, verdict_of
from userrep.spaces.consumer_model import ConsumerModel

pytestmark = pytest.mark.fast

TASTES = Tastes.drawn(1_000)
SETTINGS = Evaluation(num_bootstraps=100)


def rows_of(new: Planted, *, is_binary: bool = True) -> LabelRows:
    """Return a label of each user at two times, with both spaces' vectors."""
    num_users, random = len(TASTES.users), np.random.default_rng(5)
    score = np.tile(TASTES.score(), 2) + random.normal(size=2 * num_users)
    return LabelRows(
        users=pa.array(TASTES.users * 2),
        at_N=np.repeat([10, 20], num_users),
        y_N=((score > 0) if is_binary else score).astype(np.float32),
        as_of_N=np.zeros(2 * num_users, np.int64),
        old_NE=np.tile(TASTES.taste_UD, (2, 1)).astype(np.float32),
        new_NF=np.tile(new(TASTES)[0], (2, 1)).astype(np.float32),
    )


def compared(new: Planted, *, is_binary: bool = True, **given: Any) -> dict[str, dict[str, Difference]]:
    labels = rows_of(new, is_binary=is_binary)
    split = Split.of(labels, "auto", seed=1)
    assert (split.metric, split.cut_us, len(split.test)) == ("auc" if is_binary else "r2", 20, len(labels) // 2)
    return compare(labels, split, new(TASTES)[1], SETTINGS, **{"slices": {}} | given)


@pytest.mark.parametrize("is_binary", [True, False])
def test_planted_spaces_get_their_verdicts(is_binary: bool) -> None:
    same = compared(rotated, is_binary=is_binary)
    assert [same[way]["all"].verdict for way in ("retrained", "mapped")] == ["pass", "pass"]
    assert abs(same["mapped"]["all"].difference) < 1e-4
    worse = compared(noise, is_binary=is_binary)
    assert [worse[way]["all"].verdict for way in ("retrained", "mapped")] == ["fail", "fail"]
    assert worse["retrained"]["all"].interval[1] < -0.1
    better = compared(richer, is_binary=is_binary)
    assert better["retrained"]["all"].verdict == "pass"
    assert better["retrained"]["all"].interval[0] > 0.05
    assert abs(better["mapped"]["all"].difference) < 1e-6  # the map drops what the old space lacks


@pytest.mark.parametrize("metric", ["auc", "r2"])
def test_the_interval_is_that_of_a_paired_bootstrap_in_numpy(metric: str) -> None:
    random, num = np.random.default_rng(7), 120
    label, user = random.integers(0, 2, num).astype(float), np.sort(random.integers(0, 40, num))
    user = np.unique(user, return_inverse=True)[1]
    old, new = (label + noise * random.normal(size=num) for noise in (1.0, 0.5))
    weight_UB = resampled_users(user.max() + 1, 60, seed=3)
    pair = [Scores(score[:, None], label[:, None], user) for score in (old, new)]
    difference = paired_difference(metric, *pair, weight_UB)
    judge = roc_auc_score if metric == "auc" else r2_score
    differences = []
    for weight_U in weight_UB.T:
        drawn = np.repeat(np.arange(num), weight_U[user].astype(int))
        differences.append(judge(label[drawn], new[drawn]) - judge(label[drawn], old[drawn]))
    assert difference.interval == pytest.approx(np.quantile(differences, [0.05, 0.95]), abs=1e-6)
    assert difference.difference == pytest.approx(judge(label, new) - judge(label, old), abs=1e-6)
    assert (difference.num_labels, difference.old_value) == (num, pytest.approx(judge(label, old), abs=1e-6))


def test_draws_of_equal_labels_are_ignored() -> None:
    label, user = np.array([0.0] * 9 + [1.0]), np.arange(10)
    pair = [Scores(score[:, None], label[:, None], user) for score in (label + 0.1, label + 0.2)]
    weight_UB = resampled_users(10, 50, seed=3)
    assert (weight_UB[9] == 0).any()  # draws without the only 1
    with warnings.catch_warnings(action="error"):
        difference = paired_difference("r2", *pair, weight_UB)
    assert np.isfinite(difference.interval).all()


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.02, "pass"), (-0.005, -0.001, "pass"), (-0.0051, 0.02, "undecided"), (-0.0051, -0.001, "fail"),
        (-0.0051, 0.0, "undecided"), (float("nan"), float("nan"), "undecided"),
    ],
)  # fmt: skip
def test_a_verdict_tolerates_a_small_loss(low: float, high: float, verdict: str) -> None:
    assert verdict_of(low, high) == verdict


def test_slices_are_compared_on_their_own_labels_and_small_ones_are_left_out() -> None:
    num, labels = len(TASTES.users), rows_of(richer)
    half, y_M = np.arange(num) < num // 2, labels.y_N[num:] > 0
    few = np.isin(np.arange(num), np.flatnonzero(y_M)[:9]) | ~y_M  # nine positives
    slices = {"half": half, "few": few, "ones": y_M, "none": np.zeros(num, bool)}
    result = compared(richer, slices=slices)["retrained"]
    assert list(result) == ["all", "half"]
    assert result["half"].num_labels == half.sum()
    assert result["half"].verdict == "pass"
    assert result["half"].interval != result["all"].interval


def test_a_consumers_model_is_judged_on_old_and_on_mapped_vectors() -> None:
    model = ConsumerModel(space_id=OLD, weights=[1.0, -1.0, 0.5, 0.0], intercept=0.25)
    labels, num = rows_of(rotated), len(TASTES.users)
    expected = roc_auc_score(labels.y_N[num:], TASTES.taste_UD @ [1.0, -1.0, 0.5, 0.0])
    same = compared(rotated, model=model)["model"]["all"]
    assert (same.verdict, same.old_value) == ("pass", pytest.approx(expected, abs=1e-6))
    assert same.new_value == pytest.approx(expected, abs=1e-4)
    assert compared(noise, model=model)["model"]["all"].verdict == "fail"
    assert model.scores(np.ones((2, DIM), np.float32)).tolist() == [0.75, 0.75]


def with_labels(**changed: Any) -> LabelRows:
    labels = rows_of(rotated)
    return LabelRows(**vars(labels) | changed)


def test_labels_that_cannot_be_judged_are_refused() -> None:
    num = 2 * len(TASTES.users)
    one_class, rare = np.ones(num, np.float32), np.zeros(num, np.float32)
    rare[-5:] = 1
    with pytest.raises(UsageError, match=r"labels: all 2,000 labels with vectors are 1\. Add labels of another value"):
        Split.of(with_labels(y_N=one_class), "auto", seed=1)
    with pytest.raises(UsageError, match=r"labels: too few: 0 positive rows in the train split; at least 10"):
        Split.of(with_labels(y_N=rare), "auto", seed=1)
    with pytest.raises(UsageError, match=r"labels: too few: 0 positive rows in the train split"):
        Split.of(with_labels(at_N=np.zeros(num, np.int64)), "auto", seed=1)
    numbers = np.arange(num).astype(np.float32)
    with pytest.raises(UsageError, match=r"--metric auc: labels must be 0 or 1, got 2\. Use --metric r2"):
        Split.of(with_labels(y_N=numbers), "auc", seed=1)
    with pytest.raises(UsageError, match=r"labels: too few: 0 rows in the train split; at least 10 are required"):
        Split.of(with_labels(y_N=numbers, at_N=np.zeros(num, np.int64)), "auto", seed=1)
    with pytest.raises(UsageError, match=r"labels: too few: all rows in the test split have one value\."):
        Split.of(with_labels(y_N=np.minimum(numbers, num // 2)), "auto", seed=1)


def test_most_labels_at_the_first_time_still_leave_labels_to_judge() -> None:
    num = 2 * len(TASTES.users)
    at_N = np.where(np.arange(num) < 1_500, 10, 30)
    split = Split.of(with_labels(at_N=at_N), "r2", seed=1)
    assert (split.metric, split.cut_us, len(split.test)) == ("r2", 30, 500)
