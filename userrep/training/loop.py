"""One training loop for every backend: it knows of other ranks what ``Comm`` says, and nothing else.

Shapes: B rows, F inputs, H hidden units, K blocks.
"""

import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from userrep import config
from userrep.errors import DivergedError
from userrep.features.layout import InputLayout
from userrep.model.autoencoder import Autoencoder
from userrep.model.corruption import Corrupted, Corruption
from userrep.model.losses import ReconstructionLoss
from userrep.training.comm import Comm
from userrep.training.optimizer import Optimizer
from userrep.training.progress import Progress
from userrep.training.shards import (
    Batch,
    ShardFiles,
    count_rows,
    epoch_batches,
    first_rows,
    prefetched,
    steps_per_epoch,
)

VALID_SPLITS = ("valid_users", "valid_dates")
VALID_ROWS = 16_384  # at most, of each split, over all ranks; they stay in memory


@dataclass(frozen=True)
class TrainingTask:
    """All that a rank needs; small, and the same for every rank."""

    files: ShardFiles
    steps: int  # of one epoch
    layout: str  # JSON
    model: config.Model
    training: config.Training
    empty_F: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        files: ShardFiles,
        *,
        layout: InputLayout,
        model: config.Model,
        training: config.Training,
        empty_F: NDArray[np.float32],
    ) -> "TrainingTask":
        """Count the rows (once, from the files' footers) and fix the steps of an epoch."""
        shards = files.get("train") or [[] for _ in range(training.num_shards)]
        steps = steps_per_epoch(count_rows(shards), training.batch_size)
        return cls(files, steps, layout.model_dump_json(), model, training, empty_F)


@dataclass(frozen=True)
class TrainingResult:
    """``weights``: the best epoch's, as safetensors. ``metrics``: its losses, total and per block, and the cost."""

    weights: bytes
    metrics: dict[str, float]


def train(task: TrainingTask, comm: Comm, report: Callable[[str], None]) -> TrainingResult:
    """Train to the end or until ``patience`` epochs have brought nothing; keep the best epoch's weights.

    Judged is the mean loss over the validation splits that have rows, on clean inputs; without any, the training
    loss. All ranks return the same; rank 0 alone reports.

    Raises
    ------
    DivergedError
        On every rank at once, if the loss, its gradient, or the loss on validation rows is not finite.
    """
    torch.set_num_threads(task.training.threads)
    trainer = _Trainer(task, comm, report if comm.rank == 0 else lambda _: None)
    best_loss, best_epoch = math.inf, 0
    weights, metrics = b"", dict[str, float]()
    for epoch in range(1, task.training.max_epochs + 1):
        losses = trainer.epoch(epoch)
        judged = losses.get("valid_loss", losses["train_loss"])
        if not math.isfinite(judged):
            raise DivergedError(
                f"training: after epoch {epoch} the loss on validation rows is {judged}: "
                "look for rows that are not finite, and set training.learning_rate lower."
            )
        if judged < best_loss:
            best_loss, best_epoch, weights, metrics = judged, epoch, trainer.weights(), losses
        if epoch - best_epoch >= task.training.patience:
            break
    return TrainingResult(weights, metrics | {"epochs": epoch, "best_epoch": best_epoch} | trainer.progress.cost())


class _Trainer:
    """Model, optimiser and data of one rank."""

    def __init__(self, task: TrainingTask, comm: Comm, report: Callable[[str], None]) -> None:
        training = task.training
        layout = InputLayout.model_validate_json(task.layout)
        self._task, self._comm, self._width = task, comm, layout.width
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._corruption = Corruption(layout, task.model, task.empty_F, seed=training.seed)
        self._model = Autoencoder.of(layout.width, task.model, training.seed).to(self._device)
        self._loss = ReconstructionLoss(layout).to(self._device)
        self._optimizer = Optimizer(self._model, training, task.steps * training.max_epochs, comm)
        self._valid = {split: self._valid_rows(split) for split in VALID_SPLITS if any(task.files.get(split, []))}
        self.progress = Progress(
            report, steps=task.steps, max_epochs=training.max_epochs, batch_size=training.batch_size
        )

    def epoch(self, epoch: int) -> dict[str, float]:
        """Take one epoch's steps, then look at the validation rows; return the losses, means over ranks."""
        total = 0.0
        self.progress.epoch_started()
        with closing(prefetched(self._batches(epoch))) as batches:
            for step in range(1, self._task.steps + 1):
                with self.progress.waiting():
                    batch, corrupted = next(batches)
                keep_BH = None if corrupted.keep_BH is None else self._on_device(corrupted.keep_BH)
                _, reconstruction_BF = self._model(self._on_device(corrupted.x_BF), keep_BH)
                per_block_K = self._loss(reconstruction_BF, self._on_device(batch.x_BF))
                total += self._optimizer.step(per_block_K.mean())
                self.progress.step_done(epoch, step, total / step)
        losses = {"train_loss": total / self._task.steps} | self._validate()
        self.progress.epoch_done(epoch, losses)
        return losses

    def weights(self) -> bytes:
        """Return the model's weights as safetensors."""
        weights: bytes = safetensors.torch.save({name: t.cpu() for name, t in self._model.state_dict().items()})
        return weights

    def _batches(self, epoch: int) -> Generator[tuple[Batch, Corrupted]]:
        task = self._task
        batches = epoch_batches(
            task.files["train"],
            rank=self._comm.rank,
            size=self._comm.size,
            batch_size=task.training.batch_size,
            steps=task.steps,
            width=self._width,
            seed=task.training.seed,
            epoch=epoch,
        )
        for batch in batches:
            yield batch, self._corruption(batch.x_BF, batch.row_key_B, epoch=epoch)

    def _valid_rows(self, split: str) -> NDArray[np.float32]:
        return first_rows(
            self._task.files[split],
            rank=self._comm.rank,
            size=self._comm.size,
            max_rows=VALID_ROWS,
            width=self._width,
        )

    @torch.inference_mode()
    def _validate(self) -> dict[str, float]:
        """Return the loss per split and block, the mean over a split's rows on all ranks."""
        losses: dict[str, float] = {}
        for split, x_NF in self._valid.items():
            sums = torch.zeros(len(self._loss.names) + 1, dtype=torch.float64)
            for start in range(0, len(x_NF), self._task.training.batch_size):
                x_BF = self._on_device(x_NF[start : start + self._task.training.batch_size])
                per_block_K = self._loss(self._model(x_BF)[1], x_BF)
                sums[:-1] += len(x_BF) * per_block_K.double().cpu()
                sums[-1] += len(x_BF)
            self._comm.mean_(sums)
            per_block_K = sums[:-1] / sums[-1]
            losses[f"{split}_loss"] = per_block_K.mean().item()
            losses |= {
                f"{split}_loss.{name}": loss for name, loss in zip(self._loss.names, per_block_K.tolist(), strict=True)
            }
        if self._valid:
            losses["valid_loss"] = sum(losses[f"{split}_loss"] for split in self._valid) / len(self._valid)
        return losses

    def _on_device(self, array: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(array).to(self._device)
