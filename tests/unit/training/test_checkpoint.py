"""An interrupted training resumes from its last valid checkpoint and ends with the same result."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from tests.unit.training.test_training import bits_of, losses_of, on_ranks, silent, task_on
from userrep.errors import ArtifactError
from userrep.model.frozen_folder import FORMAT_VERSION, MANIFEST, WEIGHTS
from userrep.training.checkpoint import (
    TrainingState,
    checkpoint_names,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from userrep.training.launch.backends import run_training
from userrep.training.launch.comm import LocalComm
from userrep.training.loop import train
from userrep.training.task import TrainingResult, TrainingTask

pytestmark = pytest.mark.default


class Cut(Exception):  # noqa: N818
    """Raised in place of a kill."""


class CutComm(LocalComm):
    """A group of one rank that is interrupted after some steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def mean_(self, tensor: torch.Tensor) -> None:
        self._left -= 1
        if self._left < 0:
            raise Cut


def interrupt(task: TrainingTask, steps: int) -> str:
    """Train for some steps, then interrupt; return the name of the newest checkpoint."""
    with pytest.raises(Cut):
        train(task, CutComm(steps), silent)
    found = newest_checkpoint(task.folder, task.identity)
    assert found is not None
    return found[0]


def undisturbed(task: TrainingTask) -> TrainingResult:
    return train(replace(task, folder=f"{task.folder}-undisturbed"), LocalComm(), silent)


def test_a_training_interrupted_within_an_epoch_ends_with_the_same_bits(tmp_path: Path) -> None:
    task = task_on(tmp_path, checkpoint_every="0s", max_epochs=3)
    name = interrupt(task, task.steps + 7)  # one mean a step, two for an epoch's validation
    assert name == f"step-{task.steps + 5:09d}"
    result, expected = train(task, LocalComm(), silent, resume=name), undisturbed(task)
    assert bits_of(result) == bits_of(expected)
    assert result.curve == expected.curve
    assert losses_of(result) == losses_of(expected)


def test_a_training_interrupted_between_epochs_ends_with_the_same_bits(tmp_path: Path) -> None:
    task = task_on(tmp_path)
    name = interrupt(task, task.steps + 7)
    assert name == f"step-{task.steps:09d}"
    assert bits_of(train(task, LocalComm(), silent, resume=name)) == bits_of(undisturbed(task))


def test_a_training_resumes_on_another_number_of_ranks(tmp_path: Path) -> None:
    task = task_on(tmp_path, checkpoint_every="0s")
    name = interrupt(task, 11)
    expected = undisturbed(task)
    for result in on_ranks(2, lambda comm: train(task, comm, silent, resume=name)):
        assert losses_of(result) == pytest.approx(losses_of(expected), rel=1e-4)


def test_a_second_run_resumes_and_reports_from_where(tmp_path: Path, lines: list[str]) -> None:
    task = task_on(tmp_path, checkpoint_every="0s")
    interrupt(task, 11)
    result = run_training(task)
    assert lines[0] == "training resumes from its checkpoint in epoch 1, after 11 steps"
    assert bits_of(result) == bits_of(undisturbed(task))


def test_a_finished_training_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_on(tmp_path)
    first = run_training(task)
    monkeypatch.setattr("userrep.training.launch.backends.train", None)
    again = run_training(task)
    assert (bits_of(again), again.curve) == (bits_of(first), first.curve)
    assert losses_of(again) == losses_of(first)


def test_the_newest_two_checkpoints_are_kept(tmp_path: Path) -> None:
    task = task_on(tmp_path, max_epochs=4)
    train(task, LocalComm(), silent)
    assert checkpoint_names(task.folder) == [f"step-{task.steps * epoch:09d}" for epoch in (4, 3)]


def damage_tensors(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda folder: (folder / MANIFEST).unlink(), r"manifest\.json: No such file"),
        (lambda folder: (folder / MANIFEST).write_text('{"epoch": 1'), r"is truncated or not a JSON object"),
        (
            lambda folder: (folder / MANIFEST).write_text(f'{{"format_version": {FORMAT_VERSION}, "other": 1}}'),
            r"manifest\.json is invalid: identity: Field required",
        ),
        (lambda folder: (folder / MANIFEST).write_text("[]"), r"is truncated or not a JSON object"),
        (lambda folder: (folder / WEIGHTS).unlink(), r"weights\.safetensors: No such file"),
        (damage_tensors, r"weights\.safetensors and manifest\.json were not written together"),
    ],
)
def test_a_damaged_checkpoint_is_skipped_and_reported(
    tmp_path: Path, spoil: Callable[[Path], Any], fault: str, lines: list[str]
) -> None:
    task = task_on(tmp_path, checkpoint_every="0s")
    newest = interrupt(task, 11)
    spoil(Path(task.folder, newest))
    with pytest.raises(ArtifactError, match=fault):
        load_checkpoint(task.folder, newest, task.identity)
    result = run_training(task)
    assert newest in lines[0]
    assert "An older checkpoint is used, or the training starts from the beginning." in lines[0]
    assert lines[1] == "training resumes from its checkpoint in epoch 1, after 10 steps"
    assert bits_of(result) == bits_of(undisturbed(task))


def test_a_checkpoint_of_other_rows_or_settings_is_not_used(tmp_path: Path) -> None:
    task = task_on(tmp_path)
    name = interrupt(task, task.steps + 7)
    other = replace(task, training=task.training.model_copy(update={"learning_rate": 0.5}))
    with pytest.raises(ArtifactError, match="written for other rows or settings"):
        load_checkpoint(other.folder, name, other.identity)
    assert bits_of(run_training(other)) == bits_of(undisturbed(other))


def test_checkpoints_of_a_longer_training_do_not_displace_those_of_a_shorter_one(tmp_path: Path) -> None:
    longer = task_on(tmp_path, max_epochs=5)
    interrupt(longer, 3 * longer.steps + 7)
    shorter = replace(longer, training=longer.training.model_copy(update={"max_epochs": 1}))
    run_training(shorter)
    found = newest_checkpoint(shorter.folder, shorter.identity)
    assert found is not None
    assert found.state.finished


def test_the_backend_does_not_change_a_training_s_identity(tmp_path: Path) -> None:
    task = task_on(tmp_path)
    elsewhere = {"backend": "horovod", "num_workers": 4, "threads": 2, "max_restarts": 0}
    assert replace(task, training=task.training.model_copy(update=elsewhere)).identity == task.identity
    assert replace(task, training=task.training.model_copy(update={"seed": 1})).identity != task.identity
    assert replace(task, empty_F=task.empty_F + 1).identity != task.identity


def test_a_write_that_fails_leaves_the_checkpoints_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"model.weight": np.ones(3, np.float32)}
    state = TrainingState(identity="task", seed=1, taken=1)
    save_checkpoint(str(tmp_path), state, tensors)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(str(tmp_path), state.model_copy(update={"taken": 2}), tensors)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


def test_a_partly_written_checkpoint_is_skipped_and_removed(tmp_path: Path) -> None:
    task = task_on(tmp_path)
    half = Path(task.folder, ".step-000000009-f00")
    half.mkdir(parents=True)
    (half / WEIGHTS).write_bytes(b"half")
    train(task, LocalComm(), silent)
    assert not half.exists()
    assert len(checkpoint_names(task.folder)) == 2


def test_a_checkpoint_is_safetensors_and_json_with_model_optimizer_and_state(tmp_path: Path) -> None:
    task = task_on(tmp_path, checkpoint_every="0s")
    folder = Path(task.folder, interrupt(task, 11))
    state = json.loads((folder / "manifest.json").read_text())
    assert (state["epoch"], state["step"], state["seed"], state["finished"]) == (1, 11, 17, False)
    assert state["taken"] == 11
    tensors = safetensors.numpy.load((folder / "weights.safetensors").read_bytes())
    kinds = {"model", "best", "optimizer.mean", "optimizer.square"}
    assert {f"{kind}.encoder_hidden.weight" for kind in kinds} <= set(tensors)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.training.test_training import silent, task_of
from userrep.training.launch.comm import LocalComm
from userrep.training.loop import train
left, fsync = 17, os.fsync

def killing(handle):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)

os.fsync = killing
train(task_of(Path(sys.argv[1]), checkpoint_every="0s"), LocalComm(), silent)
"""


def test_a_kill_while_writing_a_checkpoint_loses_only_that_checkpoint(tmp_path: Path, lines: list[str]) -> None:
    task = task_on(tmp_path, checkpoint_every="0s")
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    halves = [path for path in Path(task.folder).iterdir() if path.name.startswith(".step-")]
    assert len(halves) == 1
    result = run_training(task)
    assert lines[0] == "training resumes from its checkpoint in epoch 1, after 4 steps"  # four syncs each
    assert bits_of(result) == bits_of(undisturbed(task))
    assert not halves[0].exists()
