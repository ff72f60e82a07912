"""The map of users: the plane that they are drawn in, and their groups."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from userrep.report.user_map import activity_range, grouped, plane

pytestmark = pytest.mark.fast


def test_the_plane_is_that_of_scikit_learn_and_does_not_flip() -> None:
    z_ND = np.random.default_rng(1).normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1]
    xy_N2, shares = plane(z_ND)
    wanted = PCA(2).fit(z_ND)
    assert shares == pytest.approx(wanted.explained_variance_ratio_)
    scaled = wanted.transform(z_ND)
    assert np.abs(xy_N2) == pytest.approx(np.abs(scaled) / np.abs(scaled).max())
    assert plane(np.ones((4, 3)))[1] == (0.0, 0.0)
    flipped, _ = plane(np.vstack([z_ND[1:], z_ND[:1]]))
    assert flipped[-1] == pytest.approx(xy_N2[0])


def test_ranges_keep_their_order_and_users_without_a_number_come_last() -> None:
    assert [activity_range(num) for num in (10, 0, None, 300, 29, 2, 1)] == [
        "10 to 29", "0", "not known", "300 or more", "10 to 29", "1 to 2", "1 to 2",
    ]  # fmt: skip
    ranges = grouped(np.zeros((5, 2)), ["not known", "10 to 29", "0", "300 or more", "10 to 29"])
    assert [(group.label, len(group.points)) for group in ranges] == [
        ("0", 1), ("10 to 29", 2), ("300 or more", 1), ("not known", 1),
    ]  # fmt: skip


def test_the_plane_keeps_the_proportions_of_both_axes() -> None:
    xy_N2, shares = plane(np.array([[-8.0, 0.0], [8.0, 0.0], [0.0, -4.0], [0.0, 4.0]]))
    assert np.abs(xy_N2).max(axis=0) == pytest.approx([1.0, 0.5])
    assert shares == pytest.approx((0.8, 0.2))


def test_vectors_of_one_number_lie_on_a_line() -> None:
    xy_N2, shares = plane(np.array([[1.0], [2.0], [3.0]]))
    np.testing.assert_allclose(xy_N2, [[-1, 0], [0, 0], [1, 0]], atol=1e-12)
    assert shares == pytest.approx((1.0, 0.0))


def test_points_stay_with_their_users() -> None:
    xy_N2 = np.array([[0.12345, -1.0], [0.5, 0.25], [1.0, 0.0]])
    found = grouped(xy_N2, ["1 to 2", "0", "1 to 2"])
    assert {of.label: of.points for of in found} == {"0": [(0.5, 0.25)], "1 to 2": [(0.123, -1.0), (1.0, 0.0)]}


def test_a_range_begins_at_its_first_number_and_ends_before_the_next() -> None:
    assert [activity_range(num) for num in (2, 3, 9, 10, 99, 100, 299)] == [
        "1 to 2", "3 to 9", "3 to 9", "10 to 29", "30 to 99", "100 to 299", "100 to 299",
    ]  # fmt: skip
