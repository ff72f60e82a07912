"""Initial weights: the principal components of the inputs, in coordinates of similar variance."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from tests.unit.model.test_warm_start import features, layout_of
from userrep import config
from userrep.features.layout import Moments, Scaler
from userrep.features.targets import TargetLayout
from userrep.model.autoencoder import Autoencoder
from userrep.model.frozen_folder import Tensors
from userrep.model.principal_start import principal_start

pytestmark = pytest.mark.fast

LAYOUT = layout_of(dim=9)
TARGETS = TargetLayout.of(LAYOUT.spec, [7])


def scaled_rows(seed: int) -> NDArray[np.float32]:
    raw_BF = LAYOUT.raw(features(LAYOUT.spec, 400, seed))
    return Scaler.fit(LAYOUT, Moments.of(raw_BF)).apply(LAYOUT, raw_BF)


def started(model: config.Model, tensors: Tensors) -> Autoencoder:
    network = Autoencoder(LAYOUT, model, TARGETS)
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    return network


def test_the_code_has_the_distances_of_principal_components_and_reconstructs_as_they_do() -> None:
    model, x_BF = config.Model(latent_dim=16), scaled_rows(1)
    network = started(model, principal_start(LAYOUT, TARGETS, model, x_BF, seed=3))
    with torch.inference_mode():
        outputs, code_BL = network(torch.from_numpy(x_BF)), network.code(torch.from_numpy(x_BF)).numpy()
    components = PCA(code_BL.shape[1]).fit(x_BF.astype(np.float64))
    wanted_BC = components.transform(x_BF.astype(np.float64))
    np.testing.assert_allclose(code_BL @ code_BL.T, wanted_BC @ wanted_BC.T, rtol=1e-3, atol=1e-3)
    wanted_BF = components.inverse_transform(wanted_BC)
    np.testing.assert_allclose(outputs.reconstruction_BF.numpy(), wanted_BF, rtol=1e-3, atol=1e-3)
    assert np.ptp(code_BL.std(axis=0)) < np.ptp(wanted_BC.std(axis=0))  # no dimension is the weakest component


def test_a_code_as_wide_as_the_inputs_loses_nothing() -> None:
    model, x_BF = config.Model(latent_dim=4 * LAYOUT.width), scaled_rows(1)
    network = started(model, principal_start(LAYOUT, TARGETS, model, x_BF, seed=3))
    with torch.inference_mode():
        found_BF = network(torch.from_numpy(x_BF)).reconstruction_BF.numpy()
    np.testing.assert_allclose(found_BF, x_BF, rtol=1e-3, atol=1e-3)


def test_other_layers_are_drawn_from_the_seed() -> None:
    model, x_BF = config.Model(latent_dim=16), scaled_rows(1)
    tensors = principal_start(LAYOUT, TARGETS, model, x_BF, seed=3)
    drawn = Autoencoder(LAYOUT, model, TARGETS, seed=3).state_dict()
    fitted = {name for name, tensor in tensors.items() if not np.array_equal(tensor, drawn[name].numpy())}
    assert fitted == {
        f"{layer}.{part}" for layer in ("encoder_linear", "decoder_output") for part in ("weight", "bias")
    }


def test_the_paper_s_autoencoder_starts_from_drawn_weights() -> None:
    model = config.Model(preset="autoencoder", latent_dim=16)
    tensors = principal_start(LAYOUT, TARGETS, model, scaled_rows(1), seed=3)
    drawn = Autoencoder(LAYOUT, model, TARGETS, seed=3).state_dict()
    assert all(np.array_equal(tensors[name], tensor.numpy()) for name, tensor in drawn.items())
