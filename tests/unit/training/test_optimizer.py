"""Optimizer steps: AdamW on gradients that are averaged over ranks and clipped."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.inference.test_model import NO_TARGETS
from tests.unit.training.test_training import LAYOUT, on_ranks, planted
from userrep import config
from userrep.errors import DivergedError
from userrep.model.autoencoder import Autoencoder
from userrep.training.launch.comm import LocalComm
from userrep.training.optimizer import Optimizer

pytestmark = pytest.mark.fast


def optimizer_of(model: torch.nn.Module, comm: Any = None, *, num_steps: int = 10, **training: Any) -> Optimizer:
    return Optimizer(model, config.Training(**training), num_steps, torch.ones(1), comm or LocalComm())


def linear(seed: int = 0) -> torch.nn.Linear:
    model = torch.nn.Linear(5, 2)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-1, 1, generator=generator)
    return model


def loss_of(model: torch.nn.Module, seed: int) -> torch.Tensor:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
    return model(x).square().mean()[None]


def test_gradients_of_two_ranks_average_to_those_of_one() -> None:
    x_BF = torch.from_numpy(planted(16, seed=1)[1])

    def gradient(comm: Any) -> torch.Tensor:
        model = Autoencoder(LAYOUT, config.Model(hidden_dim=8, latent_dim=16, decoder_dim=8), NO_TARGETS, seed=1)
        optimizer = optimizer_of(model, comm, clip_norm=1e9)
        rank_BF = x_BF[comm.rank :: comm.size]
        optimizer.step((model(rank_BF).reconstruction_BF - rank_BF).square().mean()[None])
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    expected = gradient(LocalComm())
    assert expected.abs().max() > 0
    for got in on_ranks(2, gradient):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_losses_are_averaged_over_ranks_and_multiplied_by_their_weights() -> None:
    def stepped(comm: Any) -> tuple[list[float], list[float]]:
        model = torch.nn.Linear(1, 2, bias=False)
        torch.nn.init.ones_(model.weight)
        optimizer = Optimizer(model, config.Training(clip_norm=1e9), 10, torch.tensor([3.0, 0.5]), comm)
        losses_K = optimizer.step(model(torch.tensor([1.0 + comm.rank])))  # each loss is a weight times 1 or 2
        assert model.weight.grad is not None
        return losses_K.tolist(), model.weight.grad.flatten().tolist()

    assert on_ranks(2, stepped) == [([1.5, 1.5], [4.5, 0.75])] * 2


def test_a_gradient_is_clipped_after_it_is_averaged() -> None:
    model = Autoencoder(LAYOUT, config.Model(hidden_dim=8, latent_dim=16, decoder_dim=8), NO_TARGETS)
    optimizer = optimizer_of(model, clip_norm=0.01)
    optimizer.step(100 * model(torch.ones(4, LAYOUT.width)).reconstruction_BF.square().mean()[None])
    norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm().item()
    assert norm == pytest.approx(0.01, rel=1e-4)


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = optimizer_of(model, num_steps=100, learning_rate=0.1)
    rates = []
    for _ in range(100):
        rates.append(optimizer.learning_rate)
        optimizer.step(model(torch.ones(1, 2)).square().mean()[None])
    assert rates[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 1e-4
    assert rates[5] == pytest.approx(0.1)
    assert rates[52] == pytest.approx(0.05, rel=0.02)  # half-way down after half of what is left


def test_steps_follow_the_formula_of_adamw() -> None:
    model = linear()
    optimizer = optimizer_of(model, num_steps=40, learning_rate=0.1, clip_norm=1e9, weight_decay=0.2)
    weight, mean, square = model.weight.detach().double().numpy().copy(), 0.0, 0.0
    for k in range(1, 21):
        rate = optimizer.learning_rate
        optimizer.step(loss_of(model, k))
        assert model.weight.grad is not None
        gradient = model.weight.grad.double().numpy()
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        weight *= 1 - rate * 0.2
        weight -= rate * (mean / (1 - 0.9**k)) / (np.sqrt(square / (1 - 0.999**k)) + 1e-8)
    np.testing.assert_allclose(model.weight.detach(), weight, rtol=1e-4)


def test_a_restored_optimizer_takes_the_same_steps_as_one_that_never_stopped() -> None:
    whole, first = linear(), linear()
    undisturbed, begun = optimizer_of(whole), optimizer_of(first)
    for k in range(4):
        undisturbed.step(loss_of(whole, k))
        begun.step(loss_of(first, k))
    tensors, taken = begun.state(), begun.taken
    second = linear(seed=1)
    second.load_state_dict(first.state_dict())
    resumed = optimizer_of(second)
    resumed.restore({name: tensor.clone() for name, tensor in tensors.items()}, taken)
    for k in range(4, 8):
        assert resumed.learning_rate == undisturbed.learning_rate
        undisturbed.step(loss_of(whole, k))
        resumed.step(loss_of(second, k))
    assert torch.equal(second.weight, whole.weight)
    assert torch.equal(second.bias, whole.bias)
    assert resumed.taken == undisturbed.taken == taken + 4 == 8


def test_a_gradient_that_is_not_finite_stops_a_training() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = optimizer_of(model, num_steps=7, learning_rate=0.25)
    weight = model.weight.sum()
    with pytest.raises(DivergedError, match=r"at step 1 of 7 \(learning rate 0\.25\) the loss is 0 and .* norm nan"):
        optimizer.step(((weight - weight.detach()).sqrt() * 0)[None])
