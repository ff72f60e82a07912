"""The training loop and its backends: two ranks equal one, a planted signal is found, faults stop all ranks."""

import re
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from py4j.protocol import Py4JError
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

from userrep import config
from userrep.arrow import packed
from userrep.errors import DivergedError, SlotsError, UsageError
from userrep.features.layout import InputLayout
from userrep.features.spec import FeatureSpec
from userrep.features.targets import TargetLayout
from userrep.model.autoencoder import Autoencoder
from userrep.training import loop, progress
from userrep.training.backends import run_training
from userrep.training.comm import LocalComm, chosen_device
from userrep.training.horovod_launch import num_slots
from userrep.training.loop import train
from userrep.training.optimizer import Optimizer
from userrep.training.shards import shard_files
from userrep.training.task import TrainingResult, TrainingTask

pytestmark = pytest.mark.default

SPEC = FeatureSpec(
    windows_days=[7, 30], modalities={"behaviour": 8}, onboarding=False, registered_at=False, attributes=[], context=[]
)
LAYOUT = InputLayout.of(SPEC, {})
TARGETS = TargetLayout.of(LAYOUT, [7, 30])
NUM_SHARDS = 4


def planted(num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (factors, inputs): all inputs are linear in three factors, but for a little noise."""
    mixing = np.random.default_rng(0).normal(size=(3, LAYOUT.blocks[-1].start)) / np.sqrt(3)
    random = np.random.default_rng(seed)
    factors = random.normal(size=(num_rows, 3))
    x = np.ones((num_rows, LAYOUT.width), np.float32)
    x[:, : LAYOUT.blocks[-1].start] = factors @ mixing + 0.1 * random.normal(size=(num_rows, LAYOUT.blocks[-1].start))
    return factors, x


def future_of(x: np.ndarray, seed: int) -> np.ndarray:
    """Return targets: vectors and counts as the inputs of the window are; half of the users have no event."""
    active = np.random.default_rng([seed, 1]).random((len(x), 1)) < 0.5
    y = np.tile(active, TARGETS.width).astype(np.float32)
    for block in TARGETS.blocks:
        if block.kind != "flags":
            source = next(b for b in LAYOUT.blocks if b.name == block.name.replace("_next", ""))
            y[:, block.start : block.stop] *= x[:, source.start : source.stop]
    return y


def task_on(
    root: Path, *, spoilt: str | None = None, model: dict[str, Any] | None = None, **training: Any
) -> TrainingTask:
    """Write planted rows as the shards of ``training_rows``, and make a task of them."""
    write_planted(root, spoilt, is_plain=not (model or {}).get("future_weight", 1))
    return task_of(root, model, **training)


def write_planted(root: Path, spoilt: str | None = None, *, is_plain: bool = False) -> None:
    for split, num_rows in (("train", 150), ("valid_users", 20), ("valid_dates", 10)):
        for shard in range(NUM_SHARDS):
            seed = 1000 * len(split) + shard
            _, x = planted(num_rows, seed)
            if split == spoilt:
                x[-1, 0] = np.nan
            numbers = x if is_plain else np.hstack([x, future_of(x, seed)])
            rows = pa.table({"row_key": np.arange(num_rows) + 1000 * shard, "x": packed(numbers)})
            folder = root / f"split={split}" / f"shard={shard}"
            folder.mkdir(parents=True)
            pq.write_table(rows, folder / "part.parquet", row_group_size=64)


def task_of(root: Path, model: dict[str, Any] | None = None, **training: Any) -> TrainingTask:
    settings = config.Model(**({"latent_dim": 16, "hidden_dim": 32, "decoder_dim": 16} | (model or {})))
    return TrainingTask.of(
        shard_files(map(str, root.rglob("*.parquet")), NUM_SHARDS),
        layout=LAYOUT,
        targets=TARGETS if settings.future_weight else TargetLayout(blocks=[]),
        model=settings,
        training=config.Training(**({"num_shards": NUM_SHARDS, "batch_size": 32, "max_epochs": 2} | training)),
        empty_F=np.zeros(LAYOUT.width, np.float32),
        folder=str(root / "checkpoints"),
    )


class ThreadComm(LocalComm):
    """Ranks as threads of this process."""

    def __init__(self, rank: int, tensors: list[torch.Tensor | None], barrier: threading.Barrier) -> None:
        super().__init__()
        self.rank, self.size, self._tensors, self._barrier = rank, len(tensors), tensors, barrier

    def mean_(self, tensor: torch.Tensor) -> None:
        self._tensors[self.rank] = tensor.clone()
        self._barrier.wait(timeout=20)
        mean = torch.stack(self._tensors).mean(dim=0)  # type: ignore[arg-type]
        self._barrier.wait(timeout=20)
        tensor.copy_(mean)


def on_ranks(size: int, run: Callable[[ThreadComm], Any]) -> list[Any]:
    tensors: list[torch.Tensor | None] = [None] * size
    barrier = threading.Barrier(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: run(ThreadComm(rank, tensors, barrier)), range(size)))


def losses_of(result: TrainingResult) -> dict[str, float]:
    return {name: value for name, value in result.metrics.items() if "loss" in name}


def silent(line: str) -> None:
    pass


def optimizer_of(
    model: torch.nn.Module, comm: Any = None, *, num_steps: int = 10, scaled: bool = False, **training: Any
) -> Optimizer:
    return Optimizer(model, config.Training(**training), num_steps, torch.ones(1), comm or LocalComm(), scaled=scaled)


# The loop


def test_a_planted_signal_can_be_read_from_the_code(tmp_path: Path) -> None:
    model = {"dropout": 0.0, "block_dropout": 0.0, "newcomer_share": 0.0, "feature_dropout": 0.1}
    model |= {"latent_dim": 6, "future_weight": 0.0}
    task = task_on(tmp_path, model=model, max_epochs=25, patience=25, learning_rate=0.01)
    result = train(task, LocalComm(), silent)
    autoencoder = Autoencoder(LAYOUT, task.model)
    autoencoder.load_state_dict(safetensors.torch.load(result.weights))

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
    task = task_on(tmp_path)
    assert task.model.dropout
    assert task.model.block_dropout
    one = train(task, LocalComm(), silent)
    results = on_ranks(size, lambda comm: train(task, comm, silent))
    for result in results:
        assert losses_of(result) == pytest.approx(losses_of(one), rel=1e-4)
        assert result.weights == results[0].weights
    expected, got = safetensors.numpy.load(one.weights), safetensors.numpy.load(results[0].weights)
    for name, weights in expected.items():
        np.testing.assert_allclose(got[name], weights, atol=1e-3)


def test_gradients_of_two_ranks_average_to_those_of_one() -> None:
    x_BF = torch.from_numpy(planted(16, seed=1)[1])

    def gradient(comm: Any) -> torch.Tensor:
        model = Autoencoder(LAYOUT, config.Model(hidden_dim=8, latent_dim=16, decoder_dim=8), seed=1)
        optimizer = optimizer_of(model, comm, clip_norm=1e9)
        mine_BF = x_BF[comm.rank :: comm.size]
        optimizer.step((model(mine_BF).reconstruction_BF - mine_BF).square().mean()[None])
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    expected = gradient(LocalComm())
    assert expected.abs().max() > 0
    for got in on_ranks(2, gradient):
        torch.testing.assert_close(got, expected)


def test_a_gradient_is_clipped_after_it_is_averaged() -> None:
    model = Autoencoder(LAYOUT, config.Model(hidden_dim=8, latent_dim=16, decoder_dim=8))
    optimizer = optimizer_of(model, clip_norm=0.01)
    optimizer.step(100 * model(torch.ones(4, LAYOUT.width)).reconstruction_BF.square().mean()[None])
    norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm().item()
    assert norm == pytest.approx(0.01, rel=1e-4)


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = optimizer_of(model, num_steps=100, learning_rate=0.1)
    rates = []
    for _ in range(100):
        rates.append(optimizer.learning_rate)
        optimizer.step(model(torch.ones(1, 2)).square().mean()[None])
    assert rates[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 1e-4


def test_a_step_is_that_of_torch_s_own_adamw() -> None:
    ours, theirs = torch.nn.Linear(5, 2), torch.nn.Linear(5, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizer = optimizer_of(ours, num_steps=40, clip_norm=1e9, weight_decay=0.1)
    adamw = torch.optim.AdamW(theirs.parameters(), weight_decay=0.1)
    for k in range(20):
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(k))
        adamw.param_groups[0]["lr"] = optimizer.learning_rate
        optimizer.step(ours(x).square().mean()[None])
        adamw.zero_grad()
        theirs(x).square().mean().backward()
        adamw.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


def test_early_stopping_keeps_the_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 1.0, 2.0, 1.5, 0.1])
    monkeypatch.setattr(loop._Trainer, "_validate", lambda self: {"valid_loss": next(losses)})
    seen: list[dict[str, torch.Tensor]] = []
    save = loop._Trainer._save
    monkeypatch.setattr(loop._Trainer, "_save", lambda self: (seen.append(self._weights()), save(self)))
    result = train(task_on(tmp_path, max_epochs=5, patience=2), LocalComm(), silent)
    assert len(seen) == 4
    for name, weights in safetensors.torch.load(result.weights).items():
        assert torch.equal(weights, seen[1][name])
    assert [losses["valid_loss"] for losses in result.curve] == [3.0, 1.0, 2.0, 1.5]
    assert result.metrics["valid_loss"] == 1.0
    assert (result.metrics["best_epoch"], result.metrics["epochs"]) == (2, 4)


def test_validation_is_the_mean_of_both_splits_and_of_their_blocks(tmp_path: Path) -> None:
    plain = task_on(tmp_path, model={"future_weight": 0.0}, max_epochs=1)
    metrics = train(plain, LocalComm(), silent).metrics
    assert metrics["valid_loss"] == pytest.approx((metrics["valid_users_loss"] + metrics["valid_dates_loss"]) / 2)
    per_block = [metrics[f"valid_users_loss.{block.name}"] for block in LAYOUT.blocks]
    assert metrics["valid_users_loss"] == pytest.approx(np.mean(per_block))


def test_without_validation_rows_the_training_loss_decides(tmp_path: Path) -> None:
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
    with pytest.raises(DivergedError, match=r"after epoch 1 the loss on validation rows is nan: look for rows"):
        train(task_on(tmp_path, spoilt="valid_dates"), LocalComm(), silent)


def test_a_split_without_rows_cannot_be_trained_on(tmp_path: Path) -> None:
    task = task_on(tmp_path)
    with pytest.raises(UsageError, match=r"the smallest of 4 shards has 0 rows"):
        TrainingTask.of(
            {},
            layout=LAYOUT,
            targets=TARGETS,
            model=task.model,
            training=task.training,
            empty_F=task.empty_F,
            folder="",
        )


def test_a_file_that_is_gone_is_named_and_leaves_no_thread(tmp_path: Path) -> None:
    task = task_on(tmp_path)
    Path(task.files["train"][2][0]).unlink()
    with pytest.raises(FileNotFoundError, match="shard=2"):
        train(task, LocalComm(), silent)
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_rank_0_alone_reports_epochs_and_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REPORT_SECONDS", 0)
    task = task_on(tmp_path, max_epochs=1)
    lines: list[str] = []
    on_ranks(2, lambda comm: train(task, comm, lambda line: lines.append(f"{comm.rank} {line}")))
    assert len(lines) == task.steps
    assert lines[0].startswith("0 epoch 1/1 step 1/18 loss ")
    assert lines[-1].startswith("0 epoch 1/1 step 18/18 loss ")
    assert ", validation " in lines[-1]
    assert all("(behaviour " in line and "rows/s, at most" in line for line in lines)


def test_a_batch_per_rank_makes_larger_steps_at_a_higher_learning_rate(tmp_path: Path) -> None:
    whole = task_on(tmp_path, batch_size=32, learning_rate=2e-3)
    training = config.Training(
        num_shards=NUM_SHARDS, batch_size_per_rank=16, max_epochs=2, backend="horovod", num_workers=2
    )
    parts = replace(whole, training=training)
    assert config.Training.model_validate_json(training.model_dump_json()) == training
    assert parts.identity == whole.identity
    one = train(whole, LocalComm(), silent)
    for result in on_ranks(2, lambda comm: train(parts, comm, silent)):
        assert losses_of(result) == pytest.approx(losses_of(one), rel=1e-4)


@pytest.mark.parametrize("latent_dim", [16, 32])  # the latter has room for a taste
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_products_of_less_precision_train_as_well(tmp_path: Path, precision: str, latent_dim: int) -> None:
    model = {"latent_dim": latent_dim}
    full = train(task_on(tmp_path, model=model), LocalComm(), silent)
    less = train(task_of(tmp_path, model, precision=precision), LocalComm(), silent)
    assert less.metrics["valid_loss"] == pytest.approx(full.metrics["valid_loss"], rel=0.02)
    assert less.metrics["valid_loss"] != full.metrics["valid_loss"]
    assert all(weights.dtype == np.float32 for weights in safetensors.numpy.load(less.weights).values())


def test_products_are_fp32_on_a_cpu_and_on_a_gpu_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loop.autocast_dtype("auto", torch.device("cpu")) is None
    for has_bf16, dtype in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has_bf16, **_: has)
        assert loop.autocast_dtype("auto", torch.device("cuda")) is dtype


def test_a_step_whose_scaled_gradient_overflows_is_left_out_and_the_scale_halved() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = optimizer_of(model, scaled=True)
    before, scale = model.weight.detach().clone(), optimizer.state()[1]["scale"]
    optimizer.step(1e37 * model(torch.ones(1, 2)).abs().mean()[None])
    assert torch.equal(model.weight, before)
    assert optimizer.state()[1]["scale"] == scale / 2
    optimizer.step(model(torch.ones(1, 2)).square().mean()[None])
    assert not torch.equal(model.weight, before)
    with pytest.raises(DivergedError, match="the loss is inf"):
        optimizer.step(torch.inf * model(torch.ones(1, 2)).abs().mean()[None])


def test_a_rank_takes_the_gpu_that_spark_assigned_else_the_cpu_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_device([], 0) == (torch.device("cpu"), "CPU")
    assert chosen_device(["3"], 3) == (torch.device("cpu"), "CPU, Spark assigned GPU 3, but torch finds no CUDA")
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    assert chosen_device(["3"], 3) == (torch.device("cuda", 3), "H100 (cuda:3, Spark assigned GPU 3)")
    assert chosen_device(["6"], 6)[0] == torch.device("cuda", 2)  # a container that shows four
    assert chosen == [torch.device("cuda", 3), torch.device("cuda", 2)]


# Backends


# torch's agents part at the same time, and say so with C++ and Python stacks: "[W1127 ...", "E1127 ...", "frame #"
OF_TORCH = re.compile(r"\[?[IWE]\d{4} |Exception raised from |frame #|<omitting python frames>|$")


@pytest.mark.parametrize("backend", ["horovod", "torch_distributor"])
def test_two_ranks_on_spark_give_the_losses_of_one_and_report(
    tmp_path: Path, spark: SparkSession, capfd: pytest.CaptureFixture[str], backend: str
) -> None:
    task = task_on(tmp_path)
    local = run_training(replace(task, folder=str(tmp_path / "local")), report=silent)
    on_spark = replace(task, training=task.training.model_copy(update={"backend": backend, "num_workers": 2}))
    capfd.readouterr()
    result = run_training(on_spark, spark=spark)
    said = capfd.readouterr()
    assert losses_of(result) == pytest.approx(losses_of(local), rel=1e-4)
    assert result.curve == [pytest.approx(losses, rel=1e-4) for losses in local.curve]
    lines = [line for line in said.err.splitlines() if not OF_TORCH.match(line)]
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    assert [line[9:].split(" loss")[0] for line in lines] == [
        f"ranks: 0 {socket.gethostname()}: CPU; 1 {socket.gethostname()}: CPU",
        "epoch 1/2 step 18/18",
        "epoch 2/2 step 18/18",
    ]
    assert said.out == ""
    assert [rank["rank"] for rank in result.ranks] == [0, 1]
    assert all(rank["rows_per_second"] > 0 for rank in result.ranks)
    assert predicted(spark) == [0.0, 1.0]


def predicted(spark: SparkSession) -> list[float]:
    """Fit and apply a model of Spark ML: its summary takes the session along into tasks."""
    rows = spark.createDataFrame([(0.0, Vectors.dense(-1.0)), (1.0, Vectors.dense(1.0))], ["label", "features"])
    model = LogisticRegression().fit(rows)
    return [row.prediction for row in model.transform(rows.repartition(1).sortWithinPartitions("label")).collect()]


def horovod_task(tmp_path: Path, num_workers: int) -> TrainingTask:
    return task_on(tmp_path, backend="horovod", num_workers=num_workers)


def test_too_few_slots_are_told_with_the_setting_to_change(tmp_path: Path, spark: SparkSession) -> None:
    with pytest.raises(
        SlotsError, match=r"num_workers is 4, but Spark can run 2 tasks at once: set training.num_workers"
    ):
        run_training(horovod_task(tmp_path, 4), spark=spark)


def test_a_missing_horovod_is_told_with_the_cure(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "horovod", None)
    monkeypatch.setitem(sys.modules, "horovod.spark", None)
    with pytest.raises(UsageError, match=r"Horovod is not installed. Build it with deploy/build_horovod_wheel.sh"):
        run_training(horovod_task(tmp_path, 2), spark=spark)


def test_slots_are_counted_without_the_scheduler_where_it_may_not_be_asked() -> None:
    def sc() -> None:
        raise Py4JError("not on the allow-list")

    context = SimpleNamespace(
        defaultParallelism=9, _jsc=SimpleNamespace(sc=sc), getConf=lambda: {"spark.task.cpus": "4"}
    )
    assert num_slots(SimpleNamespace(sparkContext=context)) == 2  # type: ignore[arg-type]
