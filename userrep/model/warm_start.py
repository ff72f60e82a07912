"""Warm start: training begins with the weights of an earlier space, as far as inputs and layer widths match.

Every space has its own input scaler. The difference between two scalers is folded into weights and biases, so the
network computes the same function of the raw inputs as before. The exception is pooled vectors: they are scaled to
directions from a mean, and no weight can compensate for a mean that moves between spaces.
Shapes: E inputs of the earlier space, F inputs of the new one, H units of a layer.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from userrep import config
from userrep.features.layout import UNKNOWN, Block, InputLayout, Scaler
from userrep.features.targets import TargetLayout
from userrep.model.artifact import Artifact, SpaceManifest
from userrep.model.autoencoder import Autoencoder
from userrep.model.tensor_file import Tensors
from userrep.model.weights import weight_shapes

_ENCODER = ["encoder_linear", "encoder_hidden", "encoder_latent"]
_DECODER, _FUTURE = ["decoder_hidden", "decoder_output"], ["item_query", "item_worth", "next_days"]
_MAX_LISTED = 5  # vocabulary values named in one line
Matrix = NDArray[np.float64]


class WarmStart(NamedTuple):
    """Initial weights of a training.

    ``tensors`` are float32, as in ``weight_shapes``. ``carried`` names the layers, then the blocks, taken from the
    earlier space. ``fresh`` has one line, with the reason, for each layer, block or vocabulary value that is not.
    """

    tensors: Tensors
    carried: list[str]
    fresh: list[str]


class _BlockPair(NamedTuple):
    """A block of both spaces, and the matrices that turn raw inputs of one space into those of the other."""

    earlier: Block
    new: Block
    earlier_from_new: Matrix
    new_from_earlier: Matrix


class _Transfer(NamedTuple):
    """What connects the inputs of both spaces. The scalers are limited to what weights can absorb (``_foldable``)."""

    earlier: Artifact
    layout: InputLayout
    earlier_scaler: Scaler
    new_scaler: Scaler
    pairs: list[_BlockPair]


def warm_start(
    earlier: Artifact,
    *,
    layout: InputLayout,
    targets: TargetLayout,
    scaler: Scaler,
    model: config.Model,
    same_items: bool,
    seed: int,
) -> WarmStart:
    """Carry over the weights of an earlier space. All others are drawn from ``seed``, as in a cold start.

    - Layers: the encoder if its widths match, then the decoder if its width matches. The predictions of the next days
      if the targets are equal; their targets keep the earlier scale. Propensities are always fitted again.
    - Blocks of the first and last layer: those of equal name, kind and width; pooled ones only with ``same_items``,
      that is, with item vectors of the same lineage. Flags are always carried over.
    - Vocabularies: value by value. A new value starts with the weights of ``(other)``, which counted it before.
    - In a linear encoder, new inputs start at zero. A dropped block counts as absent or, without a flag, as its mean.

    Inputs beyond ``CLIP`` and pooled vectors are not reproduced exactly. Memory: a few float64 copies of the weights.
    """
    drawn = Autoencoder(layout, model, targets, seed=seed)
    tensors = {name: tensor.numpy() for name, tensor in drawn.state_dict().items()}
    layers, fresh = _matching_layers(earlier.manifest, layout, targets, model, same_items=same_items)
    if not layers:
        return WarmStart(tensors, [], fresh)
    pairs, fresh_blocks = _matching_blocks(earlier.manifest, layout, scaler, same_items=same_items)
    transfer = _Transfer(earlier, layout, _foldable(earlier.scaler, earlier.layout), _foldable(scaler, layout), pairs)
    for layer in layers:
        if layer in ("encoder_linear", "encoder_hidden"):
            tensors |= _first_layer(transfer, tensors, layer)
        elif layer == "decoder_output":
            tensors |= _last_layer(transfer, tensors)
        else:
            parts = [f"{layer}.{part}" for part in ("weight", "bias")]
            tensors |= {name: earlier.tensors[name].copy() for name in parts if name in tensors}
    return WarmStart(tensors, [*layers, *(pair.new.name for pair in pairs)], fresh + fresh_blocks)


def _matching_layers(
    earlier: SpaceManifest, layout: InputLayout, targets: TargetLayout, model: config.Model, *, same_items: bool
) -> tuple[list[str], list[str]]:
    """Return the layers to carry over, and a line for each group of layers that starts fresh."""
    shapes = weight_shapes(layout, model, targets)
    earlier_shapes = weight_shapes(earlier.layout, earlier.model, earlier.targets)
    encoder, decoder, future = (
        [layer for layer in group if f"{layer}.weight" in shapes] for group in (_ENCODER, _DECODER, _FUTURE)
    )
    num_learned, earlier_learned = (each["encoder_linear.bias"][0] for each in (shapes, earlier_shapes))
    reasons = [
        f"model.{key} is {getattr(model, key)}, {earlier.space_id} has {getattr(earlier.model, key)}"
        for key in ("latent_dim", "hidden_dim")
        if getattr(model, key) != getattr(earlier.model, key)
    ]
    if num_learned != earlier_learned:
        reasons.append(f"{num_learned} learned dimensions, {earlier.space_id} has {earlier_learned}")
    if reasons:
        return [], [f"{', '.join([*encoder, *decoder, *future])}: fresh, {reasons[0]}"]
    layers, lines = encoder, []
    if model.decoder_dim == earlier.model.decoder_dim:
        layers += decoder
    else:
        reason = f"model.decoder_dim is {model.decoder_dim}, {earlier.space_id} has {earlier.model.decoder_dim}"
        lines.append(f"{', '.join(decoder)}: fresh, {reason}")
    if same_items and targets == earlier.targets and all(f"{layer}.weight" in earlier_shapes for layer in future):
        layers += future
    elif future:
        lines.append(f"{', '.join(future)}: fresh, {earlier.space_id} has other targets")
    return layers, lines


def _matching_blocks(
    earlier: SpaceManifest, layout: InputLayout, scaler: Scaler, *, same_items: bool
) -> tuple[list[_BlockPair], list[str]]:
    """Return the blocks to carry over, and a line for each block and vocabulary value that differs."""
    space_id, earlier_blocks = earlier.space_id, {block.name: block for block in earlier.layout.blocks[:-1]}
    pairs, lines = [], []
    for block in layout.blocks[:-1]:
        before = earlier_blocks.pop(block.name, None)
        width, earlier_width = (each.stop - each.start for each in (block, before or block))
        values, earlier_values = layout.vocabulary.get(block.name), earlier.layout.vocabulary.get(block.name)
        if before is None:
            lines.append(f"{block.name}: fresh, {space_id} does not have it")
        elif block.kind == "pooled" and not same_items:
            lines.append(f"{block.name}: fresh, {space_id} has item vectors of another lineage, {earlier.lineage_id}")
        elif values is not None and earlier_values is not None:
            center = scaler.center_F[_columns(block)].astype(np.float64)
            pairs.append(_BlockPair(before, block, *_value_matrices(values, earlier_values, center)))
            lines += _changed_values(block.name, values, earlier_values)
        elif (block.kind, width) != (before.kind, earlier_width):
            kinds = f"{block.kind} of width {width}, {space_id} has {before.kind} of width {earlier_width}"
            lines.append(f"{block.name}: fresh, {kinds}")
        else:
            pairs.append(_BlockPair(before, block, np.eye(width), np.eye(width)))
    return pairs, lines + [f"{name}: dropped, only {space_id} has it" for name in earlier_blocks]


def _value_matrices(values: list[str], earlier_values: list[str], center: Matrix) -> tuple[Matrix, Matrix]:
    """Return the matrices between the raw inputs of two vocabularies; ``center`` is the frequency of each new value.

    The earlier ``(other)`` is the sum of the new ``(other)`` and of the values added since. It is divided among them
    in proportion to their frequencies. A value that was removed counts as ``(other)``.
    """
    earlier_from_new = np.zeros((len(earlier_values), len(values)))
    new_from_earlier = np.zeros((len(values), len(earlier_values)))
    other, earlier_other = values.index(UNKNOWN), earlier_values.index(UNKNOWN)
    index, earlier_index = ({value: k for k, value in enumerate(each)} for each in (values, earlier_values))
    for value, k in index.items():
        earlier_from_new[earlier_index.get(value, earlier_other), k] = 1
    for value, k in earlier_index.items():
        new_from_earlier[index.get(value, other), k] = 1
    shares = earlier_from_new[earlier_other] * center
    if shares.sum() > 0:
        new_from_earlier[:, earlier_other] = shares / shares.sum()
    return earlier_from_new, new_from_earlier


def _changed_values(name: str, values: list[str], earlier_values: list[str]) -> list[str]:
    changes = {
        "new, initialized from (other)": [value for value in values if value not in earlier_values],
        "removed, counted as (other)": [value for value in earlier_values if value not in values],
    }
    return [f"{name}: {_listed(changed)}: {change}" for change, changed in changes.items() if changed]


def _listed(values: list[str]) -> str:
    more = f" and {len(values) - _MAX_LISTED} more" if len(values) > _MAX_LISTED else ""
    return ", ".join(values[:_MAX_LISTED]) + more


def _first_layer(transfer: _Transfer, drawn: Tensors, layer: str) -> Tensors:
    """Return weight and bias of a layer on inputs, in the new scale; drawn weights where nothing is carried over.

    If a user has a block, the earlier input is ``(raw - center) / scale``, and raw is ``center_F + scale_F * x``. The
    constant term goes into the bias or, as absent blocks are zero in both spaces, into the weight of the block's flag.
    """
    before, now = transfer.earlier_scaler, transfer.new_scaler
    weight_HE, bias_H = _float64_parameters(transfer.earlier, layer)
    weight_HF = drawn[f"{layer}.weight"].astype(np.float64) * (layer == "encoder_hidden")
    flags_E, flags_F = _flags(transfer.earlier.layout, transfer.layout)
    weight_HF[:, flags_F] = weight_HE[:, flags_E]
    for pair in transfer.pairs:
        earlier, new = _columns(pair.earlier), _columns(pair.new)
        raw_weight = weight_HE[:, earlier] / before.scale_F[earlier]
        weight_HF[:, new] = raw_weight @ pair.earlier_from_new * now.scale_F[new]
        constant_H = raw_weight @ (pair.earlier_from_new @ now.center_F[new] - before.center_F[earlier])
        if pair.new.flag is None:
            bias_H += constant_H
        else:
            weight_HF[:, pair.new.flag] += constant_H
    return {f"{layer}.weight": weight_HF.astype(np.float32), f"{layer}.bias": bias_H.astype(np.float32)}


def _last_layer(transfer: _Transfer, drawn: Tensors) -> Tensors:
    """Return weight and bias of the reconstruction in the new scale. Raw inputs are ``center + scale * output``."""
    before, now = transfer.earlier_scaler, transfer.new_scaler
    weight_EH, bias_E = _float64_parameters(transfer.earlier, "decoder_output")
    weight_FH, bias_F = (drawn[f"decoder_output.{name}"].astype(np.float64) for name in ("weight", "bias"))
    flags_E, flags_F = _flags(transfer.earlier.layout, transfer.layout)
    weight_FH[flags_F], bias_F[flags_F] = weight_EH[flags_E], bias_E[flags_E]
    for pair in transfer.pairs:
        earlier, new = _columns(pair.earlier), _columns(pair.new)
        scale = now.scale_F[new].astype(np.float64)
        raw_bias = before.center_F[earlier] + before.scale_F[earlier] * bias_E[earlier]
        weight_FH[new] = (pair.new_from_earlier * before.scale_F[earlier]) @ weight_EH[earlier] / scale[:, None]
        bias_F[new] = (pair.new_from_earlier @ raw_bias - now.center_F[new]) / scale
    return {"decoder_output.weight": weight_FH.astype(np.float32), "decoder_output.bias": bias_F.astype(np.float32)}


def _foldable(scaler: Scaler, layout: InputLayout) -> Scaler:
    """Return a scaler that leaves pooled vectors unscaled: their weights act on directions and are kept as they are."""
    center_F, scale_F = scaler.center_F.copy(), scaler.scale_F.copy()
    for block in layout.blocks:
        if block.kind == "pooled":
            center_F[_columns(block)], scale_F[_columns(block)] = 0, 1
    return Scaler(center_F=center_F, scale_F=scale_F)


def _float64_parameters(earlier: Artifact, layer: str) -> tuple[Matrix, Matrix]:
    weight, bias = (earlier.tensors[f"{layer}.{name}"].astype(np.float64) for name in ("weight", "bias"))
    return weight, bias


def _flags(earlier: InputLayout, layout: InputLayout) -> tuple[list[int], list[int]]:
    """Return the earlier and the new flag columns of the blocks that both spaces have. Flags are not scaled."""
    earlier_flags = {block.name: block.flag for block in earlier.blocks if block.flag is not None}
    shared = [(earlier_flags[b.name], b.flag) for b in layout.blocks if b.flag is not None and b.name in earlier_flags]
    return [flag for flag, _ in shared], [flag for _, flag in shared]


def _columns(block: Block) -> slice:
    return slice(block.start, block.stop)
