"""Training checkpoints on disk: one folder each, with ``state.safetensors`` and ``state.json``.

A folder is written under a temporary name, synced and renamed. The newest two are kept. A checkpoint contains no state
of a random generator: the order of rows and their noise are keyed by (seed, epoch, shard or row), so epoch and step
determine both.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from userrep.errors import ArtifactError
from userrep.model.tensor_file import Tensors, read_tensors, tensor_bytes
from userrep.store.filesystem import PARTIAL, delete_folder, exists, folder_names, read_bytes, write_folder

TENSORS, STATE = "state.safetensors", "state.json"
NUM_KEPT = 2
_MAX_TENSORS, _MAX_STATE = 16 << 30, 64 << 20  # bytes
_CURE = "An older checkpoint is used, or the training starts from the beginning."


@dataclass
class TrainingState:
    """The progress of a training: ``step`` steps of ``epoch``, and all epochs before it.

    ``sums``: the sum of each block's loss over the steps of this epoch. ``curve``: the losses of each finished epoch.
    ``optimizer``: the optimizer's numbers (its tensors are stored separately). ``seconds``: time spent so far.
    ``best_epoch``: the epoch with the lowest loss so far; 0 before the first epoch ends.
    """

    identity: str  # of the task
    seed: int
    epoch: int = 1
    step: int = 0
    sums: list[float] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    optimizer: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    finished: bool = False


class Checkpoint(NamedTuple):
    """A complete checkpoint. ``name``: the name of its folder."""

    name: str
    state: TrainingState
    tensors: Tensors


def save_checkpoint(folder: str, state: TrainingState, tensors: Tensors) -> None:
    """Write a checkpoint, then remove all but the newest two. Not safe for several writers at once."""
    content = tensor_bytes(tensors)
    facts = asdict(state) | {"sha256": hashlib.sha256(content).hexdigest()}
    name = f"step-{int(state.optimizer['taken']):09d}"
    if exists(f"{folder}/{name}"):  # not usable, or training would have resumed from it
        delete_folder(f"{folder}/{name}")
    write_folder(f"{folder}/{name}", {TENSORS: content, STATE: json.dumps(facts).encode()})
    for old in checkpoint_names(folder)[NUM_KEPT:]:
        delete_folder(f"{folder}/{old}")


def checkpoint_names(folder: str) -> list[str]:
    """Return the names of the checkpoints in a folder, newest first."""
    return [name for name in reversed(folder_names(folder)) if not name.startswith(PARTIAL)]


def newest_checkpoint(folder: str, identity: str, report: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest valid checkpoint of a task, None if there is none. Reports each checkpoint it skips."""
    for name in checkpoint_names(folder):
        try:
            return Checkpoint(name, *load_checkpoint(folder, name, identity))
        except ArtifactError as error:
            report(str(error))
    return None


def load_checkpoint(folder: str, name: str, identity: str) -> tuple[TrainingState, Tensors]:
    """Read and validate a checkpoint.

    Raises
    ------
    ArtifactError
        If it is incomplete or damaged, or belongs to a task other than ``identity``.
    """
    path = f"{folder}/{name}"
    try:
        facts = json.loads(read_bytes(f"{path}/{STATE}", max_bytes=_MAX_STATE))
        content = read_bytes(f"{path}/{TENSORS}", max_bytes=_MAX_TENSORS)
        expected = facts.pop("sha256")
        state = TrainingState(**facts)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ArtifactError(f"checkpoint {path} is incomplete or damaged ({reason}). {_CURE}") from None
    if hashlib.sha256(content).hexdigest() != expected:
        raise ArtifactError(f"checkpoint {path}: {TENSORS} does not match the hash in {STATE}. {_CURE}")
    if state.identity != identity:
        raise ArtifactError(f"checkpoint {path} was written for other rows or settings. {_CURE}")
    return state, read_tensors(content, f"checkpoint {path}: {TENSORS}", cure=_CURE)


def remove_partial(folder: str) -> None:
    """Remove the incomplete folders that killed processes left."""
    for name in folder_names(folder):
        if name.startswith(PARTIAL):
            delete_folder(f"{folder}/{name}")
