"""The code after the training: its distances, mean 0 and variance 1, and everything predicted of it as before."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from tests.unit.inference.test_model import LINEAR, MODEL, PAPER, inputs, layout_of
from userrep import config
from userrep.features.targets import TargetLayout
from userrep.model.autoencoder import Autoencoder, Outputs
from userrep.model.standard import standardized_code

pytestmark = pytest.mark.fast

LAYOUT = layout_of()
TARGETS = TargetLayout.of(LAYOUT.spec, [7])


@pytest.mark.parametrize("model", [LINEAR, MODEL, PAPER, LINEAR.model_copy(update={"next_items_weight": 0.0})])
def test_codes_are_standardized_and_predictions_stay(model: config.Model) -> None:
    autoencoder, x_BF = Autoencoder(LAYOUT, model, TARGETS, seed=2), torch.from_numpy(inputs(LAYOUT, 500))
    with torch.no_grad():
        before, code_BL = Outputs(*(part.detach().clone() for part in autoencoder(x_BF))), autoencoder.code(x_BF)
        weights = standardized_code({name: t.numpy() for name, t in autoencoder.state_dict().items()}, x_BF.numpy())
        autoencoder.load_state_dict({name: torch.from_numpy(t) for name, t in weights.items()})
        after, standard_BL = Outputs(*(part.detach() for part in autoencoder(x_BF))), autoencoder.code(x_BF)
    assert {t.dtype for t in weights.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(standard_BL.mean(dim=0), 0, atol=1e-5)
    assert standard_BL.var(dim=0, correction=0).mean().item() == pytest.approx(1, rel=1e-4)
    if model.hidden_dim:  # the decoder has a hidden layer: coordinates stay
        scale = (standard_BL.std(dim=0) / code_BL.std(dim=0)).numpy()
        np.testing.assert_allclose(scale, scale[0], rtol=1e-3)  # all dimensions share one scale
    np.testing.assert_allclose(after.reconstruction_BF, before.reconstruction_BF, atol=1e-4)
    np.testing.assert_allclose(after.next_days_BN, before.next_days_BN, atol=1e-4)
    if before.worth_E.numel():  # what all rows ask for is the items' worth
        np.testing.assert_allclose(after.query_BE + after.worth_E, before.query_BE + before.worth_E, atol=1e-4)


def test_distances_are_halfway_between_the_codes_and_those_of_what_is_reconstructed() -> None:
    autoencoder, x_BF = Autoencoder(LAYOUT, LINEAR, TARGETS, seed=2), inputs(LAYOUT, 300)
    torch.nn.init.normal_(autoencoder.decoder_output.weight)  # far from equal in all directions
    before = {name: t.numpy() for name, t in autoencoder.state_dict().items()}
    after = standardized_code(before, x_BF)
    decoder_FL, decoder_now_FL = (w["decoder_output.weight"].astype(np.float64) for w in (before, after))
    code_BL, code_now_BL = (x_BF @ w["encoder_linear.weight"].T.astype(np.float64) for w in (before, after))
    halfway_LL = sqrtm(decoder_FL.T @ decoder_FL)  # of squared lengths: 1 for the code's, D'D for reconstructions
    squares_B = np.einsum("bl,lk,bk->b", code_BL, halfway_LL, code_BL)
    found_B = np.square(code_now_BL).sum(axis=1)
    np.testing.assert_allclose(found_B / found_B[0], squares_B / squares_B[0], rtol=1e-3)
    np.testing.assert_allclose(code_now_BL @ decoder_now_FL.T, code_BL @ decoder_FL.T, atol=1e-3)


def test_a_code_that_does_not_vary_stays_finite() -> None:
    state = Autoencoder(LAYOUT, LINEAR, TARGETS).state_dict()
    weights = {name: t.numpy() * (0 if name == "encoder_linear.weight" else 1) for name, t in state.items()}
    assert all(np.isfinite(t).all() for t in standardized_code(weights, inputs(LAYOUT, 20)).values())
