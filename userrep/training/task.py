"""What ranks are given to train, and what comes out."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from userrep import config
from userrep.errors import ArtifactError
from userrep.features.layout import InputLayout
from userrep.features.targets import TargetLayout
from userrep.model.tensor_file import Tensors, read_tensors
from userrep.store.storage import read_bytes
from userrep.training.data.shards import ShardFiles, count_rows, steps_per_epoch

MAX_BYTES = 1 << 30  # of a file of tensors


@dataclass(frozen=True)
class TrainingTask:
    """All that a rank needs; small, and the same for every rank.

    ``folder``: a path or URI that driver and ranks share; checkpoints are kept in it. ``initial``: weights to start
    from, as safetensors; without them they are drawn by the seed. ``candidates``: a safetensors file of the items that
    rows choose from, with its hash; none if no items are predicted. ``row_weight``: the mean weight of a row in that.
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
    candidates: tuple[str, str] | None = None
    row_weight: float = 1.0

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
        candidates: tuple[str, str] | None = None,
    ) -> "TrainingTask":
        """Count the rows (once, from the files' footers) and fix the steps of an epoch."""
        shards = files.get("train") or [[] for _ in range(training.num_shards)]
        steps = steps_per_epoch(count_rows(shards), training.batch_size)
        layouts = (layout.model_dump_json(), targets.model_dump_json())
        return cls(files, steps, *layouts, model, training, empty_F, folder, initial, candidates)

    def read_candidates(self) -> Tensors:
        """Read the items that rows choose from; none if no items are predicted. Raises ArtifactError if spoilt."""
        if self.candidates is None:
            return {}
        path, expected = self.candidates
        content = read_bytes(path, max_bytes=MAX_BYTES)
        if hashlib.sha256(content).hexdigest() != expected:
            raise ArtifactError(f"{path} is not the file that this training began with. Run the command again.")
        return read_tensors(content, path, cure="Run the command again.")

    @property
    def identity(self) -> str:
        """Hash all that decides what comes out: a checkpoint of another identity is none of this training's."""
        facts = [self.files, self.steps, self.layout, self.targets, self.model.model_dump(), self.training.recipe]
        facts += [self.candidates[1] if self.candidates else None, self.row_weight]
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
