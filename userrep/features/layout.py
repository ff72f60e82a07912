"""From a row of user features to the model's input vector: the same function in training, inference and streaming.

Shapes: B rows, F inputs, K blocks.
"""

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from userrep.arrow import stacked
from userrep.features.spec import FeatureSpec

Kind = Literal["pooled", "scalar", "shares", "one_hot", "flags"]
CLIP = 8.0  # standard deviations
UNKNOWN = "(other)"
_NO_LENGTH = 1e-12  # squared, of a scaled vector: it is the mean, and points nowhere


class Block(BaseModel):
    """Inputs ``[start, stop)`` that belong together: dropped together, weighed as one in the loss."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Kind
    start: int
    stop: int
    flag: int | None = None  # the input that says whether the block is there (1) or not (0)
    newcomer: bool = False  # known of a user without any event: onboarding picks, attributes, registration


class InputLayout(BaseModel):
    """The blocks of the model's input in order, with the vocabularies of its one-hot blocks.

    ``vocabulary`` maps ``attribute_NAME`` and the context column to their values; a value outside it counts as
    ``(other)``.
    """

    model_config = ConfigDict(frozen=True)

    spec: FeatureSpec
    vocabulary: dict[str, list[str]]
    blocks: list[Block]

    @classmethod
    def of(cls, spec: FeatureSpec, vocabulary: dict[str, list[str]]) -> "InputLayout":
        widths: list[tuple[str, Kind, int, bool]] = []
        for pooled in spec.pooled:
            widths.append((pooled.column, "pooled", pooled.dim, pooled.window_days is None))
        for scalar in spec.scalars:
            widths.append((scalar, "scalar", 1, scalar == "days_since_registration"))
        for column, width in spec.shares.items():
            widths.append((column, "shares", width, False))
        if spec.context_column:
            widths.append((spec.context_column, "shares", len(vocabulary[spec.context_column]), False))
        for attribute in spec.attributes:
            column = f"attribute_{attribute}"
            widths.append((column, "one_hot", len(vocabulary[column]), True))
        flagged = [name for name, kind, _, _ in widths if kind == "pooled" or name in spec.flagged_scalars]
        first_flag = sum(width for _, _, width, _ in widths)
        flags = {name: first_flag + k for k, name in enumerate(flagged)}
        blocks, start = [], 0
        for name, kind, width, newcomer in widths:
            blocks.append(
                Block(name=name, kind=kind, start=start, stop=start + width, flag=flags.get(name), newcomer=newcomer)
            )
            start += width
        blocks.append(Block(name="flags", kind="flags", start=start, stop=start + len(flags)))
        return cls(spec=spec, vocabulary=vocabulary, blocks=blocks)

    @property
    def width(self) -> int:
        """F, the number of inputs."""
        return self.blocks[-1].stop

    def raw(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        """Lay a batch of user features out as x_BF, unscaled; what is absent is zero and its flag is zero.

        Counts and days enter as log1p, shares and one-hots as they are. Absent is a pooled block whose ``has_`` column
        is not true, and whatever is null. Cost: one copy of the batch.

        Raises
        ------
        ValueError
            If lists have another width than their block.
        """
        x_BF = np.zeros((batch.num_rows, self.width), np.float32)
        for block in self.blocks[:-1]:
            column, part_BF = batch.column(block.name), x_BF[:, block.start : block.stop]
            if block.kind == "scalar":
                values_B = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
                present_B = ~np.isnan(values_B)
                part_BF[:, 0] = np.log1p(np.where(present_B, np.maximum(values_B, 0), 0))
            elif block.kind == "one_hot":
                part_BF[np.arange(len(column)), self._places(block.name, column)] = 1
            elif pa.types.is_map(column.type):
                part_BF[:] = self._context(block.name, column)
            else:
                has = batch.column(f"has_{block.name}") if block.kind == "pooled" else None
                present_B = _fill(part_BF, block.name, column, has)
            if block.flag is not None:
                x_BF[:, block.flag] = present_B
        return x_BF

    def _places(self, name: str, words: pa.Array) -> NDArray[np.int64]:
        """Find words in a vocabulary; what is not in it is where ``(other)`` is."""
        known = self.vocabulary[name]
        found = pc.index_in(words.cast(pa.string()), pa.array(known)).fill_null(known.index(UNKNOWN))
        return found.to_numpy(zero_copy_only=False).astype(np.int64)  # type: ignore[no-any-return]

    def _context(self, name: str, column: pa.MapArray) -> NDArray[np.float32]:
        offsets = column.offsets.to_numpy()
        entries = slice(offsets[0], offsets[-1])
        keys, counts = column.keys[entries], column.items[entries].fill_null(0).to_numpy().astype(np.float32)
        row_of = np.repeat(np.arange(len(column)), np.diff(offsets))
        counts = np.where(_flags(column.is_valid())[row_of], counts, 0)  # a null may have entries below it
        counts_BV = np.zeros((len(column), len(self.vocabulary[name])), np.float32)
        np.add.at(counts_BV, (row_of, self._places(name, keys)), counts)
        return np.asarray(counts_BV / np.maximum(counts_BV.sum(axis=1, keepdims=True), 1))


def _flags(column: pa.BooleanArray) -> NDArray[np.bool_]:
    return column.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _fill(
    part_BF: NDArray[np.float32], name: str, column: pa.ListArray, has: pa.BooleanArray | None
) -> NDArray[np.bool_]:
    """Copy the vectors that are there, and say which; the others stay zero. ``has``: whether they count."""
    present_B = np.ones(len(column), bool) if has is None else _flags(has.fill_null(False))
    width, whole = part_BF.shape[1], not column.null_count
    if not whole:
        present_B = present_B & _flags(column.is_valid())
    try:
        if whole and (np.diff(column.offsets.to_numpy()) == width).all():
            part_BF[:] = stacked(column, width)
            part_BF[~present_B] = 0
        else:
            part_BF[present_B] = stacked(column.filter(pa.array(present_B)), width)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return present_B


class Scaler(BaseModel):
    """Centre and scale per input, fitted on training rows. One scale for all dimensions of a block.

    Arrays of length F; ``present`` blocks only are centred, an absent block is zero: the mean of those that have it.
    Of a pooled vector only the direction from the mean counts, its length becomes the root of its width: a mean of many
    items is shorter than one of few, and how many they were is told by counts.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    center_F: np.ndarray
    scale_F: np.ndarray

    @classmethod
    def fit(cls, layout: InputLayout, moments: "Moments") -> "Scaler":
        center_F = np.zeros(layout.width, np.float64)
        scale_F = np.ones(layout.width, np.float64)
        for block in layout.blocks[:-1]:
            part = slice(block.start, block.stop)
            rows = moments.num_rows if block.flag is None else moments.sum_F[block.flag]
            if rows < 1:
                continue
            mean = moments.sum_F[part] / rows
            variance = np.maximum(moments.sum_squares_F[part] / rows - mean**2, 0).mean()
            center_F[part] = mean
            scale_F[part] = np.sqrt(variance) if variance > 1e-12 else 1.0
        return cls(center_F=center_F.astype(np.float32), scale_F=scale_F.astype(np.float32))

    def apply(
        self, layout: InputLayout, raw_BF: NDArray[np.float32], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Scale, clip, zero what is absent, make pooled vectors directions. Returns x_BF: ``out``, or a new array."""
        x_BF: NDArray[np.float32] = np.subtract(raw_BF, self.center_F, out=out)
        x_BF /= self.scale_F
        np.clip(x_BF, -CLIP, CLIP, out=x_BF)
        for block in layout.blocks[:-1]:
            if block.flag is not None:
                x_BF[:, block.start : block.stop] *= raw_BF[:, block.flag, None]
        _equally_long(x_BF, [block for block in layout.blocks if block.kind == "pooled"])
        return x_BF


def _equally_long(x_BF: NDArray[np.float32], blocks: list[Block]) -> None:
    """Stretch the vectors of neighbouring blocks to the roots of their widths, in place; what is zero stays zero."""
    if not blocks:
        return
    x_BP = x_BF[:, blocks[0].start : blocks[-1].stop]
    widths_K = np.array([block.stop - block.start for block in blocks])
    square_BK = np.add.reduceat(np.square(x_BP), np.cumsum(widths_K) - widths_K, axis=1)
    factor_BK = np.sqrt(np.where(square_BK > _NO_LENGTH, widths_K / np.maximum(square_BK, _NO_LENGTH), 0))
    x_BP *= np.repeat(factor_BK.astype(np.float32), widths_K, axis=1)


class Moments(BaseModel):
    """Sums over rows that a scaler is fitted from; sums of parts add up to the sums of the whole."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    num_rows: int
    sum_F: np.ndarray
    sum_squares_F: np.ndarray

    @classmethod
    def of(cls, raw_BF: NDArray[np.float32]) -> "Moments":
        wide_BF = raw_BF.astype(np.float64)
        return cls(num_rows=len(wide_BF), sum_F=wide_BF.sum(axis=0), sum_squares_F=np.square(wide_BF).sum(axis=0))
