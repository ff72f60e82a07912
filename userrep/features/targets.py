"""The targets of training rows: what a model predicts about a user's next days, and their layout.

The future of an as-of date D over w days is the past of D + w: at D + w, the window of w days covers ``[D, D + w)``. So
targets are read from the features of a later date.

Shapes: B rows, F inputs, P pooled numbers of all blocks, E numbers of an item (all modalities concatenated), T targets,
W targets of one future.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from userrep.features.layout import CLIP, Block, InputLayout, Scaler, add_block, pooled_vectors
from userrep.features.spec import POOLED, FeatureSpec, counts_of

MAX_ROW_WEIGHT = 10.0  # cap on a row's weight
_ITEMS = 2  # width of the items block: the row's weight and the index of its date


class TargetLayout(BaseModel):
    """The target blocks of all futures in order. Without blocks, the model predicts nothing.

    The first and shortest future has the mean item vector of each modality (kind ``pooled``, unscaled, zeros without an
    event) and ``items_next_7d``: the row's weight (its events, at most 10; 0 if none of their items has a vector) and
    the index of its as-of date among the training's as-of dates. Every future has its counts, scaled like inputs, and a
    flag for any event.
    """

    model_config = ConfigDict(frozen=True)

    futures: list[int]
    blocks: list[Block]

    @classmethod
    def of(cls, spec: FeatureSpec, futures: Sequence[int]) -> "TargetLayout":
        blocks: list[Block] = []
        add = partial(add_block, blocks)
        for days in futures:
            if days == futures[0]:
                for modality, dim in spec.modalities.items():
                    add(f"{modality}_next_{days}d", "pooled", dim)
                add(f"items_next_{days}d", "items", _ITEMS)
            for count in counts_of(days):
                add(count.replace(f"_{days}d", f"_next_{days}d"), "scalar", 1)
            add(f"active_next_{days}d", "flags", 1)
        return cls(futures=list(futures), blocks=blocks)

    @property
    def width(self) -> int:
        """T, the number of targets."""
        return self.blocks[-1].stop if self.blocks else 0

    @property
    def item_width(self) -> int:
        """E, the numbers of an item; 0 without targets."""
        return self.items.start if self.blocks else 0

    @property
    def items(self) -> Block:
        """The block with the rows' weights and date indices."""
        return next(block for block in self.blocks if block.kind == "items")

    @cached_property
    def numbers(self) -> list[Block]:
        """The counts and flags, predicted by linear heads."""
        return [block for block in self.blocks if block.kind in ("scalar", "flags")]


@dataclass(frozen=True)
class Future:
    """One future and the computation of its targets.

    ``date_indices``: index of each as-of date; empty for all futures but the first.
    """

    days: int
    layout: InputLayout
    scaler: Scaler
    date_indices: Mapping[date, int] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The stored columns of user features that the targets are computed from."""
        vectors = [POOLED, *(f"has_{name}" for name in self._vectors)] if self.date_indices else []
        return [*vectors, *counts_of(self.days)]

    @property
    def is_active(self) -> str:
        """SQL condition: the user has an event in this future. All other users have the targets ``absent_W``."""
        return f"num_events_{self.days}d > 0"

    def targets(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        """Return y_BW of active users, from their features at the end of this future.

        ``as_of`` of the batch is the date on which the future begins.
        """
        columns = [batch.column(name).cast(pa.float64()) for name in counts_of(self.days)]
        counts = [column.fill_null(0).to_numpy(zero_copy_only=False) for column in columns]
        parts: list[NDArray[np.floating]] = self._items(batch, counts[0]) if self.date_indices else []
        parts += [self._scaled(name, counts_B) for name, counts_B in zip(counts_of(self.days), counts, strict=True)]
        return np.column_stack([*parts, np.ones(batch.num_rows)]).astype(np.float32)

    def absent_W(self) -> NDArray[np.float32]:
        """Return the targets of a user without an event in this future: zero vectors, zero weight, zero counts."""
        zero_B = np.zeros(1)
        counts = [self._scaled(name, zero_B) for name in counts_of(self.days)]
        num_zeros = sum(self._vectors.values()) + _ITEMS if self.date_indices else 0
        return np.concatenate([np.zeros(num_zeros), *counts, zero_B]).astype(np.float32)

    @property
    def _vectors(self) -> dict[str, int]:
        """The pooled blocks of this window and their widths."""
        return {block.column: block.dim for block in self.layout.spec.pooled if block.window_days == self.days}

    def _items(self, batch: pa.RecordBatch, num_events_B: NDArray[np.float64]) -> list[NDArray[np.floating]]:
        """Return the mean item vectors, the weight and the date index of each row."""
        vectors, parts = pooled_vectors(batch, self.layout.spec), list[NDArray[np.floating]]()
        has_items_B = np.zeros(batch.num_rows, bool)
        for name in self._vectors:
            present_B = batch.column(f"has_{name}").fill_null(False).to_numpy(zero_copy_only=False)
            parts.append(vectors[name] * present_B[:, None].astype(np.float32))
            has_items_B |= present_B
        date_index_B = [self.date_indices[as_of] for as_of in batch.column("as_of").to_pylist()]
        weight_B = np.minimum(num_events_B, MAX_ROW_WEIGHT) * has_items_B
        return [*parts, weight_B, np.array(date_index_B, np.float32)]

    def _scaled(self, name: str, counts_B: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scale counts like the inputs of the same name."""
        index = next(block.start for block in self.layout.blocks if block.name == name)
        scaled_B = (np.log1p(np.maximum(counts_B, 0)) - self.scaler.center_F[index]) / self.scaler.scale_F[index]
        clipped_B: NDArray[np.float64] = np.clip(scaled_B, -CLIP, CLIP)
        return clipped_B
