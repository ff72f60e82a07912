"""Tastes: dimensions whose cosines are those of users' mean item texts."""

import numpy as np
import pytest
import torch

from userrep import config
from userrep.features.layout import InputLayout, Moments, Scaler
from userrep.features.spec import FeatureSpec
from userrep.features.targets import TargetLayout
from userrep.model.autoencoder import Autoencoder
from userrep.model.frozen_folder import Tensors
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
    """Return a scaler, scaled inputs, and the means side by side: unit vectors, those of picks with length .25."""
    rng = np.random.default_rng(seed)
    raw_BF = rng.standard_normal((num_rows, LAYOUT.width)).astype(np.float32)
    means = [block.inputs for block in LAYOUT.means]
    for part in means:
        raw_BF[:, part] = np.abs(raw_BF[:, part]) ** 4
    raw_BF[:, LAYOUT.blocks[-1].inputs] = 1
    LAYOUT.normalize_means(raw_BF)
    scaler = Scaler.fit(LAYOUT, Moments.of(raw_BF))
    for part in means:
        scaler.scale_F[part] /= 5  # so that many numbers are beyond the clip
    x_BF = scaler.apply(LAYOUT, raw_BF)
    *events, picks = (raw_BF[:, part] for part in means)
    return scaler, x_BF, np.concatenate([*events, 0.25 * picks], axis=1)


def tastes(weights: Tensors, x_BF: np.ndarray) -> np.ndarray:
    return np.asarray(x_BF @ weights["taste_KF"].T + weights["taste_K"])


def cosines(v_BK: np.ndarray) -> np.ndarray:
    unit_BK = v_BK / np.linalg.norm(v_BK, axis=1, keepdims=True)
    return np.asarray(unit_BK @ unit_BK.T)


def test_tastes_are_made_of_the_longest_window_the_history_and_the_picks() -> None:
    assert [block.name for block in LAYOUT.means] == ["content_7d", "content_30d", "content_onboarding"]
    assert not InputLayout.of(SPEC, {}).means
    behaviour = [block.name for block in InputLayout.of(SPEC, {}, "behaviour").means]
    assert behaviour == ["behaviour_7d", "behaviour_30d", "behaviour_onboarding"]


def test_a_fifth_of_the_dimensions_are_tastes_if_the_model_predicts_and_items_have_texts() -> None:
    model = config.Model(latent_dim=20)
    assert num_tastes(LAYOUT, TARGETS, model) == 4
    assert num_tastes(LAYOUT, TARGETS, config.Model(latent_dim=120)) == 9  # as many as the means have numbers
    assert num_tastes(InputLayout.of(SPEC, {}), TARGETS, model) == 0
    assert num_tastes(LAYOUT, TargetLayout.of(SPEC, []), model) == 0


def test_with_all_axes_cosines_are_those_of_the_means() -> None:
    scaler, x_BF, mean_BM = scaled(200)
    taste_BK = tastes(fitted_tastes(LAYOUT, scaler, x_BF, num_tastes=9, latent_dim=120, seed=3), x_BF)
    np.testing.assert_allclose(cosines(taste_BK), cosines(mean_BM), atol=1e-5)
    assert np.square(taste_BK).sum(axis=1).mean() == pytest.approx(64 * (120 - 9), rel=1e-3)


@pytest.mark.parametrize("number", [1, 2, 4, 8])
def test_fewer_tastes_are_the_axes_of_most_squared_length(number: int) -> None:
    scaler, x_BF, mean_BM = scaled(200)
    taste_BK = tastes(fitted_tastes(LAYOUT, scaler, x_BF, num_tastes=number, latent_dim=120, seed=3), x_BF)
    _, _, axes_MM = np.linalg.svd(mean_BM, full_matrices=False)
    np.testing.assert_allclose(cosines(taste_BK), cosines(mean_BM @ axes_MM[:number].T), atol=1e-4)
    assert taste_BK.std(axis=0).min() > 0.01 * np.sqrt(64 * (120 - number) / number)


def test_a_user_without_items_has_the_taste_of_the_mean_and_picks_move_it() -> None:
    scaler, x_BF, _ = scaled(200)
    weights = fitted_tastes(LAYOUT, scaler, x_BF, num_tastes=9, latent_dim=120, seed=3)
    picks = LAYOUT.means[-1].inputs
    only_picks_BF = np.zeros_like(x_BF)
    only_picks_BF[:, picks] = x_BF[:, picks]
    np.testing.assert_allclose(weights["taste_K"], tastes(weights, x_BF).mean(axis=0), rtol=1e-3, atol=1e-2)
    assert tastes(weights, only_picks_BF).std(axis=0).max() > 1


def test_tastes_follow_the_learned_code_and_precede_the_propensities() -> None:
    model = config.Model(latent_dim=20)
    autoencoder = Autoencoder(LAYOUT, model, TARGETS)
    autoencoder.taste_K += 5
    autoencoder.propensity_P += 7
    z_D = autoencoder.encode(torch.zeros(1, LAYOUT.width))[0]
    assert len(z_D) == 20
    assert z_D[14:].tolist() == [5, 5, 5, 5, 7, 7]
