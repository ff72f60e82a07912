"""Training tasks: the steps of an epoch, the identity of a training, and its result."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.builders import write_training_rows
from tests.unit.training.test_training import LAYOUT, TARGETS, task_on
from userrep import config
from userrep.errors import UsageError
from userrep.features.targets import TargetLayout
from userrep.training.checkpoint import TrainingState
from userrep.training.data.shards import read_steps_per_epoch, shard_files
from userrep.training.task import TrainingResult, TrainingTask

pytestmark = pytest.mark.fast


NO_TARGETS = TargetLayout(futures=[], blocks=[])
OTHER = LAYOUT.model_copy(update={"blocks": LAYOUT.blocks[1:]})


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TrainingTask:
    return task_on(tmp_path_factory.mktemp("task"))


def task_of(files: dict[str, list[list[str]]], **training: Any) -> TrainingTask:
    settings = config.Training(**training)
    return TrainingTask(
        files=files,
        steps=read_steps_per_epoch(files, settings),
        layout=LAYOUT,
        targets=TARGETS,
        model=config.Model(),
        training=settings,
        empty_F=np.zeros(LAYOUT.width, np.float32),
        folder="",
    )


def test_an_epoch_has_the_steps_that_its_smallest_shard_allows(tmp_path: Path) -> None:
    for shard, num_rows in enumerate((31, 24, 50)):
        write_training_rows(tmp_path, "train", shard, range(num_rows), width=3)
    files = shard_files(map(str, tmp_path.rglob("*.parquet")), 3)
    assert task_of(files, num_shards=3, batch_size=15).steps == 4  # five rows of each: 24 are four times five
    assert task_of(files, num_shards=3, batch_size=24).steps == 3


def test_a_split_without_rows_cannot_be_trained_on() -> None:
    with pytest.raises(UsageError, match=r"the smallest of 4 shards has 0 rows"):
        task_of({}, num_shards=4, batch_size=32)


@pytest.mark.parametrize(
    "other",
    [
        {"files": {"train": []}}, {"steps": 17}, {"layout": OTHER}, {"targets": NO_TARGETS},
        {"starts_from": "5b3c"},
        {"empty_F": np.ones(LAYOUT.width, np.float32)}, {"model": config.Model(latent_dim=17)},
        {"training": config.Training(num_shards=4, batch_size=32, max_epochs=2, weight_decay=0.02)},
    ],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_everything_that_determines_the_result_is_part_of_the_identity(
    task: TrainingTask, other: dict[str, Any]
) -> None:
    assert replace(task, **other).identity != task.identity


def test_backend_folder_and_weights_computed_from_the_files_are_not_part_of_the_identity(task: TrainingTask) -> None:
    neutral = {"backend": "torch_distributor", "num_workers": 2, "threads": 3, "max_restarts": 9}
    elsewhere = replace(
        task,
        folder="s3://bucket",
        initial={"bias": np.ones(3, np.float32)},
        training=task.training.model_copy(update=neutral),
    )
    assert elsewhere.identity == task.identity
    assert pickle.loads(pickle.dumps(task)).identity == task.identity  # as it reaches the ranks


def test_a_result_has_the_losses_of_the_best_epoch_and_the_cost_of_all_ranks() -> None:
    curve = [{"epoch": 1, "train_loss": 3.0}, {"epoch": 2, "train_loss": 1.0}, {"epoch": 3, "train_loss": 2.0}]
    end = TrainingState(
        identity="task", seed=1, epoch=4, best_epoch=2, best_loss=1.0, curve=curve, seconds=9.5, finished=True
    )
    ranks = [
        {"rank": 0, "rows_per_second": 100.0, "waiting_share": 0.25},
        {"rank": 1, "rows_per_second": 50.0, "waiting_share": 0.5},
    ]
    weights = {"bias": np.ones(3, np.float32)}
    result = TrainingResult.of(end, weights, ranks=ranks)
    assert result.metrics == {
        "train_loss": 1.0, "epochs": 3, "best_epoch": 2, "seconds": 9.5, "rows_per_second": 150.0, "waiting_share": 0.5,
    }  # fmt: skip
    assert (result.weights, result.curve, result.ranks) == (weights, curve, ranks)
    over_before = TrainingResult.of(end, weights, ranks=[])
    assert over_before.metrics == {"train_loss": 1.0, "epochs": 3, "best_epoch": 2, "seconds": 9.5}
