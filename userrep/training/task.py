"""What ranks are given to train, and what comes out."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from userrep import config
from userrep.features.layout import InputLayout
from userrep.features.targets import TargetLayout
from userrep.training.shards import ShardFiles, count_rows, steps_per_epoch


@dataclass(frozen=True)
class TrainingTask:
    """All that a rank needs; small, and the same for every rank.

    ``folder``: a path or URI that driver and ranks share; checkpoints are kept in it. ``initial``: weights to start
    from, as safetensors; without them they are drawn by the seed.
    """

    files: ShardFiles
    steps: int  # of one epoch
    layout: str  # JSON
    targets: str  # JSON
    model: config.Model
    training: config.Training
    empty_F: NDArray[np.float32]
    folder: str
    initial: bytes = b""

    @classmethod
    def of(
        cls,
        files: ShardFiles,
        *,
        layout: InputLayout,
        targets: TargetLayout,
        model: config.Model,
        training: config.Training,
        empty_F: NDArray[np.float32],
        folder: str,
        initial: bytes = b"",
    ) -> "TrainingTask":
        """Count the rows (once, from the files' footers) and fix the steps of an epoch."""
        shards = files.get("train") or [[] for _ in range(training.num_shards)]
        steps = steps_per_epoch(count_rows(shards), training.global_batch)
        layouts = (layout.model_dump_json(), targets.model_dump_json())
        return cls(files, steps, *layouts, model, training, empty_F, folder, initial)

    @property
    def identity(self) -> str:
        """Hash all that decides what comes out: a checkpoint of another identity is none of this training's."""
        facts = [self.files, self.steps, self.layout, self.targets, self.model.model_dump(), self.training.recipe]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
        digest.update(self.empty_F.tobytes())
        digest.update(self.initial)
        return digest.hexdigest()


@dataclass(frozen=True)
class TrainingResult:
    """``weights``: the best epoch's, as safetensors. ``metrics``: its losses, total and per block, and the cost.

    ``curve``: the losses of all epochs, each with its ``epoch``. ``ranks``: of each, as far as it is known, rank, host,
    device, rows_per_second, and waiting_share (of its time, for rows).
    """

    weights: bytes
    metrics: dict[str, float]
    curve: list[dict[str, float]] = field(default_factory=list)
    ranks: list[dict[str, Any]] = field(default_factory=list)
