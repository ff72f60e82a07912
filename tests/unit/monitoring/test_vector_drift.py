"""Moments of two snapshots' vectors, from parts of their users, and how far apart they are."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from userrep.monitoring.vector_drift import VectorMoments, _sums, compare_moments

pytestmark = pytest.mark.fast

VECTORS = pa.list_(pa.float32())
DIM = 3


def batch_of(now: Sequence[object], before: Sequence[object]) -> pa.RecordBatch:
    """Build a part of the users of both snapshots; None: not in one of them."""
    return pa.RecordBatch.from_pydict({"now": pa.array(now, VECTORS), "before": pa.array(before, VECTORS)})


def moments_of(batches: Sequence[pa.RecordBatch], side: str) -> VectorMoments:
    """Add up the sums of some batches."""
    sums: dict[str, np.ndarray] = {}
    for batch in batches:
        for name, value in _sums(batch).items():
            sums[name] = np.asarray(sums.get(name, 0) + np.asarray(value))
    return VectorMoments.of(sums, side, np.zeros((0, DIM), np.float32))


def a_moment(mean: Sequence[float], covariance: object, **more: object) -> VectorMoments:
    """Build the moments of ten users, none of whom is only in this snapshot."""
    built = VectorMoments(
        10, 0, 1.0, np.array(mean, float), np.array(covariance, float), np.zeros((0, len(mean)), np.float32)
    )
    return replace(built, **more)


def test_moments_of_parts_are_those_of_numpy_on_the_whole() -> None:
    random = np.random.default_rng(4)
    users = [
        {
            "now": random.normal(size=DIM).astype(np.float32) if k % 5 else None,
            "before": random.normal(2, 3, size=DIM).astype(np.float32) if k % 3 or not k % 5 else None,
        }
        for k in range(60)
    ]
    batches = [
        batch_of(*([user[name] for user in part] for name in ("now", "before")))
        for part in (users[:1], users[1:21], users[21:])
    ]
    in_both = [user for user in users if user["now"] is not None and user["before"] is not None]
    for side, num, num_unmatched in (("now", 48, 16), ("before", 44, 12)):
        z = np.array([user[side] for user in users if user[side] is not None], np.float64)
        found = moments_of(batches, side)
        assert (found.num_rows, found.num_unmatched) == (num, num_unmatched) == (len(z), len(z) - len(in_both))
        assert found.mean_norm == pytest.approx(np.linalg.norm(z, axis=1).mean())
        np.testing.assert_allclose(found.mean_D, z.mean(axis=0))
        np.testing.assert_allclose(found.covariance_DD, np.cov(z.T, bias=True), atol=1e-9)


def test_a_snapshot_without_users_in_the_sample_has_no_rows() -> None:
    batches = [batch_of([[1, 0]], [None])]
    found = moments_of(batches, "now")
    assert (found.num_rows, found.num_unmatched) == (1, 1)
    assert moments_of(batches, "before").num_rows == 0


def test_the_effective_rank_counts_dimensions_of_equal_variance() -> None:
    assert a_moment([0] * 4, np.eye(4)).effective_rank == pytest.approx(4)
    assert a_moment([0] * 4, np.diag([5, 5, 0, 0])).effective_rank == pytest.approx(2)
    # Shares of 0.8 and 0.2: exp(-(0.8 ln 0.8 + 0.2 ln 0.2)).
    assert a_moment([0, 0], np.diag([4, 1])).effective_rank == pytest.approx(1.6493848885)


def test_shifts_and_changes_are_measured_in_units_of_the_snapshot_before() -> None:
    before, now = a_moment([0, 0, 1], np.diag([4, 1, 1])), a_moment([2, -0.5, 1], np.diag([16, 1, 0.5]))
    metrics, parts = compare_moments(now, before)
    assert parts["mean_shift"] == {"dimension 0": 1.0, "dimension 1": 0.5, "dimension 2": 0.0}
    assert parts["variance_change"] == pytest.approx(
        {"dimension 0": 1.3862943611, "dimension 1": 0, "dimension 2": 0.6931471806}
    )
    assert (metrics["mean_shift"], metrics["variance_change"]) == pytest.approx((1.0, 1.3862943611))


def test_a_rank_that_grows_is_not_lost() -> None:
    four, two = a_moment([0] * 4, np.eye(4)), a_moment([0] * 4, np.diag([1, 1, 0, 0]))
    assert compare_moments(two, four)[0]["rank_loss"] == pytest.approx(0.5)
    assert compare_moments(four, two)[0]["rank_loss"] == 0


def test_users_who_came_and_went_are_shares_of_those_who_were_there_before() -> None:
    before = a_moment([0, 0], np.eye(2), num_rows=5, num_unmatched=1)
    now = a_moment([0, 0], np.eye(2), num_rows=10, num_unmatched=6)
    metrics, _ = compare_moments(now, before)
    assert (metrics["new_share"], metrics["vanished_share"]) == (1.2, 0.2)


@pytest.mark.parametrize(("now", "change"), [(0.5, 0.5), (1.5, 0.5), (1.0, 0.0)])
def test_vectors_that_become_shorter_or_longer_have_changed_their_norm(now: float, change: float) -> None:
    before = a_moment([0, 0], np.eye(2))
    assert compare_moments(replace(before, mean_norm=now), before)[0]["norm_change"] == pytest.approx(change)


def test_a_rotation_loses_no_neighbors_and_a_shuffle_does() -> None:
    random = np.random.default_rng(7)
    z = random.normal(size=(40, 2)).astype(np.float32)
    before = a_moment([0, 0], np.eye(2), neighbours_ND=z)

    def lost(vectors: np.ndarray) -> float:
        return compare_moments(replace(before, neighbours_ND=vectors.astype(np.float32)), before)[0]["neighbours_lost"]

    assert lost(3 * z @ np.array([[0.6, 0.8], [-0.8, 0.6]])) == pytest.approx(0, abs=0.02)
    assert lost(random.permutation(z)) > 0.5
    assert compare_moments(a_moment([0], [[1]]), a_moment([0], [[1]]))[0]["neighbours_lost"] == 0  # no user is in both
