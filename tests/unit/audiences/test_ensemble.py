"""The score of a seed list: its classifier, clusters and calibration, against scores computed by hand."""

import numpy as np
import pytest

from tests.support.audience_world import vectors_of
from userrep.audiences.ensemble import Calibration, HeldOut, InputTransform, Member, fit_ensemble, weights_of

pytestmark = [pytest.mark.fast, pytest.mark.usefixtures("one_core")]


def test_the_probability_levels_off_at_the_share_of_users_alike_that_the_list_has() -> None:
    rng = np.random.default_rng(0)
    score_N = rng.normal(-2, 3, 50_000)
    is_alike_N = rng.random(len(score_N)) < 1 / (1 + np.exp(-score_N))
    is_seed_N = is_alike_N & (rng.random(len(score_N)) < 0.3)
    found = Calibration.fit(score_N, is_seed_N, np.ones(len(score_N)))
    assert found.share == pytest.approx(0.3, abs=0.03)
    assert found.probabilities(score_N) == pytest.approx(0.3 / (1 + np.exp(-score_N)), abs=0.03)


def test_probabilities_never_fall_with_an_uninformative_score() -> None:
    score_N = np.linspace(-1, 1, 500)
    probability_N = Calibration.fit(score_N, score_N < -0.8, np.ones(500)).probabilities(score_N)
    assert (np.diff(probability_N) > 0).all()
    assert probability_N == pytest.approx(0.1, abs=0.01)


def test_many_seeds_decide_the_weights_and_few_keep_the_classifier() -> None:
    rng = np.random.default_rng(1)
    for num_seeds, least, most in ((20, 0, 1), (5000, 2, 5)):
        is_seed_N = np.arange(10 * num_seeds) < num_seeds
        noise_NF = rng.standard_normal((len(is_seed_N), 2))
        weight_F = weights_of(np.column_stack([0.5 * is_seed_N, 1.5 * is_seed_N]) + noise_NF, is_seed_N)
        assert weight_F[0] > 0
        assert least < weight_F[1] / weight_F[0] < most


def test_a_feature_that_counts_against_seeds_gets_no_weight() -> None:
    rng = np.random.default_rng(1)
    is_seed_N = rng.random(5000) < 0.1
    features_NF = np.column_stack([is_seed_N + rng.standard_normal(5000), -2 * is_seed_N + rng.standard_normal(5000)])
    weight_F = weights_of(features_NF, is_seed_N)
    assert weight_F[0] > 0
    assert weight_F[1] == pytest.approx(0, abs=1e-6)


def test_seeds_that_no_feature_distinguishes_leave_the_order_of_the_classifier() -> None:
    features_NF = np.column_stack([np.tile([0.0, 1.0], 100), np.repeat([0.0, 1.0], 100)])
    is_seed_N = features_NF.sum(axis=1) == 0
    weight_F = weights_of(features_NF, is_seed_N)
    assert weight_F[0] > 0


def test_seeds_of_several_kinds_have_a_center_each() -> None:
    rng = np.random.default_rng(2)
    x_ND, is_seed_N = 0.1 * rng.standard_normal((600, 8)), np.arange(600) < 60
    x_ND[:60, :2] += 3 * np.array([[1, 0], [0, 1]])[np.arange(60) % 2]
    features_NF = Member.fit(x_ND, is_seed_N).features(x_ND)
    assert features_NF[:60, 1].min() > 0.95  # the cosine to the nearest center
    assert features_NF[60:, 1].mean() < 0.9
    assert features_NF[:60, 0].mean() > features_NF[60:, 0].max()


def test_a_size_is_filled_by_weight_and_counts_its_seeds() -> None:
    # Best first: a seed, 10 users, a seed, 10 users; each sampled user stands for ten.
    scores = HeldOut(np.array([4.0, 3, 2, 1]), np.array([True, False, True, False]), np.array([1.0, 10, 1, 10]))
    assert scores.at_size(1) == {"size": 1, "seeds_found": 0.5, "precision": 1.0, "lift": 11.0}
    assert scores.at_size(6) == {"size": 6, "seeds_found": 0.5, "precision": round(1 / 6, 6), "lift": 1.83}
    assert scores.at_size(22) == {"size": 22, "seeds_found": 1.0, "precision": round(2 / 22, 6), "lift": 1.0}
    assert scores.auc == 0.75


def test_held_out_scores_of_random_seeds_promise_nothing() -> None:
    sample = vectors_of(np.random.default_rng(3).standard_normal((3000, 30)).astype(np.float32))
    x_ND = InputTransform.of(sample)(sample)
    _, scores = fit_ensemble(x_ND[:60], x_ND[60:], num_seeds=60, num_others=2940)
    assert scores.auc == pytest.approx(0.5, abs=0.12)
    assert scores.at_size(300)["lift"] < 2.2


def test_each_dimension_is_standardized_unless_it_hardly_varies() -> None:
    z_ND = np.random.default_rng(3).standard_normal((3000, 4)) * [100, 1, 1e-6, 0] + [7, 0, 0, 5]
    sample = vectors_of(z_ND.astype(np.float32))
    x_ND = InputTransform.of(sample)(sample)
    np.testing.assert_allclose(x_ND.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(x_ND.std(axis=0), [1, 1, 0, 0], atol=1e-4)


def test_equal_seeds_are_one_cluster() -> None:
    x_ND = np.random.default_rng(1).standard_normal((500, 4))
    x_ND[:50] = x_ND[0]
    member = Member.fit(x_ND, np.arange(500) < 50)  # a warning would fail this test
    np.testing.assert_allclose(member.center_KD, np.broadcast_to(member.center_KD[0], member.center_KD.shape))


def test_equal_scores_count_in_proportion() -> None:
    is_seed_N = np.array([True, True, False, False])
    equal = HeldOut(np.zeros(4), is_seed_N, np.array([1.0, 1.0, 9.0, 9.0]))
    assert equal.at_size(5) == {"size": 5, "seeds_found": 0.25, "precision": 0.1, "lift": 1.0}
    best_first = HeldOut(np.array([2.0, 1.0, 1.0, 0.0]), is_seed_N, np.ones(4))
    assert best_first.at_size(2)["precision"] == 0.75  # the first seed, and half of the second
