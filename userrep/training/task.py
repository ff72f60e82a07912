"""The input and the result of a training."""

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
from userrep.model.frozen_folder import Tensors, read_tensors
from userrep.store.filesystem import read_bytes
from userrep.training.checkpoint import TrainingState
from userrep.training.data.shards import ShardFiles

MAX_BYTES = 1 << 30  # of the file of candidates


@dataclass(frozen=True)
class TrainingTask:
    """The input of a training: small, and the same for every rank.

    ``empty_F``: the scaled inputs of a user without any data. ``folder``: a path or URI that driver and ranks share;
    it contains the checkpoints. ``initial``: initial weights by name; if empty, the seed determines them.
    ``starts_from``: content hash of the space that they are from; if empty, ``files`` and the seed determine them.
    ``candidates``: path and SHA-256 of a safetensors file with the items that may be predicted; None if the model
    predicts no items. ``row_weight``: the mean weight of a row in the item loss.
    """

    files: ShardFiles
    steps: int  # per epoch
    layout: InputLayout
    targets: TargetLayout
    model: config.Model
    training: config.Training
    empty_F: NDArray[np.float32]
    folder: str
    initial: Tensors = field(default_factory=dict)
    starts_from: str = ""
    candidates: tuple[str, str] | None = None
    row_weight: float = 1.0

    def read_candidates(self) -> Tensors:
        """Read the candidate items; empty if the model predicts no items. Raises ArtifactError if the file changed."""
        if self.candidates is None:
            return {}
        path, expected = self.candidates
        content = read_bytes(path, max_bytes=MAX_BYTES)
        if hashlib.sha256(content).hexdigest() != expected:
            raise ArtifactError(f"{path} has changed since this training started. Run the command again.")
        return read_tensors(content, path, cure="Run the command again.")

    @property
    def identity(self) -> str:
        """Hash of everything that determines the result. A checkpoint with another identity cannot be resumed from."""
        layouts = [self.layout.model_dump_json(), self.targets.model_dump_json()]
        facts = [self.files, self.steps, *layouts, self.model.model_dump(), self.training.recipe]
        facts += [self.candidates[1] if self.candidates else None, self.row_weight, self.starts_from]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
        digest.update(self.empty_F.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    ``weights``: the best epoch's weights by name. ``metrics``: its losses, total and per block, and the cost of
    the training. ``curve``: the losses of each epoch, with its number as ``epoch``. ``ranks``: for each rank its rank,
    host, device, rows_per_second, and waiting_share (the share of its time spent waiting for rows), as far as known.
    """

    weights: Tensors
    metrics: dict[str, float]
    curve: list[dict[str, float]] = field(default_factory=list)
    ranks: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, state: TrainingState, weights: Tensors, *, ranks: list[dict[str, Any]]) -> "TrainingResult":
        """Create the result from the final state. Without ``ranks``, the metrics contain no speed."""
        best = dict(state.curve[state.best_epoch - 1])
        del best["epoch"]
        cost = {"epochs": state.curve[-1]["epoch"], "best_epoch": state.best_epoch, "seconds": state.seconds}
        if ranks:
            cost["rows_per_second"] = sum(rank["rows_per_second"] for rank in ranks)
            cost["waiting_share"] = max(rank["waiting_share"] for rank in ranks)
        return cls(weights, best | cost, state.curve, ranks)
