"""Where a training stands, on disk: ``state.safetensors`` and ``state.json`` in a folder a checkpoint.

A folder is written under a temporary name, synced and renamed; the newest two are kept. No state of a random generator
is in it: order and noise of the rows are keyed by (seed, epoch, shard or row), so that epoch and step say it all.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from userrep.errors import ArtifactError
from userrep.model.tensor_file import Tensors, read_tensors, tensor_bytes
from userrep.store.storage import PARTIAL, delete_folder, exists, folder_names, read_bytes, write_folder

TENSORS, STATE = "state.safetensors", "state.json"
KEPT = 2
_MAX_TENSORS, _MAX_STATE = 16 << 30, 64 << 20  # bytes
_CURE = "An older checkpoint is used, or the training starts anew."


@dataclass
class Standing:
    """What a training has done: ``step`` steps of ``epoch``, and all epochs before it.

    ``sums``: of each block's loss over these steps. ``curve``: one entry of losses for each epoch that is done.
    ``optimizer``: its numbers. ``seconds``: spent so far.
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
    """A checkpoint that is whole: the name of its folder, and what is in it."""

    name: str
    standing: Standing
    tensors: Tensors


def save_checkpoint(folder: str, standing: Standing, tensors: Tensors) -> None:
    """Write a checkpoint, then remove all but the newest two. One process at a time."""
    content = tensor_bytes(tensors)
    state = asdict(standing) | {"sha256": hashlib.sha256(content).hexdigest()}
    name = f"step-{int(standing.optimizer['taken']):09d}"
    if exists(f"{folder}/{name}"):  # one that could not be read
        delete_folder(f"{folder}/{name}")
    write_folder(f"{folder}/{name}", {TENSORS: content, STATE: json.dumps(state).encode()})
    for old in checkpoint_names(folder)[KEPT:]:
        delete_folder(f"{folder}/{old}")


def checkpoint_names(folder: str) -> list[str]:
    """Return the names of the checkpoints in a folder, newest first."""
    return [name for name in reversed(folder_names(folder)) if not name.startswith(PARTIAL)]


def newest_checkpoint(folder: str, identity: str, report: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest whole checkpoint of a task; those passed over are told."""
    for name in checkpoint_names(folder):
        try:
            return Checkpoint(name, *load_checkpoint(folder, name, identity))
        except ArtifactError as error:
            report(str(error))
    return None


def load_checkpoint(folder: str, name: str, identity: str) -> tuple[Standing, Tensors]:
    """Read a checkpoint and check it.

    Raises
    ------
    ArtifactError
        If it is not whole, or of another task than ``identity``.
    """
    path = f"{folder}/{name}"
    try:
        state = json.loads(read_bytes(f"{path}/{STATE}", max_bytes=_MAX_STATE))
        content = read_bytes(f"{path}/{TENSORS}", max_bytes=_MAX_TENSORS)
        expected = state.pop("sha256")
        standing = Standing(**state)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"checkpoint {path} is not whole ({type(error).__name__}: {error}). {_CURE}") from None
    if hashlib.sha256(content).hexdigest() != expected:
        raise ArtifactError(f"checkpoint {path}: {TENSORS} is not what {STATE} was written with. {_CURE}")
    if standing.identity != identity:
        raise ArtifactError(f"checkpoint {path} is of other rows or settings. {_CURE}")
    return standing, read_tensors(content, f"checkpoint {path}: {TENSORS}", cure=_CURE)


def remove_partial(folder: str) -> None:
    """Remove what a killed process was about to write."""
    for name in folder_names(folder):
        if name.startswith(PARTIAL):
            delete_folder(f"{folder}/{name}")
