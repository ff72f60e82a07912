"""The map of users: the plane that they are drawn in, and their groups."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from userrep.report.user_map import grouped, labelled, plane

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


def test_rare_values_have_no_group_of_their_own_and_ranges_keep_their_order() -> None:
    labels = ["a"] * 40 + ["b"] * 12 + ["rare"] * 9 + ["not known"] * 3
    xy_N2 = np.zeros((len(labels), 2))
    found = grouped(xy_N2, labels, is_ordered=False)
    assert [(of.label, len(of.points)) for of in found] == [("a", 40), ("b", 12), ("other", 9), ("not known", 3)]
    many = [str(k) for k in range(9) for _ in range(20 - k)]
    assert [of.label for of in grouped(np.zeros((len(many), 2)), many, is_ordered=False)] == [*"012345", "other"]
    events = ["10", "0", None, "300", "29", "2", "1"]
    assert labelled(events, is_ordered=True) == [
        "10 to 29", "0", "not known", "300 or more", "10 to 29", "1 to 2", "1 to 2",
    ]  # fmt: skip
    ranges = grouped(np.zeros((4, 2)), ["10 to 29", "0", "300 or more", "10 to 29"], is_ordered=True)
    assert [(of.label, len(of.points)) for of in ranges] == [("0", 1), ("10 to 29", 2), ("300 or more", 1)]


def test_the_plane_keeps_the_proportions_of_both_axes() -> None:
    xy_N2, shares = plane(np.array([[-8.0, 0.0], [8.0, 0.0], [0.0, -4.0], [0.0, 4.0]]))
    assert np.abs(xy_N2).max(axis=0) == pytest.approx([1.0, 0.5])
    assert shares == pytest.approx((0.8, 0.2))


def test_vectors_of_one_number_lie_on_a_line() -> None:
    xy_N2, shares = plane(np.array([[1.0], [2.0], [3.0]]))
    np.testing.assert_allclose(xy_N2, [[-1, 0], [0, 0], [1, 0]], atol=1e-12)
    assert shares == pytest.approx((1.0, 0.0))


def test_a_value_needs_ten_users_to_be_named() -> None:
    labels = ["ten"] * 10 + ["nine"] * 9 + ["not known"] * 20
    found = grouped(np.zeros((len(labels), 2)), labels, is_ordered=False)
    assert [(of.label, len(of.points)) for of in found] == [("ten", 10), ("other", 9), ("not known", 20)]


def test_points_stay_with_their_users() -> None:
    xy_N2 = np.array([[0.12345, -1.0], [0.5, 0.25], [1.0, 0.0]])
    found = grouped(xy_N2, ["1 to 2", "0", "1 to 2"], is_ordered=True)
    assert {of.label: of.points for of in found} == {"0": [(0.5, 0.25)], "1 to 2": [(0.123, -1.0), (1.0, 0.0)]}


def test_values_of_attributes_are_labels_as_they_are() -> None:
    assert labelled(["SE", None, "3"], is_ordered=False) == ["SE", "not known", "3"]
    bounds = ["2", "3", "9", "10", "99", "100", "299"]
    assert labelled(bounds, is_ordered=True) == [
        "1 to 2", "3 to 9", "3 to 9", "10 to 29", "30 to 99", "100 to 299", "100 to 299",
    ]  # fmt: skip
