"""The model: layers compared with plain NumPy, an external dropout mask, and propensities next to the learned code."""

import math

import numpy as np
import pytest
import torch

from tests.unit.inference.test_model import LINEAR, MODEL, NO_TARGETS, inputs, layout_of
from userrep import config
from userrep.features.targets import TargetLayout
from userrep.model.autoencoder import Autoencoder

pytestmark = pytest.mark.fast

TARGETS = TargetLayout.of(layout_of().spec, [7])


def weights_of(autoencoder: Autoencoder) -> dict[str, np.ndarray]:
    return {name: tensor.detach().double().numpy() for name, tensor in autoencoder.state_dict().items()}


def gelu(x: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda value: value * (1 + math.erf(value / math.sqrt(2))) / 2)(x)


def layer(weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)


def propensities(weights: dict[str, np.ndarray], x_BF: np.ndarray) -> np.ndarray:
    """Add up the terms of each propensity: those linear in an input, and one for each knot of a count."""
    counts = [block.start for block in layout_of().blocks if block.kind == "scalar"]
    found_BP = x_BF @ weights["propensity_PF"].T + weights["propensity_P"]
    for g, (k, s) in enumerate((k, s) for k in range(3) for s in range(len(counts))):
        hinge_B = np.maximum(x_BF[:, counts[s]] - weights["propensity_knot_KS"][k, s], 0)
        found_BP += hinge_B[:, None] * weights["propensity_PG"][:, g]
    return found_BP


def test_weights_follow_from_the_seed_and_leave_torch_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (Autoencoder(layout_of(), MODEL, TARGETS, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    for name in ("encoder_linear", "encoder_hidden"):
        assert torch.equal(getattr(first, name).weight, getattr(second, name).weight)
        assert not torch.equal(getattr(first, name).weight, getattr(other, name).weight)


@pytest.mark.parametrize("model", [LINEAR, MODEL])
def test_a_forward_pass_is_that_of_plain_numpy(model: config.Model) -> None:
    autoencoder = Autoencoder(layout_of(), model, TARGETS, seed=1)
    torch.nn.init.normal_(autoencoder.item_worth.weight)
    weights, x_BF, keep_BH = weights_of(autoencoder), inputs(layout_of(), 6), None
    code = layer(weights, "encoder_linear", x_BF)
    if model.hidden_dim:
        keep_BH = (np.random.default_rng(2).random((6, model.hidden_dim)) < 0.7) / 0.7
        code = code + layer(weights, "encoder_latent", gelu(layer(weights, "encoder_hidden", x_BF)) * keep_BH)
    decoded = gelu(layer(weights, "decoder_hidden", code)) if model.decoder_dim else code
    found = autoencoder(
        torch.from_numpy(x_BF), None if keep_BH is None else torch.from_numpy(keep_BH.astype(np.float32))
    )
    want = (layer(weights, "decoder_output", decoded), layer(weights, "item_query", code),
            weights["item_worth.weight"][0], layer(weights, "next_days", code))  # fmt: skip
    for got, expected in zip(found, want, strict=True):
        np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_without_targets_nothing_is_predicted_and_the_code_is_the_embedding() -> None:
    autoencoder, x_BF = Autoencoder(layout_of(), MODEL, NO_TARGETS), torch.from_numpy(inputs(layout_of(), 3))
    outputs = autoencoder(x_BF)
    assert [part.numel() for part in outputs[1:]] == [0, 0, 0]
    assert torch.equal(autoencoder.encode(x_BF), autoencoder.code(x_BF))


def test_an_embedding_is_the_code_and_the_propensities() -> None:
    autoencoder, x_BF = Autoencoder(layout_of(), LINEAR, TARGETS, seed=1), inputs(layout_of(), 6)
    for name, tensor in autoencoder.named_buffers():
        torch.nn.init.normal_(tensor)
        assert name.startswith("propensity")
    z_BD, weights = autoencoder.encode(torch.from_numpy(x_BF)).detach().numpy(), weights_of(autoencoder)
    np.testing.assert_allclose(z_BD[:, :14], layer(weights, "encoder_linear", x_BF), atol=1e-4)
    np.testing.assert_allclose(z_BD[:, 14:], propensities(weights, x_BF), atol=1e-4)
