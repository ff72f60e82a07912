"""The training loop: it finds a planted signal, several ranks equal one, the best epoch is kept."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from tests.unit.inference.test_model import NO_TARGETS
from tests.unit.training.test_training import (
    LAYOUT,
    TARGETS,
    ThreadComm,
    bits_of,
    losses_of,
    on_ranks,
    planted,
    silent,
    task_of,
    task_on,
)
from userrep.errors import DivergedError
from userrep.model.autoencoder import Autoencoder
from userrep.model.losses import Loss
from userrep.store.arrow import unpacked
from userrep.training import loop, progress
from userrep.training.launch.comm import LocalComm
from userrep.training.loop import train

pytestmark = pytest.mark.fast


def test_a_planted_signal_can_be_read_from_the_code(tmp_path: Path) -> None:
    model = {"dropout": 0.0, "block_dropout": 0.0, "newcomer_share": 0.0, "feature_dropout": 0.1}
    model |= {"latent_dim": 6, "preset": "autoencoder"}
    task = task_on(tmp_path, model=model, max_epochs=25, patience=25, learning_rate=0.01)
    result = train(task, LocalComm(), silent)
    autoencoder = Autoencoder(LAYOUT, task.model, NO_TARGETS)
    autoencoder.load_state_dict(safetensors.torch.load(bits_of(result)))

    def code(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.c_[autoencoder.encode(torch.from_numpy(x)).numpy(), np.ones(len(x))]

    factors, x = planted(500, seed=1)
    readout, *_ = np.linalg.lstsq(code(x), factors, rcond=None)
    unseen_factors, unseen_x = planted(500, seed=2)
    residual = ((code(unseen_x) @ readout - unseen_factors) ** 2).sum(axis=0)
    r2 = 1 - residual / ((unseen_factors - unseen_factors.mean(axis=0)) ** 2).sum(axis=0)
    assert r2.min() > 0.9
    assert result.metrics["valid_loss"] < 0.2


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_equal_one_rank_at_equal_global_batch_with_all_noise_on(tmp_path: Path, size: int) -> None:
    task = task_on(tmp_path, model={"noise": 0.1, "block_dropout": 0.2, "newcomer_share": 0.1})
    assert task.model.dropout
    assert task.model.feature_dropout
    one = train(task, LocalComm(), silent)
    results = on_ranks(size, lambda comm: train(task, comm, silent))
    for result in results:
        assert losses_of(result) == pytest.approx(losses_of(one), rel=1e-4)
        assert bits_of(result) == bits_of(results[0])
    for name, weights in one.weights.items():
        np.testing.assert_allclose(results[0].weights[name], weights, atol=1e-3)


def test_early_stopping_keeps_the_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 1.0, 2.0, 1.5, 0.1])
    monkeypatch.setattr(loop._Trainer, "_validate", lambda self: {"valid_loss": next(losses)})
    seen: list[dict[str, torch.Tensor]] = []
    save = loop._Trainer._save
    monkeypatch.setattr(loop._Trainer, "_save", lambda self: (seen.append(self._weights()), save(self)))
    result = train(task_on(tmp_path, max_epochs=5, patience=2), LocalComm(), silent)
    assert len(seen) == 4
    for name, weights in safetensors.torch.load(bits_of(result)).items():
        assert torch.equal(weights, seen[1][name])
    assert [losses["valid_loss"] for losses in result.curve] == [3.0, 1.0, 2.0, 1.5]
    assert result.metrics["valid_loss"] == 1.0
    assert (result.metrics["best_epoch"], result.metrics["epochs"]) == (2, 4)


def test_validation_is_the_mean_of_both_splits_and_of_their_blocks(tmp_path: Path) -> None:
    plain = task_on(tmp_path, model={"preset": "autoencoder"}, max_epochs=1)
    metrics = train(plain, LocalComm(), silent).metrics
    assert metrics["valid_loss"] == pytest.approx((metrics["valid_users_loss"] + metrics["valid_dates_loss"]) / 2)
    per_block = [metrics[f"valid_users_loss.{block.name}"] for block in LAYOUT.blocks]
    assert metrics["valid_users_loss"] == pytest.approx(np.mean(per_block))


def test_validation_losses_are_over_all_uncorrupted_rows_for_any_batch_size(tmp_path: Path) -> None:
    task = task_on(tmp_path, batch_size=12, max_epochs=1)  # 20 rows of a shard: 12, and 8
    result = train(task, LocalComm(), silent)
    model = Autoencoder(LAYOUT, task.model, TARGETS)
    model.load_state_dict(safetensors.torch.load(bits_of(result)))
    files = [pq.read_table(path) for path in sorted((tmp_path / "split=valid_users").rglob("*.parquet"))]
    rows = np.concatenate([unpacked(file["x"].combine_chunks(), LAYOUT.width + TARGETS.width) for file in files])
    x_BF, future_BT = torch.from_numpy(rows[:, : LAYOUT.width]), torch.from_numpy(rows[:, LAYOUT.width :])
    loss = Loss(LAYOUT, TARGETS, task.model, task.read_candidates(), task.row_weight)
    with torch.inference_mode():
        losses = loss(model(x_BF), x_BF, future_BT).tolist()
    found = [result.metrics[f"valid_users_loss.{name}"] for name in loss.names]
    assert found == pytest.approx(losses, rel=1e-4, abs=1e-6)


def test_without_validation_rows_the_training_loss_selects_the_best_epoch(tmp_path: Path) -> None:
    task = task_on(tmp_path)
    result = train(replace(task, files={"train": task.files["train"]}), LocalComm(), silent)
    assert "valid_loss" not in result.metrics
    assert result.metrics["train_loss"] > 0


def test_a_loss_that_is_not_finite_stops_all_ranks(tmp_path: Path) -> None:
    task = task_on(tmp_path, spoilt="train")

    def error_of(comm: ThreadComm) -> str:
        with pytest.raises(
            DivergedError, match=r"training: at step \d+ of 36 \(learning rate .*\) the loss is nan"
        ) as error:
            train(task, comm, silent)
        return str(error.value)

    assert len(set(on_ranks(2, error_of))) == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_validation_rows_that_are_not_finite_stop_the_training(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"after epoch 1 the validation loss is nan\. Look for rows"):
        train(task_on(tmp_path, spoilt="valid_dates"), LocalComm(), silent)


def test_a_missing_file_is_named_and_leaves_no_thread(tmp_path: Path) -> None:
    task = task_on(tmp_path)
    Path(task.files["train"][2][0]).unlink()
    with pytest.raises(FileNotFoundError, match="shard=2"):
        train(task, LocalComm(), silent)
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_only_rank_0_reports_epochs_and_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REPORT_SECONDS", 0)
    task = task_on(tmp_path, max_epochs=1)
    lines: list[str] = []
    on_ranks(2, lambda comm: train(task, comm, lambda line: lines.append(f"{comm.rank} {line}")))
    assert len(lines) == task.steps
    assert lines[0].startswith("0 epoch 1/1 step 1/18 loss ")
    assert lines[-1].startswith("0 epoch 1/1 step 18/18 loss ")
    assert ", validation " in lines[-1]
    assert all("rows/s, at most" in line for line in lines)


@pytest.mark.parametrize("hidden_dim", [0, 32])
def test_products_of_lower_precision_train_as_well(tmp_path: Path, hidden_dim: int) -> None:
    model = {"hidden_dim": hidden_dim}
    full = train(task_on(tmp_path, model=model), LocalComm(), silent)
    less = train(task_of(tmp_path, model, precision="bf16"), LocalComm(), silent)
    assert less.metrics["valid_loss"] == pytest.approx(full.metrics["valid_loss"], rel=0.02)
    assert less.metrics["valid_loss"] != full.metrics["valid_loss"]
    assert all(weights.dtype == np.float32 for weights in less.weights.values())


def test_products_are_fp32_on_a_cpu_and_bf16_on_a_gpu_that_supports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loop.autocast_dtype("auto", torch.device("cpu")) is None
    for has_bf16, dtype in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has_bf16, **_: has)
        assert loop.autocast_dtype("auto", torch.device("cuda")) is dtype
