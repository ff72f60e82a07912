"""Mult-VAE: its encoder and its bound against plain numpy, and the choice among settings."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import nn

from tests.support.evaluation_world import counts_of, events_of_groups
from userrep.evaluation.representations.bags import bags_of, held_out
from userrep.evaluation.representations.variational import BagNet, MultVae, VaeSetting, trained_net

pytestmark = pytest.mark.fast

COUNTS = csr_array([[2.0, 0, 1, 0, 0], [0, 0, 0, 5, 0], [0, 0, 0, 0, 0]])


def net_of_five_items() -> BagNet:
    torch.manual_seed(0)
    net = BagNet(5)
    for weights in net.parameters():
        nn.init.normal_(weights, std=0.3)
    return net


def test_the_encoder_takes_bags_as_unit_vectors_and_not_their_counts() -> None:
    net = net_of_five_items()
    with torch.inference_mode():
        mean_BD, log_variance_BD = net.encode(next(bags_of(COUNTS, np.arange(3))))
        for b, items in enumerate(([0, 2], [3], [])):
            bag = net.of_items.weight[items].sum(dim=0) / max(1, len(items)) ** 0.5
            latent = net.to_latent(torch.tanh(bag + net.bias))
            torch.testing.assert_close(torch.cat([mean_BD[b], log_variance_BD[b]]), latent)


def test_the_bound_is_the_multinomial_likelihood_and_the_weighed_divergence_from_a_standard_normal() -> None:
    net = net_of_five_items()
    bags = next(bags_of(COUNTS, np.arange(2)))
    torch.manual_seed(3)
    found = [net.loss(bags, 0, weight).item() for weight in (0.0, 0.0, 2.0)]
    assert found[0] != found[1]  # the latent vector is drawn
    torch.manual_seed(3)
    with torch.inference_mode():
        mean_BD, log_variance_BD = net.encode(bags)
        drawn_BD = mean_BD + torch.randn_like(mean_BD) * log_variance_BD.exp().sqrt()
        chance_BV = torch.softmax(net.decoder(drawn_BD), dim=1)
        likelihood = sum(chance_BV[b, i].log().item() for b, i in ((0, 0), (0, 2), (1, 3))) / 2
        assert found[0] == pytest.approx(-likelihood, rel=1e-4)
        normal = torch.distributions.Normal(mean_BD, (log_variance_BD / 2).exp())
        divergence = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(dim=1).mean()
    torch.manual_seed(3)
    with torch.no_grad():
        assert net.loss(bags, 0, 2.0).item() == pytest.approx(2 * divergence.item() - likelihood, rel=1e-4)


def test_dropout_leaves_out_items_and_weighs_the_others_more() -> None:
    net, many = net_of_five_items(), csr_array(np.ones((1, 5)))
    bags = next(bags_of(many, np.arange(1)))
    with torch.inference_mode():
        hidden = net.of_items.weight / 5**0.5 / (1 - 0.6)
        possible = [
            net.to_latent(torch.tanh(hidden[torch.tensor(kept, dtype=torch.bool)].sum(dim=0) + net.bias))[:120]
            for kept in np.ndindex(2, 2, 2, 2, 2)
        ]
        torch.manual_seed(1)
        seen = {
            min(range(32), key=lambda k: float((possible[k] - drawn).abs().max()))
            for drawn in (net.encode(bags, 0.6)[0][0] for _ in range(30))
            if min(float((one - drawn).abs().max()) for one in possible) < 1e-4
        }
    assert len(seen) > 8


def test_the_setting_with_the_best_ranking_of_held_out_users_is_kept() -> None:
    counts_UV = counts_of(events_of_groups())
    grid = (VaeSetting(0.5, 1e4), VaeSetting(0.5, 0.05), VaeSetting(0.5, 2e4))  # too large a cap: nothing is encoded
    vae = MultVae(grid=grid, max_steps=120)
    vae.fit_counts(counts_UV, seed=3)
    values = [trained_net(counts_UV, setting, max_steps=120, seed=3)[1] for setting in grid]
    assert vae.setting == grid[int(np.argmax(values))] == grid[1]
    _, apart = held_out(counts_UV, np.random.default_rng(3))
    assert vae._net is not None
    assert apart.ndcg(vae._net.scores) == pytest.approx(max(values))


def test_rows_get_the_mean_of_the_encoder_in_their_order_and_a_flag() -> None:
    vae = MultVae()
    vae._net = net_of_five_items()
    x_ND = vae.encoded(COUNTS)
    with torch.inference_mode():
        mean_BD = vae._net.encode(next(bags_of(COUNTS, np.arange(3))))[0].numpy()
    np.testing.assert_allclose(x_ND[:2, :-1], mean_BD[:2], atol=1e-6)
    assert x_ND[:, -1].tolist() == [1, 1, 0]
    assert not x_ND[2].any()
    many = csr_array(np.tile(COUNTS.toarray(), (200, 1)))  # more than one batch
    np.testing.assert_allclose(vae.encoded(many), np.tile(x_ND, (200, 1)), atol=1e-5)
