"""A warm start: a training begins with an earlier space's weights, as far as inputs and widths allow.

Inputs are scaled anew for every space. The change of centre and scale is folded into weights and biases, so that the
network computes the same function of raw inputs as before: but for the directions of pooled vectors, which are taken
from a mean that has moved a little.
Shapes: E inputs of the earlier space, F inputs of the new one, H hidden units, L learned dimensions.
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
_SHOWN = 5  # values of a vocabulary in one line
Matrix = NDArray[np.float64]


class WarmStart(NamedTuple):
    """What a training begins with.

    ``tensors``: float32, of ``weight_shapes``. ``carried``: layers, then blocks that go on from the earlier space.
    ``fresh``: one line for each layer, block or value that does not, and why.
    """

    tensors: Tensors
    carried: list[str]
    fresh: list[str]


class _Pair(NamedTuple):
    """A block of both spaces, and how the raw inputs of one are made of the other's."""

    there: Block
    here: Block
    there_by_here: Matrix
    here_by_there: Matrix


class _Change(NamedTuple):
    """From an earlier space to the inputs of a new one; ``pairs``: the blocks to carry.

    ``before``, ``now``: the scalers, as far as weights can make up for them.
    """

    earlier: Artifact
    layout: InputLayout
    before: Scaler
    now: Scaler
    pairs: list[_Pair]


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
    """Carry an earlier space's weights over; the rest is drawn from ``seed`` as for a space without an earlier one.

    The encoder is carried if its widths are the same, then the decoder if its are. In the first and the last layer,
    blocks of the same name, kind and width are carried; pooled ones only with ``same_items``: the item vectors are of
    the same lineage. Vocabularies are carried value by value: a value that is new begins as ``(other)`` did, where it
    was counted before. A block's flag means the same in every space and is always carried.
    Not computed as before are inputs beyond ``CLIP``, and pooled vectors: directions from a mean that has moved, which
    no weight makes up for. A linear encoder begins with nothing of what is new. A block that is gone counts as absent,
    or, without a flag, as its mean. What is predicted of the next days is carried if the targets are the same ones, in
    the scale that they had. Propensities are fitted again for every space.
    Cost: a few copies of the weights in memory, in float64.
    """
    drawn = Autoencoder(layout, model, targets, seed=seed)
    tensors = {name: tensor.numpy() for name, tensor in drawn.state_dict().items()}
    names = {name.partition(".")[0] for name in tensors}
    layers, fresh = _fitting_layers(earlier.manifest, layout, targets, model, same_items=same_items)
    layers = [layer for layer in layers if layer in names]
    if not layers:
        return WarmStart(tensors, [], fresh)
    pairs, unfit = _pairs(earlier.manifest, layout, scaler, same_items=same_items)
    before, now = _foldable(earlier.scaler, earlier.layout), _foldable(scaler, layout)
    change = _Change(earlier, layout, before, now, pairs)
    for layer in layers:
        if layer in ("encoder_linear", "encoder_hidden"):
            tensors |= _first_layer(change, tensors, layer)
        elif layer == "decoder_output":
            tensors |= _last_layer(change, tensors)
        else:
            parts = [f"{layer}.{part}" for part in ("weight", "bias")]
            tensors |= {name: earlier.tensors[name].copy() for name in parts if name in tensors}
    return WarmStart(tensors, [*layers, *(pair.here.name for pair in pairs)], fresh + unfit)


def _fitting_layers(
    earlier: SpaceManifest, layout: InputLayout, targets: TargetLayout, model: config.Model, *, same_items: bool
) -> tuple[list[str], list[str]]:
    """Return the layers to carry, of those that a model may have, and a line about the others."""
    shapes = weight_shapes(layout, model, targets)
    theirs = weight_shapes(earlier.layout, earlier.model, earlier.targets)
    wanted = [layer for layer in [*_DECODER, *_FUTURE] if f"{layer}.weight" in shapes]
    encoder = [layer for layer in _ENCODER if f"{layer}.weight" in shapes]
    for field in ("latent_dim", "hidden_dim"):
        here, there = getattr(model, field), getattr(earlier.model, field)
        if here != there:
            what = f"model.{field} is {here}, in {earlier.space_id} {there}"
            return [], [f"{', '.join([*encoder, *wanted])}: fresh, {what}"]
    num_learned, num_theirs = (some["encoder_linear.bias"][0] for some in (shapes, theirs))
    if num_learned != num_theirs:
        what = f"{num_learned} dimensions are learned, in {earlier.space_id} {num_theirs}"
        return [], [f"{', '.join([*encoder, *wanted])}: fresh, {what}"]
    layers, lines = [*_ENCODER], []
    if model.decoder_dim == earlier.model.decoder_dim:
        layers += _DECODER
    else:
        what = f"model.decoder_dim is {model.decoder_dim}, in {earlier.space_id} {earlier.model.decoder_dim}"
        lines.append(f"{', '.join(layer for layer in _DECODER if layer in wanted)}: fresh, {what}")
    future = [layer for layer in _FUTURE if layer in wanted]
    if same_items and targets == earlier.targets and all(f"{layer}.weight" in theirs for layer in future):
        layers += future
    elif future:
        lines.append(f"{', '.join(future)}: fresh, {earlier.space_id} has other targets")
    return layers, lines


def _pairs(
    earlier: SpaceManifest, layout: InputLayout, scaler: Scaler, *, same_items: bool
) -> tuple[list[_Pair], list[str]]:
    """Return the blocks to carry, and a line for each block and value that differs."""
    space_id, blocks = earlier.space_id, {block.name: block for block in earlier.layout.blocks[:-1]}
    pairs, lines = [], []
    for here in layout.blocks[:-1]:
        there = blocks.pop(here.name, None)
        widths = [block.stop - block.start for block in (here, there or here)]
        words, earlier_words = layout.vocabulary.get(here.name), earlier.layout.vocabulary.get(here.name)
        if there is None:
            lines.append(f"{here.name}: fresh, {space_id} does not have it")
        elif here.kind == "pooled" and not same_items:
            lines.append(f"{here.name}: fresh, {space_id} has item vectors of another lineage, {earlier.lineage_id}")
        elif words is not None and earlier_words is not None:
            center = scaler.center_F[here.start : here.stop].astype(np.float64)
            pairs.append(_Pair(there, here, *_by_value(words, earlier_words, center)))
            lines += _changed_values(here.name, words, earlier_words)
        elif (here.kind, widths[0]) != (there.kind, widths[1]):
            kinds = f"{here.kind} of width {widths[0]}, in {space_id} {there.kind} of width {widths[1]}"
            lines.append(f"{here.name}: fresh, {kinds}")
        else:
            pairs.append(_Pair(there, here, np.eye(widths[0]), np.eye(widths[0])))
    return pairs, lines + [f"{name}: left out, only {space_id} has it" for name in blocks]


def _by_value(words: list[str], earlier_words: list[str], center: Matrix) -> tuple[Matrix, Matrix]:
    """Make raw inputs of a vocabulary out of another's; ``center``: how often each of ``words`` occurs now.

    The earlier ``(other)`` is the sum of today's and of the values that are new, and is dealt to them in that
    proportion. A value that is gone counts as ``(other)`` today.
    """
    there_by_here = np.zeros((len(earlier_words), len(words)))
    here_by_there = np.zeros((len(words), len(earlier_words)))
    other, earlier_other = words.index(UNKNOWN), earlier_words.index(UNKNOWN)
    place, earlier_place = ({word: k for k, word in enumerate(some)} for some in (words, earlier_words))
    for word, k in place.items():
        there_by_here[earlier_place.get(word, earlier_other), k] = 1
    for word, k in earlier_place.items():
        here_by_there[place.get(word, other), k] = 1
    parts = there_by_here[earlier_other] * center
    if parts.sum() > 0:
        here_by_there[:, earlier_other] = parts / parts.sum()
    return there_by_here, here_by_there


def _changed_values(name: str, words: list[str], earlier_words: list[str]) -> list[str]:
    new = [word for word in words if word not in earlier_words]
    gone = [word for word in earlier_words if word not in words]
    said = {"new, from the weights of (other)": new, "gone, counted as (other)": gone}
    return [f"{name}: {_some(values)}: {what}" for what, values in said.items() if values]


def _some(values: list[str]) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(values[:_SHOWN]) + more


def _first_layer(change: _Change, drawn: Tensors, layer: str) -> Tensors:
    """Fold the scaling of inputs into weights and bias."""
    weight_HE, bias_H = _wide(change.earlier, layer)
    fresh_HF = drawn[f"{layer}.weight"].astype(np.float64)
    weight_HF, bias_H = _folded(change, weight_HE, bias_H, fresh_HF * (layer == "encoder_hidden"))
    return {f"{layer}.weight": weight_HF.astype(np.float32), f"{layer}.bias": bias_H.astype(np.float32)}


def _folded(change: _Change, weight_HE: Matrix, bias_H: Matrix, fresh_HF: Matrix) -> tuple[Matrix, Matrix]:
    """Return weights and bias of a layer on inputs, in the new scale; ``fresh_HF`` where nothing is carried.

    Where a block is there, its earlier input is ``(raw - center) / scale``, and raw is ``center_F + scale_F * x``. The
    part without x is a constant: a bias, or, since an absent block is zero in both spaces, the weight of its flag.
    """
    before, scaler, weight_HF = change.before, change.now, fresh_HF
    flags_E, flags_F = _flags(change.earlier.layout, change.layout)
    weight_HF[:, flags_F] = weight_HE[:, flags_E]
    for pair in change.pairs:
        there, here = _part(pair.there), _part(pair.here)
        by_raw = weight_HE[:, there] / before.scale_F[there]
        weight_HF[:, here] = by_raw @ pair.there_by_here * scaler.scale_F[here]
        constant_H = by_raw @ (pair.there_by_here @ scaler.center_F[here] - before.center_F[there])
        if pair.here.flag is None:
            bias_H += constant_H
        else:
            weight_HF[:, pair.here.flag] += constant_H
    return weight_HF, bias_H


def _last_layer(change: _Change, drawn: Tensors) -> Tensors:
    """Bring the reconstruction into the new scale: through raw inputs, as ``center + scale * output``."""
    before, scaler = change.before, change.now
    weight_EH, bias_E = _wide(change.earlier, "decoder_output")
    weight_FH, bias_F = (drawn[f"decoder_output.{name}"].astype(np.float64) for name in ("weight", "bias"))
    flags_E, flags_F = _flags(change.earlier.layout, change.layout)
    weight_FH[flags_F], bias_F[flags_F] = weight_EH[flags_E], bias_E[flags_E]
    for pair in change.pairs:
        there, here = _part(pair.there), _part(pair.here)
        scale = scaler.scale_F[here].astype(np.float64)
        raw_bias = before.center_F[there] + before.scale_F[there] * bias_E[there]
        weight_FH[here] = (pair.here_by_there * before.scale_F[there]) @ weight_EH[there] / scale[:, None]
        bias_F[here] = (pair.here_by_there @ raw_bias - scaler.center_F[here]) / scale
    return {
        "decoder_output.weight": weight_FH.astype(np.float32),
        "decoder_output.bias": bias_F.astype(np.float32),
    }


def _foldable(scaler: Scaler, layout: InputLayout) -> Scaler:
    """Return a scaler without the centre and the scale of pooled vectors: their weights read directions, and stay."""
    center_F, scale_F = scaler.center_F.copy(), scaler.scale_F.copy()
    for block in layout.blocks:
        if block.kind == "pooled":
            center_F[_part(block)], scale_F[_part(block)] = 0, 1
    return Scaler(center_F=center_F, scale_F=scale_F)


def _wide(earlier: Artifact, layer: str) -> tuple[Matrix, Matrix]:
    """Return a copy of a layer's weight and bias in float64."""
    weight, bias = (earlier.tensors[f"{layer}.{name}"].astype(np.float64) for name in ("weight", "bias"))
    return weight, bias


def _flags(earlier: InputLayout, layout: InputLayout) -> tuple[list[int], list[int]]:
    """Return where the flags stand, there and here, of the blocks that both have. Flags are not scaled."""
    there = {block.name: block.flag for block in earlier.blocks if block.flag is not None}
    both = [(there[b.name], b.flag) for b in layout.blocks if b.flag is not None and b.name in there]
    return [flag for flag, _ in both], [flag for _, flag in both]


def _part(block: Block) -> slice:
    return slice(block.start, block.stop)
