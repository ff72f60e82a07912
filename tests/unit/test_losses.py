"""Losses: every block by a plain loop, how much each counts, and rows without a block add nothing."""

import numpy as np
import pytest
import torch

from tests.unit.test_model import inputs, layout_of, part
from userrep import config
from userrep.features.layout import InputLayout
from userrep.features.spec import FeatureSpec
from userrep.features.targets import TargetLayout
from userrep.model.autoencoder import Outputs
from userrep.model.losses import ContrastLoss, FutureLoss, Loss, ReconstructionLoss

pytestmark = pytest.mark.fast

MODEL = config.Model(latent_dim=20, hidden_dim=8, decoder_dim=6)
SPEC = FeatureSpec(
    windows_days=[7, 30], modalities={"behaviour": 5, "content": 3}, onboarding=False, registered_at=False,
    attributes=[], context=[],
)  # fmt: skip
LAYOUT = InputLayout.of(SPEC, {})
TARGETS = TargetLayout.of(LAYOUT, [7, 30])
POOLED = [block for block in TARGETS.blocks if block.kind == "pooled"]


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


# The future


def random_targets(num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(5)
    predicted, target = random.normal(size=(2, num_rows, TARGETS.width)).astype(np.float32)
    for block in TARGETS.blocks:
        if block.kind == "flags":
            target[:, block.start : block.stop] = random.random((num_rows, block.stop - block.start)) < 0.6
    for block in TARGETS.blocks:
        if block.flag is not None:
            target[:, block.start : block.stop] *= target[:, block.flag, None]
    return torch.from_numpy(predicted), torch.from_numpy(target)


def test_the_loss_of_the_future_equals_a_plain_loop_over_rows_and_blocks() -> None:
    predicted_BT, target_BT = random_targets(9)
    expected = []
    for block in TARGETS.blocks:
        total = 0.0
        for p, t, row in zip(
            predicted_BT[:, block.start : block.stop].double().numpy(),
            target_BT[:, block.start : block.stop].double().numpy(),
            target_BT,
            strict=True,
        ):
            if block.kind == "pooled":
                total += (row[block.flag] == 1) and 1 - p @ t / np.linalg.norm(p) / np.linalg.norm(t)
            elif block.kind == "scalar":
                total += (p[0] - t[0]) ** 2
            else:
                chance = 1 / (1 + np.exp(-p))
                total -= np.mean(t * np.log(chance) + (1 - t) * np.log(1 - chance))
        expected.append(total / 9)
    np.testing.assert_allclose(FutureLoss(TARGETS)(predicted_BT, target_BT), expected, rtol=1e-5)


def test_a_kind_of_targets_weighs_the_same_however_many_blocks_it_has() -> None:
    loss = Loss(LAYOUT, TARGETS, MODEL.model_copy(update={"future_weight": 2.0}), 4)
    weights = dict(zip(loss.names, loss.weight_K.tolist(), strict=True))
    by_kind = {
        kind: sum(weights[block.name] for block in TARGETS.blocks if block.kind == kind)
        for kind in ("pooled", "scalar", "flags")
    }
    assert by_kind == pytest.approx({"pooled": 2.0, "scalar": 1.0, "flags": 1.0})
    assert sum(weights[block.name] for block in LAYOUT.blocks) == pytest.approx(1.0)
    assert loss.total(dict.fromkeys(loss.names, 1.0)) == pytest.approx(5.0)


@pytest.mark.parametrize("num_rows", [12, 10, 3])
def test_the_contrast_equals_a_plain_loop_over_the_rows_of_portions(num_rows: int) -> None:
    predicted_BT, target_BT = random_targets(num_rows)
    blocks = [block for block in TARGETS.blocks if block.kind == "pooled"]
    expected = []
    for block in blocks:
        total = 0.0
        for start in range(0, num_rows, 4):
            there = [r for r in range(start, min(start + 4, num_rows)) if target_BT[r, block.flag] == 1]
            p = predicted_BT[:, block.start : block.stop].double().numpy()
            t = target_BT[:, block.start : block.stop].double().numpy()
            for r in there:
                near = [p[r] @ t[s] / np.linalg.norm(p[r]) / np.linalg.norm(t[s]) / 0.1 for s in there]
                total += np.log(np.exp(near).sum()) - near[there.index(r)]
        expected.append(total / num_rows)
    assert max(expected) > 0.5
    np.testing.assert_allclose(ContrastLoss(blocks, 4)(predicted_BT, target_BT), expected, rtol=1e-4)


def test_a_prediction_of_nothing_but_zeros_has_a_finite_gradient() -> None:
    predicted_BT = torch.zeros(4, TARGETS.width, requires_grad=True)
    _, target_BT = random_targets(4)
    pooled = [block for block in TARGETS.blocks if block.kind == "pooled"]
    losses = FutureLoss(TARGETS)(predicted_BT, target_BT), ContrastLoss(pooled, 3)(predicted_BT, target_BT)
    torch.cat(losses).sum().backward()  # type: ignore[no-untyped-call]
    assert predicted_BT.grad is not None
    assert torch.isfinite(predicted_BT.grad).all()


def test_rows_without_a_vector_add_no_loss_and_are_not_used_as_negatives() -> None:
    predicted_BT, target_BT = random_targets(12)
    has_vector = target_BT[:, [block.flag for block in POOLED]] == 1  # type: ignore[index]
    assert 0 < has_vector.sum() < has_vector.numel()
    losses = [FutureLoss(TARGETS), ContrastLoss(POOLED, 4)]
    before = [loss(predicted_BT, target_BT) for loss in losses]
    changed_BT, other_BT = predicted_BT.clone(), target_BT.clone()
    for block in POOLED:
        absent_B = target_BT[:, block.flag] == 0  # type: ignore[index]
        changed_BT[absent_B, block.start : block.stop] = 100.0
        other_BT[absent_B, block.start : block.stop] = -3.0  # would be a negative for all rows
    for loss, was in zip(losses, before, strict=True):
        np.testing.assert_allclose(loss(changed_BT, other_BT), was, rtol=1e-5)


def test_a_right_prediction_costs_nothing_and_an_opposite_one_two() -> None:
    _, target_BT = random_targets(9)
    for block in TARGETS.blocks:
        if block.flag is not None:
            target_BT[:, block.flag] = 1
            target_BT[:, block.start : block.stop] = torch.arange(1.0, 1 + block.stop - block.start)
    per_block = dict(
        zip((block.name for block in TARGETS.blocks), FutureLoss(TARGETS)(3 * target_BT, target_BT), strict=True)
    )
    opposite = dict(
        zip((block.name for block in TARGETS.blocks), FutureLoss(TARGETS)(-target_BT, target_BT), strict=True)
    )
    for block in POOLED:
        assert per_block[block.name].item() == pytest.approx(0, abs=1e-6)  # only the direction is judged
        assert opposite[block.name].item() == pytest.approx(2, abs=1e-6)


# All losses together


def outputs_and_targets(num_rows: int) -> tuple[Outputs, torch.Tensor, torch.Tensor]:
    predicted_BT, future_BT = random_targets(num_rows)
    target_BF = torch.from_numpy(inputs(LAYOUT, num_rows))
    return Outputs(target_BF + 0.5, predicted_BT), target_BF, future_BT


def test_losses_are_those_of_their_parts_in_the_order_of_the_names() -> None:
    outputs, target_BF, future_BT = outputs_and_targets(8)
    loss = Loss(LAYOUT, TARGETS, MODEL.model_copy(update={"contrast_weight": 0.5}), 4)
    found = dict(zip(loss.names, loss(outputs, target_BF, future_BT), strict=True))
    for block in LAYOUT.blocks:
        assert found[block.name].item() == pytest.approx(0.25)
    want = dict(
        zip([block.name for block in TARGETS.blocks], FutureLoss(TARGETS)(*outputs[1:], future_BT), strict=True)
    )
    apart = ContrastLoss(POOLED, 4)(outputs.future_BT, future_BT)
    names = [f"{name}_apart_{days}d" for days in (7, 30) for name in ("behaviour", "content")]
    want |= dict(zip(names, apart, strict=True))
    assert {name: value.item() for name, value in want.items()} == {name: found[name].item() for name in want}


def test_the_contrast_losses_of_all_vectors_together_have_the_configured_weight() -> None:
    loss = Loss(LAYOUT, TARGETS, MODEL.model_copy(update={"contrast_weight": 0.5}), 4)
    weights = dict(zip(loss.names, loss.weight_K.tolist(), strict=True))
    apart = [weight for name, weight in weights.items() if "_apart_" in name]
    assert apart == [pytest.approx(0.5 / 4)] * 4
    without = Loss(LAYOUT, TARGETS, MODEL, 4)
    assert not [name for name in without.names if "_apart_" in name]
    assert without.total(dict.fromkeys(without.names, 1.0)) == pytest.approx(3.0)


def test_the_loss_that_is_trained_on_is_the_weighted_sum_of_all() -> None:
    outputs, target_BF, future_BT = outputs_and_targets(8)
    loss = Loss(LAYOUT, TARGETS, MODEL.model_copy(update={"contrast_weight": 0.5}), 4)
    per_block_K = loss(outputs, target_BF, future_BT)
    by_name = dict(zip(loss.names, per_block_K.tolist(), strict=True))
    assert loss.total(by_name) == pytest.approx(float(per_block_K @ loss.weight_K), rel=1e-5)


def test_a_plain_autoencoder_is_judged_by_its_reconstruction() -> None:
    outputs, target_BF, _ = outputs_and_targets(8)
    nothing = torch.zeros(8, 0)
    loss = Loss(LAYOUT, TargetLayout(blocks=[]), MODEL, 4)
    assert loss.names == [block.name for block in LAYOUT.blocks]
    found = loss(outputs._replace(future_BT=nothing), target_BF, nothing)
    np.testing.assert_allclose(found, 0.25, rtol=1e-5)
    assert loss.total(dict.fromkeys(loss.names, 2.0)) == pytest.approx(2.0)
