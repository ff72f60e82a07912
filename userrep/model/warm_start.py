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
from userrep.errors import shortened
from userrep.features.layout import UNKNOWN, VECTORS, Block, InputLayout, Scaler
from userrep.features.targets import TargetLayout
from userrep.model.artifact import Artifact, SpaceManifest
from userrep.model.autoencoder import drawn_weights
from userrep.model.frozen_folder import Tensors
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


class _InputMaps(NamedTuple):
    """Scaled inputs of one space as linear functions of those of the other; the last column of both is the constant.

    ``earlier``: E x (F + 1). ``new``: F x (E + 1). ``is_carried_F``: the new inputs that have an earlier counterpart.
    """

    earlier: Matrix
    new: Matrix
    is_carried_F: NDArray[np.bool_]


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
    """Carry over the weights of an earlier space. All others are drawn from ``seed``.

    - Layers: the encoder if its widths match, then the decoder if its width matches. The predictions of the next days
      if the targets are equal; their targets keep the earlier scale. Tastes and propensities are always fitted again.
    - Blocks of the first and last layer: those of equal name, kind and width; mean item vectors only with
      ``same_items``, that is, if these are of the same lineage. Flags are always carried over.
    - Vocabularies: value by value. A new value starts with the weights of ``(other)``, which counted it before.
    - In a linear encoder, new inputs start at zero. A dropped block counts as absent or, without a flag, as its mean.

    Inputs beyond ``CLIP`` and pooled vectors are not reproduced exactly. Memory: a few float64 copies of the weights.
    """
    tensors = drawn_weights(layout, model, targets, seed=seed)
    layers, fresh = _matching_layers(earlier.manifest, layout, targets, model, same_items=same_items)
    if not layers:
        return WarmStart(tensors, [], fresh)
    pairs, fresh_blocks = _matching_blocks(earlier.manifest, layout, scaler, same_items=same_items)
    maps = _input_maps(earlier, layout, scaler, pairs)
    for layer in layers:
        parts = [name for name in (f"{layer}.weight", f"{layer}.bias") if name in tensors]
        carried = [earlier.tensors[name].astype(np.float64) for name in parts]
        if layer in ("encoder_linear", "encoder_hidden"):
            fresh_HF = tensors[parts[0]].astype(np.float64) * (layer == "encoder_hidden")
            carried = _first_layer(maps, carried[0], carried[1], fresh_HF)
        elif layer == "decoder_output":
            carried = _last_layer(maps, *carried, *(tensors[name] for name in parts))
        tensors |= {name: tensor.astype(np.float32) for name, tensor in zip(parts, carried, strict=True)}
    return WarmStart(tensors, [*layers, *(pair.new.name for pair in pairs)], fresh + fresh_blocks)


def _matching_layers(
    earlier: SpaceManifest, layout: InputLayout, targets: TargetLayout, model: config.Model, *, same_items: bool
) -> tuple[list[str], list[str]]:
    """Return the layers to carry over, and a line for each group of layers that starts fresh."""
    shapes = weight_shapes(layout, model, targets)
    earlier_shapes = weight_shapes(earlier.layout, earlier.model, earlier.targets)
    groups = [[layer for layer in group if f"{layer}.weight" in shapes] for group in (_ENCODER, _DECODER, _FUTURE)]
    num_learned, earlier_learned = (each["encoder_linear.bias"][0] for each in (shapes, earlier_shapes))
    other_widths = {
        key: f"model.{key} is {getattr(model, key)}, {earlier.space_id} has {getattr(earlier.model, key)}"
        for key in ("latent_dim", "hidden_dim", "decoder_dim")
        if getattr(model, key) != getattr(earlier.model, key)
    }
    reason = other_widths.get("latent_dim") or other_widths.get("hidden_dim")
    if reason is None and num_learned != earlier_learned:
        reason = f"{num_learned} learned dimensions, {earlier.space_id} has {earlier_learned}"
    if reason:
        return [], [f"{', '.join(layer for group in groups for layer in group)}: fresh, {reason}"]
    has_future = all(f"{layer}.weight" in earlier_shapes for layer in groups[-1])
    same_targets = same_items and targets == earlier.targets and has_future
    reasons = None, other_widths.get("decoder_dim"), None if same_targets else f"{earlier.space_id} has other targets"
    with_reasons = [(group, reason) for group, reason in zip(groups, reasons, strict=True) if group]
    layers = [layer for group, reason in with_reasons if reason is None for layer in group]
    return layers, [f"{', '.join(group)}: fresh, {reason}" for group, reason in with_reasons if reason is not None]


def _matching_blocks(
    earlier: SpaceManifest, layout: InputLayout, scaler: Scaler, *, same_items: bool
) -> tuple[list[_BlockPair], list[str]]:
    """Return the blocks to carry over, and a line for each block and vocabulary value that differs."""
    space_id, earlier_blocks = earlier.space_id, {block.name: block for block in earlier.layout.blocks[:-1]}
    pairs, lines = [], []
    for block in layout.blocks[:-1]:
        before = earlier_blocks.pop(block.name, None)
        width, earlier_width = (each.width for each in (block, before or block))
        values, earlier_values = layout.vocabulary.get(block.name), earlier.layout.vocabulary.get(block.name)
        if before is None:
            lines.append(f"{block.name}: fresh, {space_id} does not have it")
        elif block.kind in VECTORS and not same_items:
            lines.append(f"{block.name}: fresh, {space_id} has item vectors of another lineage, {earlier.lineage_id}")
        elif values is not None and earlier_values is not None:
            center, _ = _scaling(block, scaler)
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
    earlier_from_new[[earlier_index.get(value, earlier_other) for value in values], np.arange(len(values))] = 1
    new_from_earlier[[index.get(value, other) for value in earlier_values], np.arange(len(earlier_values))] = 1
    shares = earlier_from_new[earlier_other] * center
    if shares.sum() > 0:
        new_from_earlier[:, earlier_other] = shares / shares.sum()
    return earlier_from_new, new_from_earlier


def _changed_values(name: str, values: list[str], earlier_values: list[str]) -> list[str]:
    changes = {
        "new, initialized from (other)": [value for value in values if value not in earlier_values],
        "removed, counted as (other)": [value for value in earlier_values if value not in values],
    }
    return [
        f"{name}: {shortened(changed, most=_MAX_LISTED)}: {change}" for change, changed in changes.items() if changed
    ]


def _input_maps(earlier: Artifact, layout: InputLayout, scaler: Scaler, pairs: list[_BlockPair]) -> _InputMaps:
    """Combine the blocks' matrices with both scalers: raw inputs are ``center + scale * x``.

    Absent blocks are zero in both spaces, so the constant of a block with a flag is multiplied by its flag. Flags are
    not scaled. Inputs without a counterpart have zeros.
    """
    maps = _InputMaps(
        np.zeros((earlier.layout.width, layout.width + 1)),
        np.zeros((layout.width, earlier.layout.width + 1)),
        np.zeros(layout.width, bool),
    )
    earlier_flags = {block.name: block.flag for block in earlier.layout.blocks}
    for block in layout.blocks:
        earlier_flag = earlier_flags.get(block.name)
        if earlier_flag is not None and block.flag is not None:
            maps.earlier[earlier_flag, block.flag] = maps.new[block.flag, earlier_flag] = 1
            maps.is_carried_F[block.flag] = True
    for pair in pairs:
        old, new = pair.earlier.inputs, pair.new.inputs
        old_center, old_scale = _scaling(pair.earlier, earlier.scaler)
        new_center, new_scale = _scaling(pair.new, scaler)
        constant = -1 if pair.new.flag is None else pair.new.flag
        maps.earlier[old, new] = pair.earlier_from_new * new_scale / old_scale[:, None]
        maps.earlier[old, constant] = (pair.earlier_from_new @ new_center - old_center) / old_scale
        maps.new[new, old] = pair.new_from_earlier * old_scale / new_scale[:, None]
        maps.new[new, -1] = (pair.new_from_earlier @ old_center - new_center) / new_scale
        maps.is_carried_F[new] = True
    return maps


def _first_layer(maps: _InputMaps, weight_HE: Matrix, bias_H: Matrix, fresh_HF: Matrix) -> list[Matrix]:
    """Return weight and bias of a layer on inputs, in the new scale; ``fresh_HF`` for inputs that are not carried."""
    wide_HF1 = weight_HE @ maps.earlier
    return [np.where(maps.is_carried_F, wide_HF1[:, :-1], fresh_HF), bias_H + wide_HF1[:, -1]]


def _last_layer(maps: _InputMaps, weight_EH: Matrix, bias_E: Matrix, fresh_FH: Matrix, fresh_F: Matrix) -> list[Matrix]:
    """Return weight and bias of the reconstruction, in the new scale; fresh ones for inputs that are not carried."""
    weight_FH, bias_F = maps.new[:, :-1] @ weight_EH, maps.new[:, :-1] @ bias_E + maps.new[:, -1]
    is_carried_F = maps.is_carried_F
    return [np.where(is_carried_F[:, None], weight_FH, fresh_FH), np.where(is_carried_F, bias_F, fresh_F)]


def _scaling(block: Block, scaler: Scaler) -> tuple[Matrix, Matrix]:
    """Return a block's center and scale: 0 and 1 for pooled vectors, because their weights act on directions."""
    if block.kind == "pooled":
        return np.zeros(block.width), np.ones(block.width)
    return scaler.center_F[block.inputs].astype(np.float64), scaler.scale_F[block.inputs].astype(np.float64)
