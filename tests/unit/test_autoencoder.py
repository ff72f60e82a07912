"""The autoencoder: its layers by plain numpy, dropout from outside, and carried dimensions that nothing learns."""

import math

import numpy as np
import pytest
import torch

from tests.unit.test_model import MODEL, inputs, layout_of
from userrep import config
from userrep.model.autoencoder import Autoencoder

pytestmark = pytest.mark.fast

PLAIN = MODEL.model_copy(update={"carried_share": 0.0})
NUM_TARGETS = 5


def weights_of(autoencoder: Autoencoder) -> dict[str, np.ndarray]:
    return {name: tensor.detach().double().numpy() for name, tensor in autoencoder.state_dict().items()}


def gelu(x: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda value: value * (1 + math.erf(value / math.sqrt(2))) / 2)(x)


def layer(weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def test_weights_follow_from_the_seed_and_leave_torch_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = Autoencoder(layout_of(), MODEL, seed=1), Autoencoder(layout_of(), MODEL, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.encoder_hidden.weight, second.encoder_hidden.weight)
    assert not torch.equal(first.encoder_hidden.weight, Autoencoder(layout_of(), MODEL, seed=2).encoder_hidden.weight)


@pytest.mark.parametrize("model", [PLAIN, MODEL])
def test_a_forward_pass_is_that_of_plain_numpy(model: config.Model) -> None:
    autoencoder = Autoencoder(layout_of(), model, num_targets=NUM_TARGETS, seed=1)
    weights, x_BF = weights_of(autoencoder), inputs(layout_of(), 6)
    keep_BH = (np.random.default_rng(2).random((6, model.hidden_dim)) < 0.7) / 0.7
    hidden = gelu(layer(weights, "encoder_hidden", x_BF)) * keep_BH
    code = layer(weights, "encoder_latent", hidden) + x_BF @ weights["encoder_skip.weight"].T
    want = [
        layer(weights, f"{head}_output", gelu(layer(weights, f"{head}_hidden", code))) for head in ("decoder", "future")
    ]
    found = autoencoder(torch.from_numpy(x_BF), torch.from_numpy(keep_BH.astype(np.float32)))
    for got, expected in zip(found, want, strict=True):
        np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_without_targets_nothing_is_predicted() -> None:
    autoencoder = Autoencoder(layout_of(), MODEL)
    assert autoencoder(torch.zeros(3, layout_of().width)).future_BT.shape == (3, 0)
    assert not [name for name in autoencoder.state_dict() if name.startswith("future")]


def test_only_what_is_not_carried_has_a_gradient() -> None:
    autoencoder = Autoencoder(layout_of(), MODEL, num_targets=NUM_TARGETS)
    num = autoencoder.num_carried
    assert 0 < num < MODEL.latent_dim
    torch.cat(autoencoder(torch.from_numpy(inputs(layout_of(), 8))), dim=1).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in autoencoder.named_parameters()}
    for name in ("encoder_latent.weight", "encoder_latent.bias", "encoder_skip.weight"):
        gradient = gradients[name]
        assert gradient is not None
        assert not gradient[:num].any()
        assert gradient[num:].any()
    for name in ("decoder_hidden.weight", "future_hidden.weight"):
        gradient = gradients[name]
        assert gradient is not None
        assert not gradient[:, :num].any()
        assert gradient[:, num:].any()


def test_carrying_again_undoes_what_a_step_did_to_carried_dimensions_and_nothing_else() -> None:
    autoencoder = Autoencoder(layout_of(), MODEL, num_targets=NUM_TARGETS)
    num, carried_CF = autoencoder.num_carried, autoencoder.carried_CF
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter.fill_(3.0)
    autoencoder.carry()
    assert torch.equal(autoencoder.encoder_skip.weight[:num], carried_CF)
    assert not autoencoder.encoder_latent.weight[:num].any()
    assert not autoencoder.encoder_latent.bias[:num].any()
    for decoder in (autoencoder.decoder_hidden, autoencoder.future_hidden):
        assert not decoder.weight[:, :num].any()
    left = [autoencoder.encoder_skip.weight[num:], autoencoder.encoder_latent.weight[num:],
            autoencoder.encoder_latent.bias[num:], autoencoder.decoder_hidden.weight[:, num:],
            autoencoder.future_hidden.weight[:, num:], autoencoder.decoder_hidden.bias]  # fmt: skip
    assert all((weights == 3).all() for weights in left)


def test_an_embedding_is_the_code_that_decoders_read_with_carried_inputs_in_front() -> None:
    autoencoder, x_BF = Autoencoder(layout_of(), MODEL, seed=1), inputs(layout_of(), 6)
    x_BF[:, : autoencoder.tastes.width] = 0  # directions, which are made equally long: absent here
    weights = weights_of(autoencoder)
    code = layer(weights, "encoder_latent", gelu(layer(weights, "encoder_hidden", x_BF)))
    code += x_BF @ weights["encoder_skip.weight"].T
    z_BD = autoencoder.encode(torch.from_numpy(x_BF)).detach().numpy()
    np.testing.assert_allclose(z_BD, code, rtol=1e-4, atol=1e-5)
    carried_BC = x_BF @ autoencoder.carried_CF.numpy().T
    np.testing.assert_allclose(z_BD[:, : autoencoder.num_carried], carried_BC, rtol=1e-4, atol=1e-5)
