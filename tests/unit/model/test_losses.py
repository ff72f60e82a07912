"""Losses: every block by a plain loop, how much each counts, and rows without a block add nothing."""

import numpy as np
import pytest
import torch

from tests.unit.inference.test_model import NO_TARGETS, PAPER, inputs, layout_of, part
from userrep import config
from userrep.features.layout import InputLayout
from userrep.features.spec import FeatureSpec
from userrep.features.targets import TargetLayout
from userrep.model.autoencoder import Outputs
from userrep.model.losses import Loss, NextDaysLoss, NextItemsLoss, ReconstructionLoss

pytestmark = pytest.mark.fast

MODEL = config.Model(latent_dim=20, hidden_dim=8, decoder_dim=6)
SPEC = FeatureSpec(
    windows_days=[7, 30], modalities={"behaviour": 5, "content": 3}, onboarding=False, registered_at=False,
    attributes=[], context=[],
)  # fmt: skip
LAYOUT = InputLayout.of(SPEC, {})
TARGETS = TargetLayout.of(SPEC, [7, 30])


# Reconstruction


def test_a_wide_block_and_a_single_number_weigh_the_same() -> None:
    layout = layout_of(dim=80)
    target_BF = torch.from_numpy(inputs(layout, 16))
    loss = ReconstructionLoss(layout)
    losses = {}
    for name in ("behaviour_7d", "num_events_7d", "flags"):
        reconstruction_BF = target_BF.clone()
        reconstruction_BF[:, part(layout, name)] += 0.5
        losses[name] = loss(reconstruction_BF, target_BF).mean().item()
    np.testing.assert_allclose(list(losses.values()), 0.25 / len(layout.blocks), rtol=1e-5)


def test_a_block_is_judged_where_it_is_present_and_divided_by_all_rows() -> None:
    layout = layout_of()
    target_BF = torch.from_numpy(inputs(layout, 4))
    k = [b.name for b in layout.blocks].index("behaviour_7d")
    target_BF[1:, layout.blocks[k].flag] = 0
    reconstruction_BF = target_BF.clone()
    reconstruction_BF[:, part(layout, "behaviour_7d")] += 1
    per_block_K = ReconstructionLoss(layout)(reconstruction_BF, target_BF)
    assert per_block_K.tolist() == pytest.approx([1 / 4 if j == k else 0 for j in range(len(layout.blocks))])


def test_the_loss_equals_a_plain_loop_over_rows_and_blocks() -> None:
    layout, random = layout_of(), np.random.default_rng(3)
    target_BF = inputs(layout, 8)
    target_BF[:, layout.blocks[-1].start :] = random.random((8, target_BF.shape[1] - layout.blocks[-1].start)) < 0.5
    reconstruction_BF = random.normal(size=target_BF.shape).astype(np.float32)
    expected = [
        sum(
            np.mean((reconstruction_BF[r, b.start : b.stop] - target_BF[r, b.start : b.stop]) ** 2)
            for r in range(8)
            if b.flag is None or target_BF[r, b.flag] == 1
        )
        / 8
        for b in layout.blocks
    ]
    per_block_K = ReconstructionLoss(layout)(torch.from_numpy(reconstruction_BF), torch.from_numpy(target_BF))
    np.testing.assert_allclose(per_block_K, expected, rtol=1e-5)


def test_what_is_reconstructed_of_an_absent_block_is_not_judged() -> None:
    layout = layout_of()
    target_BF = torch.from_numpy(inputs(layout, 6))
    absent = next(block for block in layout.blocks if block.name == "days_since_last_event")
    target_BF[::2, absent.flag] = 0
    reconstruction_BF = torch.zeros_like(target_BF, requires_grad=True)
    ReconstructionLoss(layout)(reconstruction_BF, target_BF).sum().backward()
    assert reconstruction_BF.grad is not None
    assert not reconstruction_BF.grad[::2, absent.start : absent.stop].any()
    assert reconstruction_BF.grad[1::2, absent.start : absent.stop].all()


# The next items


def random_targets(num_rows: int) -> tuple[dict[str, np.ndarray], torch.Tensor, list[list[int]]]:
    """Draw two dates' items, and rows with the items that each takes of them; a third of the rows take none."""
    random = np.random.default_rng(5)
    candidates: dict[str, np.ndarray] = {}
    for d, num_items in enumerate((7, 4)):
        candidates[f"vector_{d}"] = random.normal(size=(num_items, TARGETS.item_width)).astype(np.float32)
        candidates[f"log_share_{d}"] = np.log(random.dirichlet(np.ones(num_items))).astype(np.float32)
    target_BT = random.normal(size=(num_rows, TARGETS.width)).astype(np.float32)
    taken = []
    for row, target_T in enumerate(target_BT):
        place, vectors = row % 2, candidates[f"vector_{row % 2}"]
        items = [] if row % 3 == 0 else random.integers(0, len(vectors), 1 + row % 4).tolist()
        target_T[: TARGETS.item_width] = vectors[items].mean(axis=0) if items else 0
        target_T[TARGETS.items.start : TARGETS.items.stop] = len(items), place
        taken.append(items)
    for block in TARGETS.blocks:
        if block.kind == "flags":
            target_BT[:, block.start] = random.random(num_rows) < 0.6
    return candidates, torch.from_numpy(target_BT), taken


def test_the_loss_of_the_next_items_equals_a_plain_loop_over_rows_and_their_items() -> None:
    candidates, target_BT, taken = random_targets(12)
    random = np.random.default_rng(6)
    query_BE, worth_E = random.normal(size=(12, TARGETS.item_width)), random.normal(size=TARGETS.item_width)
    squares = [np.square(candidates[f"vector_{d}"]).sum(axis=1).mean() for d in (0, 1)]
    total = 0.0
    for row, items in enumerate(taken):
        vectors, share = candidates[f"vector_{row % 2}"], np.exp(candidates[f"log_share_{row % 2}"])
        score = vectors @ (query_BE[row] + worth_E) / np.sqrt(np.mean(squares))
        chance = share * np.exp(score) / (share * np.exp(score)).sum()
        total -= sum(np.log(chance[item] / share[item]) for item in items) / 2.5  # a row weighs as many as it takes
    loss = NextItemsLoss(TARGETS, candidates, row_weight=2.5)
    found = loss(*(torch.from_numpy(part.astype(np.float32)) for part in (query_BE, worth_E)), target_BT)
    np.testing.assert_allclose(found, [total / 12], rtol=1e-4)


def test_a_user_without_next_items_has_no_loss_of_items_and_a_finite_gradient() -> None:
    candidates, target_BT, _ = random_targets(12)
    query_BE = torch.zeros(12, TARGETS.item_width, requires_grad=True)
    loss = NextItemsLoss(TARGETS, candidates, row_weight=1.0)(query_BE, torch.zeros(TARGETS.item_width), target_BT)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    loss.sum().backward()
    assert query_BE.grad is not None
    assert torch.isfinite(query_BE.grad).all()
    assert query_BE.grad[1].any()
    assert not query_BE.grad[::3].any()  # they take nothing


def test_a_date_without_a_known_item_adds_nothing() -> None:
    candidates, target_BT, _ = random_targets(12)
    query_BE, worth_E = torch.ones(12, TARGETS.item_width), torch.ones(TARGETS.item_width)
    without = {name: tensor[:0] if name.endswith("_1") else tensor for name, tensor in candidates.items()}
    target_BT[::2, TARGETS.items.start] = 0  # no row of the other date
    assert NextItemsLoss(TARGETS, without, 1.0)(query_BE, worth_E, target_BT).tolist() == [0]


# The next days


def test_counts_are_judged_by_squares_and_flags_by_cross_entropy() -> None:
    _, target_BT, _ = random_targets(9)
    predicted_BN = torch.from_numpy(np.random.default_rng(7).normal(size=(9, 8)).astype(np.float32))
    expected = []
    for n, block in enumerate(TARGETS.numbers):
        p, t = predicted_BN[:, n].double().numpy(), target_BT[:, block.start].double().numpy()
        chance = 1 / (1 + np.exp(-p))
        losses = (p - t) ** 2 if block.kind == "scalar" else -np.log(np.where(t == 1, chance, 1 - chance))
        expected.append(losses.mean())
    np.testing.assert_allclose(NextDaysLoss(TARGETS)(predicted_BN, target_BT), expected, rtol=1e-5)


# All losses together


def loss_of(**weights: float) -> Loss:
    return Loss(LAYOUT, TARGETS, MODEL.model_copy(update=weights), random_targets(4)[0], 1.0)


def outputs_and_targets(num_rows: int) -> tuple[Outputs, torch.Tensor, torch.Tensor]:
    _, future_BT, _ = random_targets(num_rows)
    target_BF, random = torch.from_numpy(inputs(LAYOUT, num_rows)), np.random.default_rng(8)
    shapes = ((num_rows, TARGETS.item_width), (TARGETS.item_width,), (num_rows, len(TARGETS.numbers)))
    drawn = (torch.from_numpy(random.normal(size=shape).astype(np.float32)) for shape in shapes)
    return Outputs(target_BF + 0.5, *drawn), target_BF, future_BT


def test_losses_are_those_of_their_parts_in_the_order_of_the_names() -> None:
    outputs, target_BF, future_BT = outputs_and_targets(8)
    loss = loss_of()
    found = dict(zip(loss.names, loss(outputs, target_BF, future_BT).tolist(), strict=True))
    assert [found[block.name] for block in LAYOUT.blocks] == pytest.approx([0.25] * len(LAYOUT.blocks))
    items = NextItemsLoss(TARGETS, random_targets(4)[0], 1.0)(outputs.query_BE, outputs.worth_E, future_BT)
    assert found["items_next_7d"] == pytest.approx(items.item())
    days = NextDaysLoss(TARGETS)(outputs.next_days_BN, future_BT).tolist()
    assert [found[block.name] for block in TARGETS.numbers] == pytest.approx(days)


def test_each_part_has_its_weight_however_many_blocks_it_has() -> None:
    loss = loss_of(reconstruction_weight=3.0, next_items_weight=5.0, next_days_weight=7.0)
    weights = dict(zip(loss.names, loss.weight_K.tolist(), strict=True))
    assert sum(weights[block.name] for block in LAYOUT.blocks) == pytest.approx(3.0)
    assert weights["items_next_7d"] == 5.0
    for kind in ("scalar", "flags"):
        assert sum(weights[b.name] for b in TARGETS.numbers if b.kind == kind) == pytest.approx(7.0)
    assert loss.total(dict.fromkeys(loss.names, 1.0)) == pytest.approx(3 + 5 + 2 * 7)


def test_the_loss_that_is_trained_on_is_the_weighted_sum_of_all() -> None:
    loss = loss_of(next_items_weight=0.3)
    loss_K = loss(*outputs_and_targets(8))
    by_name = dict(zip(loss.names, loss_K.tolist(), strict=True))
    assert loss.total(by_name) == pytest.approx(float(loss_K @ loss.weight_K), rel=1e-5)


def test_a_plain_autoencoder_is_judged_by_its_reconstruction() -> None:
    outputs, target_BF, _ = outputs_and_targets(8)
    for loss in (Loss(LAYOUT, NO_TARGETS, PAPER, {}, 1.0), Loss(LAYOUT, TARGETS, PAPER, {}, 1.0)):
        assert loss.names == [block.name for block in LAYOUT.blocks]
        np.testing.assert_allclose(loss(outputs, target_BF, torch.zeros(8, 0)), 0.25, rtol=1e-5)
        assert loss.total(dict.fromkeys(loss.names, 2.0)) == pytest.approx(2.0)
