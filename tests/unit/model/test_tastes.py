"""Tastes: dimensions whose distances are those of users' mean item texts."""

import numpy as np
import pytest
import torch

from userrep import config
from userrep.features.layout import InputLayout, Scaler
from userrep.features.spec import FeatureSpec
from userrep.features.targets import TargetLayout
from userrep.model.autoencoder import Autoencoder
from userrep.model.tastes import fitted_tastes
from userrep.model.weights import num_tastes

pytestmark = pytest.mark.fast

SPEC = FeatureSpec(
    windows_days=[2, 7],
    history_days=30,
    modalities={"behaviour": 2, "content": 3},
    onboarding=True,
    registered_at=False,
    attributes=[],
    context=[],
)
LAYOUT = InputLayout.of(SPEC, {}, "content")
TARGETS = TargetLayout.of(SPEC, [2])


def scaled(num_rows: int, seed: int = 0) -> tuple[Scaler, np.ndarray, np.ndarray]:
    """Return a scaler, scaled inputs, and the unit vectors that describe taste, side by side."""
    rng = np.random.default_rng(seed)
    raw_BF = rng.standard_normal((num_rows, LAYOUT.width)).astype(np.float32)
    for block in LAYOUT.tastes:
        raw_BF[:, block.inputs] = np.abs(raw_BF[:, block.inputs])
        raw_BF[:, block.inputs] /= np.linalg.norm(raw_BF[:, block.inputs], axis=1, keepdims=True)
    raw_BF[:, LAYOUT.blocks[-1].inputs] = 1
    center_F, scale_F = np.zeros(LAYOUT.width, np.float32), np.ones(LAYOUT.width, np.float32)
    for k, block in enumerate(LAYOUT.tastes):
        center_F[block.inputs], scale_F[block.inputs] = raw_BF[:, block.inputs].mean(axis=0), 0.5 + k
    scaler = Scaler(center_F=center_F, scale_F=scale_F)
    unit_BM = np.concatenate([raw_BF[:, block.inputs] for block in LAYOUT.tastes], axis=1)
    return scaler, scaler.apply(LAYOUT, raw_BF), unit_BM


def test_the_means_of_the_longest_window_and_the_history_describe_taste() -> None:
    assert [block.name for block in LAYOUT.tastes] == ["content_7d", "content_30d"]
    assert not InputLayout.of(SPEC, {}).tastes
    assert [block.name for block in InputLayout.of(SPEC, {}, "behaviour").tastes] == ["behaviour_7d", "behaviour_30d"]


def test_a_fifth_of_the_dimensions_are_tastes_if_the_model_predicts_and_items_have_texts() -> None:
    model = config.Model(latent_dim=20)
    assert num_tastes(LAYOUT, TARGETS, model) == 4
    assert num_tastes(LAYOUT, TARGETS, config.Model(latent_dim=120)) == 7  # the means have six dimensions
    assert num_tastes(InputLayout.of(SPEC, {}), TARGETS, model) == 0
    assert num_tastes(LAYOUT, TargetLayout.of(SPEC, []), model) == 0


def test_with_all_axes_distances_of_tastes_are_those_of_the_unit_vectors() -> None:
    scaler, x_BF, unit_BM = scaled(50)
    weights = fitted_tastes(LAYOUT, scaler, x_BF, num_tastes=7, latent_dim=120, seed=3)
    taste_BK = x_BF @ weights["taste_KF"].T + weights["taste_K"]
    distance_BB, unit_BB = (np.linalg.norm(v[:, None] - v[None], axis=2) for v in (taste_BK, unit_BM))
    scale = distance_BB.sum() / unit_BB.sum()
    np.testing.assert_allclose(distance_BB, scale * unit_BB, rtol=1e-3, atol=1e-3)
    assert np.square(taste_BK).sum(axis=1).mean() == pytest.approx(64 * (120 - 7), rel=1e-3)
    assert taste_BK.std(axis=0).min() > 0


def test_fewer_tastes_are_those_of_most_variance() -> None:
    scaler, x_BF, _ = scaled(200)
    spread = []
    for number in (2, 4, 6):
        weights = fitted_tastes(LAYOUT, scaler, x_BF, num_tastes=number, latent_dim=120, seed=3)
        taste_BK = x_BF @ weights["taste_KF"].T + weights["taste_K"]
        assert taste_BK.shape == (200, number)
        share = taste_BK.var(axis=0).sum() / np.square(taste_BK).sum(axis=1).mean()
        spread.append(share)
    assert spread == sorted(spread)


def test_a_user_without_items_has_the_taste_of_the_mean() -> None:
    scaler, x_BF, _ = scaled(50)
    weights = fitted_tastes(LAYOUT, scaler, x_BF, num_tastes=7, latent_dim=120, seed=3)
    taste_BK = x_BF @ weights["taste_KF"].T + weights["taste_K"]
    np.testing.assert_allclose(weights["taste_K"], taste_BK.mean(axis=0), rtol=1e-3, atol=1e-2)


def test_tastes_follow_the_learned_code_and_precede_the_propensities() -> None:
    model = config.Model(latent_dim=20)
    autoencoder = Autoencoder(LAYOUT, model, TARGETS)
    autoencoder.taste_K += 5
    autoencoder.propensity_P += 7
    z_D = autoencoder.encode(torch.zeros(1, LAYOUT.width))[0]
    assert len(z_D) == 20
    assert z_D[14:].tolist() == [5, 5, 5, 5, 7, 7]
