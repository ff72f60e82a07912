"""From a row of user features to the model's input vector: the same function in training, inference and streaming.

Shapes: B rows, F inputs, K blocks.
"""

from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from userrep.arrow import stacked
from userrep.features.spec import FeatureSpec

Kind = Literal["pooled", "scalar", "shares", "one_hot", "flags"]
CLIP = 8.0  # standard deviations
UNKNOWN = "(other)"


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
        flagged = [name for name, kind, _, _ in widths if kind == "pooled" or name.startswith("days_since_")]
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

        Counts and days enter as log1p, shares and one-hots as they are. Cost: one copy of the batch.
        """
        x_BF = np.zeros((batch.num_rows, self.width), np.float32)
        for block in self.blocks[:-1]:
            column = batch.column(block.name)
            if block.kind == "pooled":
                x_BF[:, block.start : block.stop] = stacked(column, block.stop - block.start)
                present_B = np.asarray(batch.column(f"has_{block.name}").to_numpy(zero_copy_only=False), bool)
            elif block.kind == "scalar":
                values_B = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
                present_B = ~np.isnan(values_B)
                x_BF[:, block.start] = np.log1p(np.where(present_B, np.maximum(values_B, 0), 0))
            elif block.kind == "one_hot":
                x_BF[:, block.start : block.stop] = self._one_hot(block.name, column)
            elif pa.types.is_map(column.type):
                x_BF[:, block.start : block.stop] = self._context(block.name, column)
            else:
                x_BF[:, block.start : block.stop] = stacked(column, block.stop - block.start)
            if block.flag is not None:
                x_BF[:, block.flag] = present_B
        return x_BF

    def _one_hot(self, name: str, column: pa.Array) -> NDArray[np.float32]:
        words = self.vocabulary[name]
        position = {word: k for k, word in enumerate(words)}
        known = [position.get(value, position[UNKNOWN]) for value in column.to_pylist()]
        return np.asarray(np.eye(len(words), dtype=np.float32)[known])

    def _context(self, name: str, column: pa.MapArray) -> NDArray[np.float32]:
        words = self.vocabulary[name]
        position = {word: k for k, word in enumerate(words)}
        counts_BV = np.zeros((len(column), len(words)), np.float32)
        for row, entries in enumerate(column.to_pylist()):
            for key, count in entries or ():
                counts_BV[row, position.get(key, position[UNKNOWN])] += count
        return np.asarray(counts_BV / np.maximum(counts_BV.sum(axis=1, keepdims=True), 1))


class Scaler(BaseModel):
    """Centre and scale per input, fitted on training rows. One scale for all dimensions of a block.

    Arrays of length F; ``present`` blocks only are centred, an absent block is zero: the mean of those that have it.
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

    def apply(self, layout: InputLayout, raw_BF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale, clip, and zero what is absent. Returns a new x_BF."""
        x_BF: NDArray[np.float32] = np.clip((raw_BF - self.center_F) / self.scale_F, -CLIP, CLIP)
        for block in layout.blocks[:-1]:
            if block.flag is not None:
                x_BF[:, block.start : block.stop] *= raw_BF[:, block.flag, None]
        return x_BF


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
