"""Training on Spark: two ranks give the losses of one. Also the planted rows that the training tests share."""

import hashlib
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyspark.sql import SparkSession

from userrep import config
from userrep.errors import SlotsError
from userrep.features.layout import InputLayout
from userrep.features.spec import FeatureSpec
from userrep.features.targets import TargetLayout
from userrep.model.frozen_folder import tensor_bytes
from userrep.store.arrow import packed
from userrep.store.filesystem import file_system
from userrep.store.schemas import TRAINING_ROWS
from userrep.training.data.shards import read_steps_per_epoch, shard_files
from userrep.training.launch import launchers
from userrep.training.launch.backends import run_training
from userrep.training.launch.comm import LocalComm
from userrep.training.launch.launchers import HorovodLaunch
from userrep.training.launch.rank_monitor import Address
from userrep.training.optimizer import Optimizer
from userrep.training.task import TrainingResult, TrainingTask
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.default

SPEC = FeatureSpec(
    windows_days=[7, 30], modalities={"behaviour": 8}, onboarding=False, registered_at=False, attributes=[], context=[]
)
LAYOUT = InputLayout.of(SPEC, {})
TARGETS = TargetLayout.of(SPEC, [7, 30])
NUM_ITEMS, NUM_DATES = 20, 2
NUM_SHARDS = 4


def planted(num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (factors, inputs). All inputs are linear in three factors, plus a little noise."""
    mixing = np.random.default_rng(0).normal(size=(3, LAYOUT.blocks[-1].start)) / np.sqrt(3)
    random = np.random.default_rng(seed)
    factors = random.normal(size=(num_rows, 3))
    x = np.ones((num_rows, LAYOUT.width), np.float32)
    x[:, : LAYOUT.blocks[-1].start] = factors @ mixing + 0.1 * random.normal(size=(num_rows, LAYOUT.blocks[-1].start))
    return factors, x


def future_of(x: np.ndarray, seed: int) -> np.ndarray:
    """Return targets: an item near the inputs' vector, counts equal to the inputs'. Half of the users have no event."""
    active = np.random.default_rng([seed, 1]).random((len(x), 1)) < 0.5
    y = np.tile(active, TARGETS.width).astype(np.float32)
    for block in TARGETS.blocks:
        if block.kind == "scalar":
            source = next(b for b in LAYOUT.blocks if b.name == block.name.replace("_next", ""))
            y[:, block.start : block.stop] *= x[:, source.start : source.stop]
    vectors, width = items(), TARGETS.item_width
    y[:, :width] *= vectors[(x[:, :width] @ vectors.T).argmax(axis=1)]
    y[:, width + 1] *= np.arange(len(x)) % NUM_DATES
    return y


def items() -> np.ndarray:
    """Return the items' vectors, the same at all dates."""
    return np.random.default_rng(9).normal(size=(NUM_ITEMS, TARGETS.item_width)).astype(np.float32)


def write_candidates(root: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write the candidate items."""
    (root / "candidates.safetensors").write_bytes(tensor_bytes(tensors))


def candidates_in(root: Path) -> tuple[str, str] | None:
    """Return the path and hash of the file of candidate items, None if it does not exist."""
    path = root / "candidates.safetensors"
    return (str(path), hashlib.sha256(path.read_bytes()).hexdigest()) if path.exists() else None


def task_on(
    root: Path, *, spoilt: str | None = None, model: dict[str, Any] | None = None, **training: Any
) -> TrainingTask:
    """Write planted rows as the shards of ``training_rows``, and return a task for them."""
    write_planted(root, spoilt, is_plain=(model or {}).get("preset") == "autoencoder")
    return task_of(root, model, **training)


def write_planted(root: Path, spoilt: str | None = None, *, is_plain: bool = False) -> None:
    root.mkdir(parents=True, exist_ok=True)
    if not is_plain:
        share = np.full(NUM_ITEMS, -np.log(NUM_ITEMS), np.float32)
        candidates = {f"vector_{d}": items() for d in range(NUM_DATES)} | {
            f"log_share_{d}": share for d in range(NUM_DATES)
        }
        write_candidates(root, candidates)
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


def task_of(
    root: Path, model: dict[str, Any] | None = None, *, targets: TargetLayout = TARGETS, **training: Any
) -> TrainingTask:
    settings = config.Model(**({"latent_dim": 16, "hidden_dim": 32, "decoder_dim": 16} | (model or {})))
    files = shard_files(map(str, root.rglob("*.parquet")), NUM_SHARDS)
    schedule = config.Training(**({"num_shards": NUM_SHARDS, "batch_size": 32, "max_epochs": 2} | training))
    return TrainingTask(
        files=files,
        steps=read_steps_per_epoch(files, schedule),
        layout=LAYOUT,
        targets=targets if settings.preset == "next_days" else TargetLayout(futures=[], blocks=[]),
        model=settings,
        training=schedule,
        empty_F=np.zeros(LAYOUT.width, np.float32),
        folder=str(root / "checkpoints"),
        candidates=candidates_in(root),
    )


class ThreadComm(LocalComm):
    """A group of ranks that are threads of this process."""

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


def bits_of(result: TrainingResult) -> bytes:
    return tensor_bytes(result.weights)


def silent(line: str) -> None:
    pass


def test_a_step_equals_that_of_torch_s_adamw() -> None:
    ours, theirs = torch.nn.Linear(5, 2), torch.nn.Linear(5, 2)
    theirs.load_state_dict(ours.state_dict())
    training = config.Training(clip_norm=1e9, weight_decay=0.1)
    optimizer = Optimizer(ours, training, 40, torch.ones(1), LocalComm())
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


def test_spark_writes_training_rows_in_the_format_the_reader_expects(done: tuple[RunContext, config.Config]) -> None:
    file, *_ = done[0].tables.read(TRAINING_ROWS).inputFiles()
    footer = pq.read_metadata(file_system(file)[1])
    x = footer.row_group(0).column(footer.schema.names.index("x"))
    assert (x.physical_type, x.compression, x.has_dictionary_page) == ("BYTE_ARRAY", "LZ4", False)


# Backends


# torchrun's agents shut down at the same time, and log C++ and Python stacks: "[W1127 ...", "E1127 ...", "frame #"
TORCH_OUTPUT = re.compile(r"\[?[IWE]\d{4} |Exception raised from |frame #|<omitting python frames>|$")


@pytest.mark.parametrize("backend", ["horovod", "torch_distributor"])
@pytest.mark.full
def test_two_ranks_on_spark_give_the_losses_of_one_and_report_progress(
    tmp_path: Path,
    spark: SparkSession,
    capfd: pytest.CaptureFixture[str],
    log_to_stderr: Callable[[], None],
    backend: str,
) -> None:
    task = task_on(tmp_path)
    local = run_training(replace(task, folder=str(tmp_path / "local")))
    on_spark = replace(task, training=task.training.model_copy(update={"backend": backend, "num_workers": 2}))
    capfd.readouterr()
    log_to_stderr()
    result = run_training(on_spark, spark=spark)
    said = capfd.readouterr()
    assert losses_of(result) == pytest.approx(losses_of(local), rel=1e-4)
    assert result.curve == [pytest.approx(losses, rel=1e-4) for losses in local.curve]
    lines = [line for line in said.err.splitlines() if not TORCH_OUTPUT.match(line)]
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
    """Fit and apply a Spark ML model, whose summary is serialized into tasks with its session."""
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.linalg import Vectors

    rows = spark.createDataFrame([(0.0, Vectors.dense(-1.0)), (1.0, Vectors.dense(1.0))], ["label", "features"])
    model = LogisticRegression().fit(rows)
    return [row.prediction for row in model.transform(rows.repartition(1).sortWithinPartitions("label")).collect()]


def horovod_task(tmp_path: Path, num_workers: int) -> TrainingTask:
    return task_on(tmp_path, backend="horovod", num_workers=num_workers)


def test_too_few_slots_are_refused_with_the_setting_to_change(tmp_path: Path, spark: SparkSession) -> None:
    with pytest.raises(
        SlotsError, match=r"num_workers is 4, but Spark can run 2 tasks at once. Set training.num_workers"
    ):
        run_training(horovod_task(tmp_path, 4), spark=spark)


def test_horovod_s_launcher_installs_no_signal_handler_and_prints_no_traceback_of_its_threads(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import horovod.runner.gloo_run
    import horovod.spark

    seen: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.thread.name))

    def run(fn: Any, **_: Any) -> None:
        assert isinstance(horovod.runner.gloo_run.register_shutdown_event(), threading.Event)
        for name in ("Thread-7 (run_spark)", "someone else's"):
            thread = threading.Thread(target=lambda: 1 / 0, name=name)
            thread.start()
            thread.join()

    monkeypatch.setattr(horovod.spark, "run", run)
    launch = HorovodLaunch(spark)
    launch.run(task_on(tmp_path), Address("h", 1, "t"), None)
    assert seen == ["someone else's"]
    assert launchers.threading.excepthook is threading.excepthook
