"""Training checkpoints on disk: frozen folders of tensors and the state of the training.

A folder is written under a temporary name, synced and renamed. The newest two are kept. A checkpoint contains no state
of a random generator: the order of rows and their noise are keyed by (seed, epoch, shard or row), so epoch and step
determine both.
"""

import logging
from contextlib import suppress
from typing import NamedTuple

from pydantic import ConfigDict, Field

from userrep.errors import ArtifactError
from userrep.model.frozen_folder import Manifest, Tensors, read_frozen, read_frozen_manifest, write_frozen
from userrep.store.filesystem import PARTIAL, delete_folder, folder_names

logger = logging.getLogger(__name__)

NUM_KEPT = 2
_CURE = "An older checkpoint is used, or the training starts from the beginning."


class TrainingState(Manifest):
    """The progress of a training: ``step`` steps of ``epoch``, and all epochs before it.

    ``taken``: the steps of all epochs. ``sums``: the sum of each block's loss over the steps of this epoch. ``curve``:
    the losses of each finished epoch. ``seconds``: time spent so far. ``best_epoch``: the epoch with the lowest loss so
    far; 0 before the first epoch ends.
    """

    model_config = ConfigDict(frozen=False)

    identity: str  # of the task
    seed: int
    epoch: int = 1
    step: int = 0
    taken: int = 0
    sums: list[float] = Field(default_factory=list)
    best_epoch: int = 0
    best_loss: float | None = None
    curve: list[dict[str, float]] = Field(default_factory=list)
    seconds: float = 0.0
    finished: bool = False


class Checkpoint(NamedTuple):
    """A complete checkpoint. ``name``: the name of its folder."""

    name: str
    state: TrainingState
    tensors: Tensors


def save_checkpoint(folder: str, state: TrainingState, tensors: Tensors) -> None:
    """Write a checkpoint, then remove all but the newest two. Not safe for several writers at once."""
    path = f"{folder}/step-{state.taken:09d}"
    delete_folder(path)  # a folder of this name is unusable, or the training would have resumed from it
    write_frozen(path, state, tensors)
    for old in checkpoint_names(folder)[NUM_KEPT:]:
        delete_folder(f"{folder}/{old}")


def checkpoint_names(folder: str) -> list[str]:
    """Return the names of the checkpoints in a folder, newest first."""
    return [name for name in reversed(folder_names(folder)) if not name.startswith(PARTIAL)]


def drop_others(folder: str, identity: str) -> None:
    """Delete the checkpoints of other tasks, which displace new ones if they have more steps. Keeps unreadable ones."""
    for name in checkpoint_names(folder):
        path = f"{folder}/{name}"
        with suppress(ArtifactError):
            state, _ = read_frozen_manifest(path, TrainingState, cure=_CURE)
            if state.identity != identity:
                delete_folder(path)


def newest_checkpoint(folder: str, identity: str) -> Checkpoint | None:
    """Return the newest valid checkpoint of a task, None if there is none. Logs each checkpoint it skips."""
    for name in checkpoint_names(folder):
        try:
            return Checkpoint(name, *load_checkpoint(folder, name, identity))
        except ArtifactError as error:
            logger.warning(f"checkpoint {error}")
    return None


def load_checkpoint(folder: str, name: str, identity: str) -> tuple[TrainingState, Tensors]:
    """Read and validate a checkpoint.

    Raises
    ------
    ArtifactError
        If it is incomplete or damaged, or belongs to a task other than ``identity``.
    """
    path = f"{folder}/{name}"
    state, tensors = read_frozen(path, TrainingState, expected_hash=None, cure=_CURE)
    if state.identity != identity:
        raise ArtifactError(f"{path}: written for other rows or settings. {_CURE}")
    return state, tensors
