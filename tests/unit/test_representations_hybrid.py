"""The hybrid factorisation: attributes as columns, users as sums of their items, and the ranking loss by hand."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.sparse import csr_array
from torch import nn

from tests.support.evaluation_world import NUM_GROUPED, NUM_GROUPED_ITEMS, counts_of, events_of_groups
from userrep.evaluation.representations.bags import bags_of
from userrep.evaluation.representations.hybrid import Hybrid, HybridNet, one_hot

pytestmark = pytest.mark.fast

U, V = NUM_GROUPED, NUM_GROUPED_ITEMS
COUNTS = csr_array([[2.0, 0, 1, 1, 0], [0, 0, 0, 5, 0], [0, 0, 0, 0, 0]])
ATTRIBUTES = torch.tensor([[1.0, 0], [0, 1], [1, 1]])


def net_of_five_items() -> HybridNet:
    torch.manual_seed(0)
    content_VC = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    net = HybridNet(content_VC, 2)
    for weights in net.parameters():
        nn.init.normal_(weights, std=0.2)
    return net


def test_attributes_outside_the_vocabulary_are_zeros() -> None:
    values = {"attribute_x": pa.array(["b", None, "c", "a"]), "attribute_y": pa.array(["u", "u", None, "u"])}
    found = one_hot(values, {"attribute_x": ["a", "b"], "attribute_y": ["u"]})
    assert found.tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 1]]


def test_a_user_is_the_sum_of_what_its_items_say_over_the_root_of_their_number_and_its_attributes() -> None:
    net = net_of_five_items()
    with torch.inference_mode():
        found_BD = net.users(next(bags_of(COUNTS, np.arange(3))), ATTRIBUTES)
        says_VD = net.said.weight + net.content_VC @ net.said_content.weight.T
        own_BD = ATTRIBUTES @ net.attributes.weight.T + net.attributes.bias
        torch.testing.assert_close(found_BD[0], says_VD[[0, 2, 3]].sum(dim=0) / 3**0.5 + own_BD[0])
        torch.testing.assert_close(found_BD[1], says_VD[3] + own_BD[1])
        torch.testing.assert_close(found_BD[2], own_BD[2])
        items_VD = net.item.weight + net.content_VC @ net.item_content.weight.T
        score_BV = torch.from_numpy(net.scores(COUNTS, ATTRIBUTES))
        torch.testing.assert_close(score_BV, found_BD @ items_VD.T + net.bias)


def test_the_loss_leaves_a_positive_out_of_its_history_and_weighs_it_by_its_estimated_rank() -> None:
    net = net_of_five_items()
    one_bag = csr_array([[1.0, 0, 1, 0, 0]])
    bags, own_BA = next(bags_of(one_bag, np.arange(1))), ATTRIBUTES[:1]
    for seed in range(5):
        torch.manual_seed(seed)
        found = net.warp(bags, own_BA).item()
        torch.manual_seed(seed)
        with torch.inference_mode():
            order, candidates = torch.randperm(2), torch.randint(5, (2, 20))
            says_VD, items_VD, own_D = net.says(), net.items(), net.attributes(own_BA)[0]
            losses = []
            for place, e in enumerate(order.tolist()):
                positive, other = ((0, 2), (2, 0))[e]
                user_D = says_VD[other] + own_D
                score_V = items_VD @ user_D + net.bias
                tried = [int(item) for item in candidates[place]]
                violating = [k for k, v in enumerate(tried) if v not in (0, 2) and 1 + score_V[v] > score_V[positive]]
                if violating:
                    rank = max(1, 4 // (violating[0] + 1))
                    gap = 1 + score_V[tried[violating[0]]] - score_V[positive]
                    losses.append(np.log1p(rank) * gap.item())
                else:
                    losses.append(0.0)
        assert found == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_positive_far_above_all_others_has_no_loss() -> None:
    net = net_of_five_items()
    with torch.no_grad():
        net.bias[:] = torch.tensor([50.0, 0, 50, 0, 0])
    assert net.warp(next(bags_of(csr_array([[1.0, 0, 1, 0, 0]]), np.arange(1))), ATTRIBUTES[:1]).item() == 0


def test_users_of_several_batches_are_described_in_their_order() -> None:
    hybrid = Hybrid()
    hybrid._net = net_of_five_items()
    few_ND = hybrid.described(COUNTS, ATTRIBUTES.numpy())
    assert few_ND[:, -1].tolist() == [1, 1, 0]
    many_ND = hybrid.described(csr_array(np.tile(COUNTS.toarray(), (200, 1))), np.tile(ATTRIBUTES.numpy(), (200, 1)))
    np.testing.assert_allclose(many_ND, np.tile(few_ND, (200, 1)), atol=1e-5)


def test_attributes_tell_the_groups_of_users_without_a_history() -> None:
    is_odd_U = np.arange(U) % 2
    attributes_UA = np.eye(2, dtype=np.float32)[is_odd_U]
    hybrid = Hybrid(max_steps=160)
    hybrid.fit_counts(counts_of(events_of_groups()), np.zeros((V, 1), np.float32), attributes_UA, seed=3)
    assert hybrid._net is not None
    score_GV = hybrid._net.scores(csr_array((2, V)), torch.eye(2))
    own_group = (score_GV[0] > score_GV[1]) == (np.arange(V) % 2 == 0)
    assert own_group.mean() > 0.9


def test_content_places_an_item_that_was_never_met_next_to_those_of_its_kind() -> None:
    counts = counts_of(events_of_groups()).toarray()
    counts[:, :4] = 0
    content_VC = np.eye(2, dtype=np.float32)[np.arange(V) % 2]
    hybrid = Hybrid(max_steps=160)
    hybrid.fit_counts(csr_array(counts), content_VC, np.zeros((U, 1), np.float32), seed=3)
    assert hybrid._net is not None
    x_UD = hybrid.described(csr_array(counts), np.zeros((U, 1), np.float32))[:, :-1]
    with torch.inference_mode():
        score_UV = x_UD @ hybrid._net.items().numpy().T
    even = score_UV[:, [0, 2]].mean(axis=1) - score_UV[:, [1, 3]].mean(axis=1)
    assert ((even > 0) == (np.arange(U) % 2 == 0)).mean() > 0.9
