"""What a model is to say of a user's next days: the targets of training rows, and how they are laid out.

The future of an as-of date D over w days is the past of D + w: features of D + w for the window of w days are of
``[D, D + w)``. So targets are inputs of a later date, scaled as all inputs are.
Shapes: B rows, F inputs, T targets, W targets of one future.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from userrep.features.layout import Block, InputLayout, Scaler
from userrep.features.spec import POOLED


class TargetLayout(BaseModel):
    """Blocks of each future after the other; no block: a model predicts nothing.

    A future has its pooled vectors, its counts, and a block of flags: for each vector whether it is there, then whether
    there is any event. Names are those of inputs with ``next``: ``behaviour_next_7d``, ``flags_next_7d``.
    """

    model_config = ConfigDict(frozen=True)

    blocks: list[Block]

    @classmethod
    def of(cls, layout: InputLayout, future_days: Sequence[int]) -> "TargetLayout":
        blocks, width = [], 0
        for days in future_days:
            for block in _window(layout, days)[0].blocks:
                name = f"{block.name.removesuffix(f'_{days}d')}_next_{days}d"
                is_active = block.kind == "flags"
                places = {"start": block.start + width, "stop": block.stop + width + is_active}
                flag = None if block.flag is None else block.flag + width
                blocks.append(block.model_copy(update={"name": name, "flag": flag} | places))
            width = blocks[-1].stop
        return cls(blocks=blocks)

    @property
    def width(self) -> int:
        """T, the number of targets."""
        return self.blocks[-1].stop if self.blocks else 0


@dataclass(frozen=True)
class Future:
    """One future: ``layout`` and ``scaler`` are those of its window's inputs alone."""

    days: int
    layout: InputLayout
    scaler: Scaler

    @classmethod
    def of(cls, layout: InputLayout, scaler: Scaler, days: int) -> "Future":
        window, places_W = _window(layout, days)
        return cls(days, window, Scaler(center_F=scaler.center_F[places_W], scale_F=scaler.scale_F[places_W]))

    @property
    def columns(self) -> list[str]:
        """The columns of user features, as stored, that targets are made of."""
        blocks = self.layout.blocks[:-1]
        return [POOLED, *(f"has_{block.name}" if block.kind == "pooled" else block.name for block in blocks)]

    @property
    def is_active(self) -> str:
        """The condition, in SQL, that a user has an event in this future; all others have ``absent_W``."""
        return f"num_events_{self.days}d > 0"

    def targets(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        """Return y_BW of users that are active, from their features of the date on which this future ends."""
        x_BF = self.scaler.apply(self.layout, self.layout.raw(batch))
        return np.hstack([x_BF, np.ones((len(x_BF), 1), np.float32)])

    def absent_W(self) -> NDArray[np.float32]:
        """Return the targets of a user without an event in this future: no vector, counts of zero."""
        raw_1F = np.zeros((1, self.layout.width), np.float32)
        return np.append(self.scaler.apply(self.layout, raw_1F)[0], np.float32(0))


def _window(layout: InputLayout, days: int) -> tuple[InputLayout, list[int]]:
    """Return the inputs of one window as a layout of their own, and their places in ``layout``."""
    mine = [block for block in layout.blocks if block.kind in ("pooled", "scalar") and block.name.endswith(f"_{days}d")]
    blocks: list[Block] = []
    places: list[int] = []
    flags: list[int] = []
    start = 0
    first_flag = sum(block.stop - block.start for block in mine)
    for block in mine:
        stop, flag = start + block.stop - block.start, None
        if block.flag is not None:
            flag = first_flag + len(flags)
            flags.append(block.flag)
        blocks.append(block.model_copy(update={"start": start, "stop": stop, "flag": flag}))
        places += range(block.start, block.stop)
        start = stop
    blocks.append(Block(name="flags", kind="flags", start=start, stop=start + len(flags)))
    return InputLayout(spec=layout.spec, vocabulary=layout.vocabulary, blocks=blocks), places + flags
