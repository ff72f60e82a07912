"""A trained space is moved into coordinates in which distances say how far apart users are."""

import numpy as np
import pytest
import torch

from tests.unit.test_layout import LAYOUT, some_raw
from userrep import config
from userrep.features.layout import Moments, Scaler
from userrep.model.autoencoder import Autoencoder
from userrep.model.carried import carried_inputs
from userrep.model.coordinates import _OTHER, _POOLED, coordinates, in_readable_coordinates
from userrep.model.tensor_file import Tensors

pytestmark = pytest.mark.fast

RAW = some_raw(600)
X_BF = Scaler.fit(LAYOUT, Moments.of(RAW)).apply(LAYOUT, RAW)
MODEL = config.Model(latent_dim=6, hidden_dim=12, decoder_dim=7, carried_share=0)
CARRYING = config.Model(latent_dim=20, hidden_dim=12, decoder_dim=7)


def weights(seed: int = 3, model: config.Model = MODEL) -> Tensors:
    state = Autoencoder(LAYOUT, model, num_targets=5, seed=seed).state_dict()
    return {name: tensor.numpy().copy() for name, tensor in state.items()}


def outputs(tensors: Tensors, model: config.Model = MODEL) -> tuple[np.ndarray, ...]:
    autoencoder = Autoencoder(LAYOUT, model, num_targets=5)
    autoencoder.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    with torch.inference_mode():
        x_BF = torch.from_numpy(X_BF)
        return tuple(part.numpy() for part in (autoencoder.encode(x_BF), *autoencoder(x_BF)))


def moved(tensors: Tensors, model: config.Model = MODEL) -> Tensors:
    return in_readable_coordinates(Autoencoder(LAYOUT, model, num_targets=5), tensors, LAYOUT, X_BF)


def weighted_inputs() -> np.ndarray:
    """Each block's inputs, centred, divided so that a block as a whole counts as its kind."""
    parts = [
        X_BF[:, b.start : b.stop] * (_POOLED if b.kind == "pooled" else _OTHER) / (b.stop - b.start) ** 0.5
        for b in LAYOUT.blocks
    ]
    together = np.hstack(parts).astype(np.float64)
    return together - together.mean(axis=0)


def test_what_is_reconstructed_and_predicted_stays_and_codes_have_mean_zero_and_variance_one() -> None:
    before, after = outputs(weights()), outputs(moved(weights()))
    for was, now in zip(before[1:], after[1:], strict=True):
        np.testing.assert_allclose(now, was, atol=1e-4)
    assert np.abs(after[0] - before[0]).max() > 0.1
    np.testing.assert_allclose(after[0].mean(axis=0), 0, atol=1e-3)
    assert after[0].var(axis=0).mean() == pytest.approx(1, rel=1e-3)


def test_a_distance_of_codes_is_that_of_what_they_tell_of_the_inputs() -> None:
    """Up to one factor for all: checked with least squares by another routine, for random pairs of users."""
    z_BD = outputs(moved(weights()))[0].astype(np.float64)
    design = np.hstack([z_BD, np.ones((len(z_BD), 1))])
    told = design @ np.linalg.lstsq(design, weighted_inputs(), rcond=None)[0]
    random = np.random.default_rng(0)
    a, b = random.integers(0, len(z_BD), (2, 400))
    apart = np.linalg.norm(z_BD[a] - z_BD[b], axis=1)[a != b]
    ratio = np.linalg.norm(told[a] - told[b], axis=1)[a != b] / apart
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=0.02)


def test_the_coordinates_training_ended_in_don_t_matter_but_for_a_rotation() -> None:
    stretched = weights()
    by_DD = np.diag([3, 2, 1, 0.7, 0.5, 0.3]).astype(np.float32)
    for name in ("encoder_latent.weight", "encoder_skip.weight", "encoder_latent.bias"):
        stretched[name] = by_DD @ stretched[name]
    for name in ("decoder_hidden.weight", "future_hidden.weight"):
        stretched[name] = stretched[name] @ np.linalg.inv(by_DD)
    one, other = outputs(moved(weights()))[0], outputs(moved(stretched))[0]
    np.testing.assert_allclose(one @ one.T, other @ other.T, atol=0.05)


def test_a_space_in_readable_coordinates_stays_where_it_is() -> None:
    once = moved(weights())
    np.testing.assert_allclose(outputs(moved(once))[0], outputs(once)[0], atol=5e-3)


def test_carried_dimensions_are_inputs_and_stay_and_the_others_are_moved_as_without_them() -> None:
    drawn = weights(model=CARRYING)
    before, after = outputs(drawn, CARRYING), outputs(moved(drawn, CARRYING), CARRYING)
    for was, now in zip(before[1:], after[1:], strict=True):
        np.testing.assert_allclose(now, was, atol=1e-4)
    carried_CF = carried_inputs(LAYOUT, CARRYING)
    carried_BC, learned_BL = np.split(after[0], [len(carried_CF)], axis=1)
    assert 0 < len(carried_CF) < CARRYING.latent_dim
    np.testing.assert_allclose(carried_BC, X_BF @ carried_CF.T, atol=1e-5)
    mean_D, to_DD = coordinates(before[0][:, len(carried_CF) :], X_BF.astype(np.float64), LAYOUT)
    np.testing.assert_allclose(learned_BL, (before[0][:, len(carried_CF) :] - mean_D) @ to_DD, atol=1e-4)


@pytest.mark.parametrize("codes", [np.zeros((50, 4)), np.ones((50, 4)), np.outer(np.arange(50.0), np.ones(4))])
def test_codes_that_say_little_or_nothing_are_no_trouble(codes: np.ndarray) -> None:
    mean_D, to_DD = coordinates(codes, X_BF[:50].astype(np.float64), LAYOUT)
    assert np.isfinite(mean_D).all()
    assert np.isfinite(to_DD).all()
    assert np.linalg.matrix_rank(to_DD) == 4
