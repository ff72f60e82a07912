"""The training loop, the same for every backend. It communicates with other ranks only through ``Comm``.

Shapes: B rows, F inputs, T targets, H hidden units, K blocks of inputs and targets.
"""

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import timedelta
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from userrep.errors import DivergedError
from userrep.model.autoencoder import Autoencoder
from userrep.model.corruption import Corrupted, Corruption
from userrep.model.frozen_folder import Tensors
from userrep.model.losses import Loss
from userrep.store.filesystem import delete_partials
from userrep.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from userrep.training.data.row_stream import Batch, prefetched
from userrep.training.data.shards import epoch_batches, first_rows
from userrep.training.launch.comm import Comm
from userrep.training.optimizer import Optimizer
from userrep.training.progress import Progress
from userrep.training.task import TrainingResult, TrainingTask

VALID_SPLITS = ("valid_users", "valid_dates")
MAX_VALID_ROWS = 16_384  # of each split, over all ranks; they stay in memory


def train(
    task: TrainingTask, comm: Comm, report: Callable[[str], None], *, resume: str | None = None
) -> TrainingResult:
    """Train until the last epoch, or until ``patience`` epochs bring no improvement. Keeps the best epoch's weights.

    The best epoch has the lowest mean loss over the validation splits that have rows, measured on uncorrupted inputs;
    without validation rows, the lowest training loss. All ranks return the same weights and losses. Only rank 0 reports
    and writes checkpoints to ``task.folder``.

    ``resume``: the name of the checkpoint to resume from. With the same number of ranks, the result is bit-identical to
    that of an uninterrupted run.

    Raises
    ------
    DivergedError
        On every rank at once, if the loss, its gradient or the validation loss is not finite.
    PeerLostError
        If another rank has ended or is unreachable.
    """
    torch.set_num_threads(task.training.threads)
    trainer = _Trainer(task, comm, report if comm.rank == 0 else lambda _: None, resume)
    if comm.rank == 0:
        delete_partials(task.folder, older_than=timedelta(0))
    while not trainer.state.finished:
        trainer.run_epoch()
    return trainer.result()


class _Trainer:
    """Model, optimizer and data of one rank. ``resume``: the checkpoint to resume from."""

    def __init__(
        self, task: TrainingTask, comm: Comm, report: Callable[[str], None], resume: str | None = None
    ) -> None:
        training, layout, targets = task.training, task.layout, task.targets
        self._task, self._comm, self._device = task, comm, comm.device
        self._num_inputs, self._width = layout.width, layout.width + targets.width
        self._dtype = autocast_dtype(training.precision, comm.device)
        self._corruption = Corruption(layout, task.model, task.empty_F, seed=training.seed)
        self._model = Autoencoder(layout, task.model, targets, seed=training.seed).to(self._device)
        if task.initial:
            self._load(_as_torch(task.initial))
        self._best = self._weights()
        self._loss = Loss(layout, targets, task.model, task.read_candidates(), task.row_weight).to(self._device)
        self._optimizer = Optimizer(self._model, training, task.steps * training.max_epochs, self._loss.weight_K, comm)
        self._valid = {  # one array per shard of this rank
            split: first_rows(shards, rank=comm.rank, size=comm.size, max_rows=MAX_VALID_ROWS, width=self._width)
            for split in VALID_SPLITS
            if any(shards := task.files.get(split, []))
        }
        self.state = TrainingState(identity=task.identity, seed=training.seed, sums=[0.0] * len(self._loss.names))
        if resume is not None:
            self._restore(resume)
        self._saved_at, self._save_after = time.monotonic(), training.checkpoint_every.total_seconds()
        self.progress = Progress(
            report, steps=task.steps, max_epochs=training.max_epochs, batch_size=training.batch_size,
            taken=self.state.taken, earlier=self.state.seconds,
        )  # fmt: skip

    def _restore(self, name: str) -> None:
        self.state, arrays = load_checkpoint(self._task.folder, name, self._task.identity)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
        for key, tensor in _as_torch(arrays).items():
            kind, _, part_name = key.partition(".")
            parts[kind][part_name] = tensor
        self._load(parts["model"])
        self._best = parts["best"]
        self._optimizer.restore(parts["optimizer"], self.state.taken)

    def run_epoch(self) -> None:
        """Take the remaining steps of the epoch, compute the validation losses, and write a checkpoint."""
        state = self.state
        self.progress.epoch_started()
        with closing(prefetched(self._batches(state.epoch, state.step))) as batches:
            while state.step < self._task.steps:
                with self.progress.waiting():
                    batch, corrupted = next(batches)
                losses = self._step(batch, corrupted).tolist()
                state.step += 1
                state.sums = [total + loss for total, loss in zip(state.sums, losses, strict=True)]
                self.progress.step_done(state.epoch, state.step, self._loss.total(self._train_losses()))
                if state.step < self._task.steps and time.monotonic() - self._saved_at >= self._save_after:
                    self._save()
        train_losses = self._train_losses()
        losses_by_name = {"train_loss": self._loss.total(train_losses)}
        losses_by_name |= {f"train_loss.{name}": loss for name, loss in train_losses.items()} | self._validate()
        self.progress.epoch_done(state.epoch, losses_by_name["train_loss"], losses_by_name.get("valid_loss"))
        self._finish_epoch(losses_by_name)
        self._save()

    def result(self) -> TrainingResult:
        """Return the best epoch's weights and losses, and the cost of the training on this rank."""
        rank = {
            "rank": self._comm.rank,
            "device": self._comm.device_name,
            "rows_per_second": self.progress.rows_per_second / self._comm.size,
            "waiting_share": self.progress.waiting_share,
        }
        weights = {name: tensor.numpy() for name, tensor in self._best.items()}
        return TrainingResult.of(self.state, weights, ranks=[rank])

    def _step(self, batch: Batch, corrupted: Corrupted) -> Tensor:
        keep_BH = None if corrupted.keep_BH is None else self._on_device(corrupted.keep_BH)
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
            outputs = self._model(self._on_device(corrupted.x_BF), keep_BH)
        return self._optimizer.step(self._loss(outputs, *self._parts(batch.x_BF)))

    def _finish_epoch(self, losses: dict[str, float]) -> None:
        """Record an epoch's losses, and decide whether it is the best and the last. All ranks decide the same."""
        state, training = self.state, self._task.training
        loss = losses.get("valid_loss", losses["train_loss"])
        if not math.isfinite(loss):
            raise DivergedError(
                f"training: after epoch {state.epoch} the validation loss is {loss}. "
                "Look for rows that are not finite, and lower training.learning_rate."
            )
        state.curve.append({"epoch": state.epoch} | losses)
        if state.best_loss is None or loss < state.best_loss:
            state.best_loss, state.best_epoch, self._best = loss, state.epoch, self._weights()
        state.finished = state.epoch - state.best_epoch >= training.patience or state.epoch == training.max_epochs
        state.epoch, state.step, state.sums = state.epoch + 1, 0, [0.0] * len(state.sums)

    def _save(self) -> None:
        """Write a checkpoint on rank 0. All ranks have the same state."""
        self._saved_at = time.monotonic()
        if self._comm.rank != 0:
            return
        parts = {"model": self._weights(), "best": self._best, "optimizer": self._optimizer.state()}
        self.state.taken, self.state.seconds = self._optimizer.taken, self.progress.seconds
        flat = {f"{kind}.{name}": tensor.cpu().numpy() for kind, part in parts.items() for name, tensor in part.items()}
        save_checkpoint(self._task.folder, self.state, flat)

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self._model.state_dict().items()}

    @torch.no_grad()
    def _load(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self._model.named_parameters():
            parameter.copy_(weights[name])

    def _train_losses(self) -> dict[str, float]:
        """Return the mean losses of the epoch so far, by block."""
        return {name: total / self.state.step for name, total in zip(self._loss.names, self.state.sums, strict=True)}

    def _batches(self, epoch: int, first_step: int) -> Generator[tuple[Batch, Corrupted]]:
        task, comm = self._task, self._comm
        batches = epoch_batches(
            task.files["train"],
            rank=comm.rank,
            size=comm.size,
            batch_size=task.training.batch_size,
            steps=task.steps,
            width=self._width,
            seed=task.training.seed,
            epoch=epoch,
            first_step=first_step,
        )
        for batch in batches:
            yield batch, self._corruption(batch.x_BF[:, : self._num_inputs], batch.row_key_B, epoch=epoch)

    @torch.inference_mode()
    def _validate(self) -> dict[str, float]:
        """Return the mean loss by split and block over the rows of all ranks, and ``valid_loss``, the splits' mean."""
        losses: dict[str, float] = {}
        for split, shards in self._valid.items():
            sums = torch.zeros(len(self._loss.names) + 1, dtype=torch.float64)
            size = self._task.training.batch_size
            for rows in (x_NF[start : start + size] for x_NF in shards for start in range(0, len(x_NF), size)):
                x_BF, future_BT = self._parts(rows)
                per_block_K = self._loss(self._model(x_BF), x_BF, future_BT)
                sums[:-1] += len(x_BF) * per_block_K.double().cpu()
                sums[-1] += len(x_BF)
            self._comm.mean_(sums)
            per_block_K = sums[:-1] / sums[-1]
            by_name = dict(zip(self._loss.names, per_block_K.tolist(), strict=True))
            losses[f"{split}_loss"] = self._loss.total(by_name)
            losses |= {f"{split}_loss.{name}": loss for name, loss in by_name.items()}
        if self._valid:
            losses["valid_loss"] = sum(losses[f"{split}_loss"] for split in self._valid) / len(self._valid)
        return losses

    def _parts(self, rows: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        """Split rows into inputs and targets, on the device."""
        on_device = self._on_device(rows)
        return on_device[:, : self._num_inputs], on_device[:, self._num_inputs :]

    def _on_device(self, array: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def autocast_dtype(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype | None:
    """Return the type of matrix products, None for fp32. ``auto``: bf16 on GPUs that support it natively."""
    if precision == "auto":
        has_bf16 = device.type != "cpu" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bf16 else None
    return {"fp32": None, "bf16": torch.bfloat16}[precision]


def _as_torch(arrays: Tensors) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
