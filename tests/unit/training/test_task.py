"""A training's task: the steps of an epoch, and what makes two trainings the same one."""

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
from userrep.training.data.shards import shard_files
from userrep.training.task import TrainingTask

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TrainingTask:
    return task_on(tmp_path_factory.mktemp("task"))


def task_of(files: dict[str, list[list[str]]], **training: Any) -> TrainingTask:
    return TrainingTask.of(
        files,
        layout=LAYOUT,
        targets=TARGETS,
        model=config.Model(),
        training=config.Training(**training),
        empty_F=np.zeros(LAYOUT.width, np.float32),
        folder="",
    )


def test_an_epoch_has_the_steps_that_its_smallest_shard_serves(tmp_path: Path) -> None:
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
        {"files": {"train": []}}, {"steps": 17}, {"layout": "{}"}, {"targets": "{}"}, {"initial": b"weights"},
        {"empty_F": np.ones(LAYOUT.width, np.float32)}, {"model": config.Model(latent_dim=17)},
        {"training": config.Training(num_shards=4, batch_size=32, max_epochs=2, weight_decay=0.02)},
    ],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_everything_that_decides_what_comes_out_is_part_of_the_identity(
    task: TrainingTask, other: dict[str, Any]
) -> None:
    assert replace(task, **other).identity != task.identity


def test_where_and_how_a_training_runs_is_no_part_of_its_identity(task: TrainingTask) -> None:
    neutral = {"backend": "torch_distributor", "num_workers": 2, "threads": 3, "max_restarts": 9}
    elsewhere = replace(task, folder="s3://bucket", training=task.training.model_copy(update=neutral))
    assert elsewhere.identity == task.identity
    assert pickle.loads(pickle.dumps(task)).identity == task.identity  # as it reaches the ranks
