"""From a row of user features to the model's input vector: the same function in training, inference and streaming.

Shapes: B rows, F inputs, K blocks.
"""

from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from userrep.features.spec import POOLED, FeatureSpec
from userrep.store.arrow import listed, stacked, unpacked

Kind = Literal["pooled", "scalar", "shares", "one_hot", "flags", "items"]
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


class Part(NamedTuple):
    """A block as the scaler takes it: its inputs, and the one that says whether it is there."""

    inputs: slice
    flag: int | None
    is_pooled: bool


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

    @cached_property
    def parts(self) -> list[Part]:
        """The blocks that may be absent, or are pooled."""
        found = [Part(slice(b.start, b.stop), b.flag, b.kind == "pooled") for b in self.blocks[:-1]]
        return [part for part in found if part.flag is not None or part.is_pooled]

    def raw(self, batch: pa.RecordBatch, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Lay a batch of user features out as x_BF, unscaled; what is absent is zero and its flag is zero.

        Pooled vectors are read as they are stored, in one column, or as they are exported, a column of lists each.
        Counts and days enter as log1p, shares and one-hots as they are. Absent is a pooled block whose ``has_`` column
        is not true, and whatever is null. Returns ``out``, or a new array. Cost: one copy of the batch.

        Raises
        ------
        ValueError
            If lists have another width than their block, or the stored column than all blocks.
        """
        x_BF = np.empty((batch.num_rows, self.width), np.float32) if out is None else out
        stored = pooled_vectors(batch, self.spec) if POOLED in batch.schema.names else {}
        for block in self.blocks[:-1]:
            part_BF = x_BF[:, block.start : block.stop]
            if block.name in stored:
                there_B = _flags(batch.column(f"has_{block.name}").fill_null(False)).astype(np.float32)
                np.multiply(stored[block.name], there_B[:, None], out=part_BF)
                x_BF[:, block.flag] = there_B
                continue
            column = batch.column(block.name)
            if block.kind == "scalar":
                values_B = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
                present_B = ~np.isnan(values_B)
                part_BF[:, 0] = np.log1p(np.where(present_B, np.maximum(values_B, 0), 0))
            elif block.kind == "one_hot":
                part_BF[:] = 0
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


def pooled_vectors(batch: pa.RecordBatch, spec: FeatureSpec) -> dict[str, NDArray[np.float32]]:
    """Return the vectors of each pooled block from the stored column of all: views of Arrow's memory, one row a user.

    Raises ValueError if the column has another width than all blocks together.
    """
    try:
        pooled_BP = unpacked(batch.column(POOLED), spec.pooled_width)
    except ValueError as error:
        raise ValueError(f"{POOLED}: {error}") from None
    ends = np.cumsum([block.dim for block in spec.pooled])[:-1]
    return dict(zip((block.column for block in spec.pooled), np.split(pooled_BP, ends, axis=1), strict=True))


def in_lists(batch: pa.RecordBatch, spec: FeatureSpec) -> pa.RecordBatch:
    """Return rows as users of features have them: a column of lists per pooled block in place of the stored one.

    Of the keys, as_of and user_id, those stay that are there.
    """
    vectors = {name: listed(vectors_BD) for name, vectors_BD in pooled_vectors(batch, spec).items()}
    keys = [name for name in ("as_of", "user_id") if name in batch.schema.names]
    names = [*keys, *(name for name, _ in spec.columns())]
    return pa.RecordBatch.from_arrays([vectors[n] if n in vectors else batch.column(n) for n in names], names)


def _flags(column: pa.BooleanArray) -> NDArray[np.bool_]:
    return column.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _fill(
    part_BF: NDArray[np.float32], name: str, column: pa.ListArray, has: pa.BooleanArray | None
) -> NDArray[np.bool_]:
    """Copy the vectors that are there, and say which; the others become zero. ``has``: whether they count."""
    present_B = np.ones(len(column), bool) if has is None else _flags(has.fill_null(False))
    width, whole = part_BF.shape[1], not column.null_count
    if not whole:
        present_B = present_B & _flags(column.is_valid())
    try:
        if whole and (np.diff(column.offsets.to_numpy()) == width).all():
            part_BF[:] = stacked(column, width)
            part_BF[~present_B] = 0
        else:
            part_BF[:] = 0
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
        """Scale, clip, zero what is absent, make pooled vectors directions.

        Returns x_BF: ``out``, which may be ``raw_BF`` itself, or a new array. Flags stay as they are.
        """
        x_BF: NDArray[np.float32] = np.subtract(raw_BF, self.center_F, out=out)
        x_BF *= 1 / self.scale_F
        np.clip(x_BF, -CLIP, CLIP, out=x_BF)
        for inputs, flag, is_pooled in layout.parts:
            part_BF = x_BF[:, inputs]
            factor_B = _stretch(part_BF) if is_pooled else np.ones(len(part_BF), np.float32)
            if flag is not None:
                factor_B *= x_BF[:, flag]
            part_BF *= factor_B[:, None]
        return x_BF


def _stretch(part_BF: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return by what each vector of a block gets the length of the root of its width; 0 where it has none."""
    square_B = np.einsum("bf,bf->b", part_BF, part_BF)
    stretch_B: NDArray[np.float32] = np.sqrt(part_BF.shape[1] / np.maximum(square_B, _NO_LENGTH))
    stretch_B[square_B <= _NO_LENGTH] = 0
    return stretch_B


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
