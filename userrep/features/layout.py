"""The layout and scaling that turn user features into the model's input, shared by training, inference and streaming.

Shapes: B rows, F inputs, K blocks, V values of a vocabulary.
"""

from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from userrep.features.spec import POOLED, FeatureSpec
from userrep.store.arrow import listed, stacked, unpacked

Kind = Literal["pooled", "mean", "scalar", "shares", "one_hot", "flags", "items"]
VECTORS = ("pooled", "mean")  # kinds of blocks that are mean item vectors
CLIP = 8.0  # standard deviations
UNKNOWN = "(other)"
_MIN_SQUARED_NORM = 1e-12  # squared norm below which a scaled vector equals the mean and has no direction


class Block(BaseModel):
    """Inputs ``[start, stop)`` of one feature: dropped together in training, and one term of the loss."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Kind
    start: int
    stop: int
    flag: int | None = None  # index of the presence input: 1 if the block is present, else 0
    newcomer: bool = False  # known before a user's first event: picks, attributes, registration

    @property
    def inputs(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def width(self) -> int:
        return self.stop - self.start


def add_block(blocks: list[Block], name: str, kind: Kind, width: int, *, newcomer: bool = False) -> None:
    """Append a block that begins where the last one ends."""
    start = blocks[-1].stop if blocks else 0
    blocks.append(Block(name=name, kind=kind, start=start, stop=start + width, newcomer=newcomer))


class InputLayout(BaseModel):
    """The blocks of the model's input in order, with the vocabularies of its one-hot blocks.

    ``vocabulary``: the values of ``attribute_NAME`` and the context column; others count as ``(other)``.
    ``taste_modality``: the modality that tastes are made of (``model.tastes``). Its means over the longest window, the
    history and the picks are unit vectors, of kind "mean", instead of directions from the mean of all users.
    """

    model_config = ConfigDict(frozen=True)

    spec: FeatureSpec
    vocabulary: dict[str, list[str]]
    blocks: list[Block]
    taste_modality: str | None = None

    @classmethod
    def of(
        cls, spec: FeatureSpec, vocabulary: dict[str, list[str]], taste_modality: str | None = None
    ) -> "InputLayout":
        blocks: list[Block] = []
        add = partial(add_block, blocks)
        for pooled in spec.pooled:
            is_mean = pooled.modality == taste_modality and pooled.window_days in (spec.longest, spec.span, None)
            add(pooled.column, "mean" if is_mean else "pooled", pooled.dim, newcomer=pooled.window_days is None)
        for scalar in spec.scalars:
            add(scalar, "scalar", 1, newcomer=scalar == "days_since_registration")
        for column, width in spec.shares.items():
            add(column, "shares", width)
        if spec.context_column:
            add(spec.context_column, "shares", len(vocabulary[spec.context_column]))
        for column in (f"attribute_{name}" for name in spec.attributes):
            add(column, "one_hot", len(vocabulary[column]), newcomer=True)
        flagged = [k for k, b in enumerate(blocks) if b.kind in VECTORS or b.name in spec.flagged_scalars]
        for flag, k in enumerate(flagged, start=blocks[-1].stop):
            blocks[k] = blocks[k].model_copy(update={"flag": flag})
        add("flags", "flags", len(flagged))
        return cls(spec=spec, vocabulary=vocabulary, blocks=blocks, taste_modality=taste_modality)

    @property
    def width(self) -> int:
        """F, the number of inputs."""
        return self.blocks[-1].stop

    @property
    def means(self) -> list[Block]:
        """The blocks that tastes are made of; empty without ``taste_modality``."""
        return [block for block in self.blocks if block.kind == "mean"]

    @property
    def clipped(self) -> list[slice]:
        """All inputs but ``means``, in as few slices as possible."""
        stops = [0, *(edge for block in self.means for edge in (block.start, block.stop)), self.width]
        edges = list(zip(stops[::2], stops[1::2], strict=True))
        return [slice(start, stop) for start, stop in edges if start < stop]

    @property
    def counts(self) -> slice:
        """The inputs that are counts and days, which follow each other."""
        scalars = [block for block in self.blocks if block.kind == "scalar"]
        return slice(scalars[0].start, scalars[-1].stop)

    @property
    def num_counts(self) -> int:
        """S, the number of counts and days."""
        return int(self.counts.stop - self.counts.start)

    def raw(self, batch: pa.RecordBatch, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return user features as unscaled inputs x_BF. Absent blocks are zero, and so is their flag.

        Pooled vectors are read from the stored column, or from one list column per block as exported. Counts and days
        enter as log1p, ``means`` as unit vectors, shares and one-hots unchanged. A pooled block is absent unless its
        ``has_`` column is true; other blocks are absent if null. Returns ``out`` if given, otherwise a new array. Cost:
        one copy of the batch. Raises ValueError if lists differ in width from their block, or the stored column from
        all blocks together.
        """
        x_BF = np.empty((batch.num_rows, self.width), np.float32) if out is None else out
        stored = pooled_vectors(batch, self.spec) if POOLED in batch.schema.names else {}
        for block in self.blocks[:-1]:
            part_BF, column = x_BF[:, block.inputs], None if block.name in stored else batch.column(block.name)
            present_B = np.ones(batch.num_rows, bool)
            if block.kind in VECTORS:
                present_B = _flags(batch.column(f"has_{block.name}").fill_null(False))
            if column is None:
                np.multiply(stored[block.name], present_B[:, None].astype(np.float32), out=part_BF)
            elif block.kind == "scalar":
                values_B = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
                present_B = ~np.isnan(values_B)
                part_BF[:, 0] = np.log1p(np.where(present_B, np.maximum(values_B, 0), 0))
            elif block.kind == "one_hot":
                part_BF[:] = 0
                part_BF[np.arange(len(column)), self._vocabulary_indices(block.name, column)] = 1
            elif pa.types.is_map(column.type):
                part_BF[:] = self._context(block.name, column)
            else:
                present_B = _fill(part_BF, block.name, column, present_B)
            if block.flag is not None:
                x_BF[:, block.flag] = present_B
        self.normalize_means(x_BF)
        return x_BF

    def normalize_means(self, x_BF: NDArray[np.float32]) -> None:
        """Make unit vectors of the blocks in ``means``, in place; absent ones stay zero."""
        for block in self.means:
            part_BF = x_BF[:, block.inputs]
            part_BF *= _norm_factors(part_BF, 1)[:, None]

    def _vocabulary_indices(self, name: str, values: pa.Array) -> NDArray[np.int64]:
        """Return each value's index in a vocabulary; unknown values get the index of ``(other)``."""
        vocabulary = self.vocabulary[name]
        indices = pc.index_in(values.cast(pa.string()), pa.array(vocabulary)).fill_null(vocabulary.index(UNKNOWN))
        return indices.to_numpy(zero_copy_only=False).astype(np.int64)  # type: ignore[no-any-return]

    def _context(self, name: str, column: pa.MapArray) -> NDArray[np.float32]:
        offsets = column.offsets.to_numpy()
        entries = slice(offsets[0], offsets[-1])
        keys, counts = column.keys[entries], column.items[entries].fill_null(0).to_numpy().astype(np.float32)
        row_N = np.repeat(np.arange(len(column)), np.diff(offsets))
        counts = np.where(_flags(column.is_valid())[row_N], counts, 0)  # Arrow may keep entries of a null row
        counts_BV = np.zeros((len(column), len(self.vocabulary[name])), np.float32)
        np.add.at(counts_BV, (row_N, self._vocabulary_indices(name, keys)), counts)
        return np.asarray(counts_BV / np.maximum(counts_BV.sum(axis=1, keepdims=True), 1))


def pooled_vectors(batch: pa.RecordBatch, spec: FeatureSpec) -> dict[str, NDArray[np.float32]]:
    """Return the vectors of each pooled block, from the stored column: views of Arrow's memory, one row per user.

    Raises ValueError if the column's width differs from that of all blocks together.
    """
    try:
        pooled_BP = unpacked(batch.column(POOLED), spec.pooled_width)
    except ValueError as error:
        raise ValueError(f"{POOLED}: {error}") from None
    ends = np.cumsum([block.dim for block in spec.pooled])[:-1]
    return dict(zip((block.column for block in spec.pooled), np.split(pooled_BP, ends, axis=1), strict=True))


def exported_form(batch: pa.RecordBatch, spec: FeatureSpec) -> pa.RecordBatch:
    """Return feature rows, with their keys if present, in exported form: a list column for each pooled block."""
    vectors = {name: listed(vectors_BD) for name, vectors_BD in pooled_vectors(batch, spec).items()}
    keys = [name for name in ("as_of", "user_id") if name in batch.schema.names]
    names = [*keys, *(name for name, _ in spec.columns())]
    return pa.RecordBatch.from_arrays([vectors[n] if n in vectors else batch.column(n) for n in names], names)


def _flags(column: pa.BooleanArray) -> NDArray[np.bool_]:
    return column.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _fill(part_BF: NDArray[np.float32], name: str, column: pa.ListArray, has_B: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Copy the vectors that are present, by ``has_B`` and not null, and zero the others. Returns which are present."""
    present_B, width = has_B & _flags(column.is_valid()), part_BF.shape[1]
    try:
        if not column.null_count and (np.diff(column.offsets.to_numpy()) == width).all():
            part_BF[:] = stacked(column, width)  # without the copies of a filter, which take ten times as long
            part_BF[~present_B] = 0
        else:
            part_BF[:] = 0
            part_BF[present_B] = stacked(column.filter(pa.array(present_B)), width)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return present_B


class Scaler(BaseModel):
    """Center and scale per input, fitted on training rows. All dimensions of a block share one scale.

    Arrays have length F. Only present blocks are centered; an absent block is zero, the mean of the rows that have it.
    A pooled vector is reduced to its direction from the mean, with a norm of sqrt(width): the mean of many items is
    shorter than that of few, and the counts already carry the number of items. Unit vectors (``InputLayout.means``)
    keep their distance from the mean, and are not clipped.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    center_F: np.ndarray
    scale_F: np.ndarray

    @classmethod
    def fit(cls, layout: InputLayout, moments: "Moments") -> "Scaler":
        center_F, scale_F = np.zeros(layout.width), np.ones(layout.width)
        for block in layout.blocks[:-1]:
            part, rows = block.inputs, moments.num_rows if block.flag is None else moments.sum_F[block.flag]
            if rows >= 1:
                center_F[part] = mean = moments.sum_F[part] / rows
                variance = np.maximum(moments.sum_squares_F[part] / rows - mean**2, 0).mean()
                scale_F[part] = np.sqrt(variance) if variance > 1e-12 else 1.0
        return cls(center_F=center_F.astype(np.float32), scale_F=scale_F.astype(np.float32))

    def apply(
        self, layout: InputLayout, raw_BF: NDArray[np.float32], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Scale and clip the inputs, zero absent blocks, and give pooled vectors their norm.

        Returns x_BF: ``out``, which may be ``raw_BF`` itself, or a new array. Flags are unchanged.
        """
        x_BF: NDArray[np.float32] = np.subtract(raw_BF, self.center_F, out=out)
        x_BF *= 1 / self.scale_F
        for part in layout.clipped:
            np.clip(x_BF[:, part], -CLIP, CLIP, out=x_BF[:, part])
        for block in layout.blocks:
            if block.flag is not None:  # blocks without a flag are never absent or pooled
                part_BF, flag_B = x_BF[:, block.inputs], x_BF[:, block.flag]
                factor_B = _norm_factors(part_BF, block.width) * flag_B if block.kind == "pooled" else flag_B
                part_BF *= factor_B[:, None]
        return x_BF


def _norm_factors(part_BF: NDArray[np.float32], squared: int) -> NDArray[np.float32]:
    """Return the factor that gives each vector of a block this squared norm; 0 for vectors without a direction."""
    squared_norm_B = np.einsum("bf,bf->b", part_BF, part_BF)
    factor_B: NDArray[np.float32] = np.sqrt(squared / np.maximum(squared_norm_B, _MIN_SQUARED_NORM))
    factor_B[squared_norm_B <= _MIN_SQUARED_NORM] = 0
    return factor_B


class Moments(NamedTuple):
    """Sums over rows that a scaler is fitted from. The sums of parts add up to the sums of all rows."""

    num_rows: float | NDArray[np.float64]
    sum_F: NDArray[np.float64]
    sum_squares_F: NDArray[np.float64]

    @classmethod
    def of(cls, raw_BF: NDArray[np.float32]) -> "Moments":
        wide_BF = raw_BF.astype(np.float64)
        return cls(num_rows=len(wide_BF), sum_F=wide_BF.sum(axis=0), sum_squares_F=np.square(wide_BF).sum(axis=0))
