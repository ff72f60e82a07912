"""Protected attributes: a linear probe of projected vectors is at chance, and what cannot be removed is refused."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

from userrep.audiences.protected import Guard, guard_of
from userrep.errors import UsageError

pytestmark = [pytest.mark.fast, pytest.mark.usefixtures("one_core")]

NUM, DIM = 4000, 20


@pytest.fixture(scope="module")
def groups() -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors and groups of users: four groups, of which one is rare."""
    rng = np.random.default_rng(0)
    group_N = rng.choice(4, NUM, p=[0.5, 0.3, 0.195, 0.005])
    return rng.standard_normal((NUM, DIM)) + rng.standard_normal((4, DIM))[group_N], group_N


def text(codes: np.ndarray) -> pa.Array:
    return pa.array([f"g{code}" for code in codes])


def test_a_linear_probe_of_the_projected_vectors_is_at_chance(groups: tuple[np.ndarray, np.ndarray]) -> None:
    x_ND, group_N = groups
    known = pa.array(np.arange(NUM) % 3 > 0)  # a third has no known value
    guard = guard_of(x_ND, {"group": pa.array(text(group_N).to_pylist(), mask=~np.asarray(known))})
    after_ND = guard.project(x_ND)
    train, test = np.arange(0, NUM, 2), np.arange(1, NUM, 2)
    for group in range(3):
        auc = [
            roc_auc_score(
                group_N[test] == group,
                LogisticRegression().fit(x[train], group_N[train] == group).decision_function(x[test]),
            )
            for x in (x_ND, after_ND)
        ]
        assert auc[0] > 0.8
        assert auc[1] == pytest.approx(0.5, abs=0.06)
    (probe,) = guard.probes
    assert (probe["attribute"], probe["num_users"]) == ("group", int(np.asarray(known).sum()))
    assert probe["auc_before"] > 0.8
    assert probe["auc_after"] == pytest.approx(0.5, abs=0.06)


def test_a_projection_leaves_no_covariance_and_removes_one_dimension_per_further_value(
    groups: tuple[np.ndarray, np.ndarray],
) -> None:
    x_ND, group_N = groups
    guard = guard_of(x_ND, {"group": text(group_N)})
    after_ND = guard.project(x_ND)
    means = [after_ND[group_N == group].mean(axis=0) for group in range(4)]  # equal means: no covariance
    assert np.allclose(means, means[0])
    assert np.allclose(guard.project(after_ND), after_ND)
    assert guard.facts()["num_removed_dims"] == 3  # of four values
    assert np.linalg.matrix_rank(after_ND) == DIM - 3


def test_a_value_that_shows_in_a_direction_of_little_variance_is_removed() -> None:
    rng = np.random.default_rng(3)
    spread_D = np.geomspace(3, 0.1, 60)
    is_rare_N = rng.random(NUM) < 0.15
    x_ND = spread_D * rng.standard_normal((NUM, 60)) + np.outer(is_rare_N, np.eye(60)[-1])
    (probe,) = guard_of(x_ND, {"group": text(is_rare_N.astype(int))}).probes
    assert probe["auc_before"] > 0.99
    assert probe["auc_after"] == pytest.approx(0.5, abs=0.1)


def test_a_number_and_its_ranges_are_removed_together() -> None:
    rng = np.random.default_rng(1)
    age_N = rng.uniform(18, 90, NUM)
    x_ND = rng.standard_normal((NUM, DIM)) + 0.05 * age_N[:, None] * rng.standard_normal(DIM)
    after_ND = guard_of(x_ND, {"age": pa.array(age_N)}).project(x_ND)
    fit = slice(0, NUM // 2), slice(NUM // 2, NUM)
    before, after = (Ridge().fit(x[fit[0]], age_N[fit[0]]).score(x[fit[1]], age_N[fit[1]]) for x in (x_ND, after_ND))
    assert before > 0.9
    assert after < 0.02


def test_nothing_protected_leaves_vectors_as_they_are() -> None:
    x_ND = np.random.default_rng(2).standard_normal((10, DIM))
    assert Guard.none(DIM).project(x_ND) is x_ND


def test_an_attribute_that_too_few_users_have_or_that_spans_all_dimensions_is_refused(
    groups: tuple[np.ndarray, np.ndarray],
) -> None:
    x_ND, group_N = groups
    few = pa.array([f"g{k}" if n < 150 else None for n, k in enumerate(group_N)])
    with pytest.raises(
        UsageError, match=r"users.protected: 150 sampled users .* have a value of few; .* needs 200"
    ) as caught:
        guard_of(x_ND, {"few": few, "one": pa.array(["same"] * NUM)})
    assert caught.value.faults[1].startswith("users.protected: 4,000 sampled users of the snapshot have a value of one")
    with pytest.raises(UsageError, match=r"users.protected: group span all 2 dimensions of the vectors"):
        guard_of(x_ND[:, :2], {"group": text(group_N)})
