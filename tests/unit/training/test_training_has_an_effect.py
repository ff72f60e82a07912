"""Training has an effect: held-out users are encoded and predicted better than by untrained weights.

Inputs are noisy views of three factors per user; the next days follow from the factors. The control is the initial
state of the training loop: the same seed, no step.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from sklearn.linear_model import Ridge

from tests.unit.training.test_training import bits_of, candidates_in, write_candidates
from userrep import config
from userrep.features.layout import InputLayout
from userrep.features.spec import FeatureSpec
from userrep.features.targets import TargetLayout
from userrep.model.autoencoder import Autoencoder
from userrep.model.losses import Loss
from userrep.store.arrow import packed
from userrep.training.data.shards import read_steps_per_epoch, shard_files
from userrep.training.launch.comm import LocalComm
from userrep.training.loop import _Trainer, train
from userrep.training.optimizer import Optimizer
from userrep.training.task import TrainingTask

pytestmark = pytest.mark.fast

SPEC = FeatureSpec(
    windows_days=[7, 30], modalities={"behaviour": 16}, onboarding=False, registered_at=False, attributes=[], context=[]
)
LAYOUT = InputLayout.of(SPEC, {})
TARGETS = TargetLayout.of(SPEC, [7])
MODELS = [config.Model(latent_dim=6), config.Model(latent_dim=6, hidden_dim=64, decoder_dim=32)]
NUM_FACTORS, NUM_SHARDS, NUM_ITEMS, NOISE = 3, 2, 30, 1.5


class Users(NamedTuple):
    """Users with their factors, inputs and next days; U users, K factors, F inputs, T targets."""

    factors_UK: np.ndarray
    x_UF: np.ndarray
    next_UT: np.ndarray


class Quality(NamedTuple):
    """The quality of weights on held-out users: ``r2`` of a regression of the factors on the code, and losses."""

    r2: float
    reconstruction_loss: float
    days_loss: float
    items_loss: float


def mixing(num_columns: int, seed: int) -> np.ndarray:
    """Draw each column's weights of the factors, such that each column has a variance of one."""
    weights = np.random.default_rng(seed).normal(size=(NUM_FACTORS, num_columns))
    return weights / np.linalg.norm(weights, axis=0)


def users(num_users: int, seed: int) -> Users:
    """Draw users. About three quarters of their inputs' variance is noise; their next days have none."""
    random, first_flag = np.random.default_rng(seed), LAYOUT.blocks[-1].start
    factors_UK = random.normal(size=(num_users, NUM_FACTORS))
    x_UF = np.ones((num_users, LAYOUT.width), np.float32)
    noisy = factors_UK @ mixing(first_flag, seed=0) + NOISE * random.normal(size=(num_users, first_flag))
    x_UF[:, :first_flag] = noisy / np.sqrt(1 + NOISE**2)
    next_UT = (factors_UK @ mixing(TARGETS.width, seed=1)).astype(np.float32)
    flags, width, vectors = TARGETS.blocks[-1], TARGETS.item_width, items()
    next_UT[:, flags.start] = factors_UK[:, 0] > 0
    next_UT[:, :width] = vectors[(factors_UK @ mixing(width, seed=2) @ vectors.T).argmax(axis=1)]
    next_UT[:, width : width + 2] = 1, 0
    return Users(factors_UK, x_UF, next_UT)


def items() -> np.ndarray:
    """Draw the vectors of the candidate items."""
    return np.random.default_rng(3).normal(size=(NUM_ITEMS, TARGETS.item_width)).astype(np.float32)


def task_in(folder: Path, model: config.Model) -> TrainingTask:
    """Write users as the shards of ``training_rows``, and return the task for them."""
    for split, num_users, first_seed in (("train", 600, 100), ("valid_users", 100, 200)):
        for shard in range(NUM_SHARDS):
            drawn = users(num_users, first_seed + shard)
            rows = {"row_key": np.arange(num_users) + 1000 * shard, "x": packed(np.hstack([drawn.x_UF, drawn.next_UT]))}
            path = folder / f"split={split}" / f"shard={shard}" / "part.parquet"
            path.parent.mkdir(parents=True)
            pq.write_table(pa.table(rows), path)
    share = np.full(NUM_ITEMS, -np.log(NUM_ITEMS), np.float32)
    write_candidates(folder, {"vector_0": items(), "log_share_0": share})
    settings = {"num_shards": NUM_SHARDS, "batch_size": 64, "max_epochs": 12, "patience": 12, "learning_rate": 0.005}
    files = shard_files(map(str, folder.rglob("*.parquet")), NUM_SHARDS)
    training = config.Training(**settings)
    return TrainingTask(
        files=files,
        steps=read_steps_per_epoch(files, training),
        layout=LAYOUT,
        targets=TARGETS,
        model=model,
        training=training,
        empty_F=np.zeros(LAYOUT.width, np.float32),
        folder=str(folder / "checkpoints"),
        candidates=candidates_in(folder),
    )


def trained(task: TrainingTask) -> Autoencoder:
    """Run the training loop and return the trained model."""
    result = train(task, LocalComm(), lambda line: None)
    model = Autoencoder(LAYOUT, task.model, TARGETS)
    model.load_state_dict(safetensors.torch.load(bits_of(result)))
    return model


def untrained(task: TrainingTask) -> Autoencoder:
    """Return the initial model of the training loop."""
    model = Autoencoder(LAYOUT, task.model, TARGETS)
    model.load_state_dict(_Trainer(task, LocalComm(), lambda line: None)._weights())
    return model


@torch.inference_mode()
def quality_of(model: Autoencoder, task: TrainingTask) -> Quality:
    """Measure a model on users that were not in the training, with a ridge regression on its code."""
    fitted, held_out = users(1200, seed=7), users(800, seed=8)
    x_UF, next_UT = torch.from_numpy(held_out.x_UF), torch.from_numpy(held_out.next_UT)
    ridge = Ridge().fit(code_of(model, fitted), fitted.factors_UK)
    loss = Loss(LAYOUT, TARGETS, task.model, task.read_candidates(), task.row_weight)
    losses = dict(zip(loss.names, loss(model(x_UF), x_UF, next_UT).tolist(), strict=True))
    return Quality(
        r2=ridge.score(code_of(model, held_out), held_out.factors_UK),
        reconstruction_loss=float(np.mean([losses[block.name] for block in LAYOUT.blocks])),
        days_loss=float(np.mean([losses[block.name] for block in TARGETS.numbers])),
        items_loss=losses[TARGETS.items.name],
    )


def code_of(model: Autoencoder, users: Users) -> np.ndarray:
    """Encode users."""
    latent_UD: np.ndarray = model.encode(torch.from_numpy(users.x_UF)).numpy()
    return latent_UD


def assert_is_better(model: Quality, control: Quality) -> None:
    """Fail unless a model is much better than the control in each of the four measures."""
    assert model.r2 > max(0.8, control.r2 + 0.2)
    assert model.reconstruction_loss < 0.7 * control.reconstruction_loss
    assert model.days_loss < 0.6 * control.days_loss
    assert model.items_loss < control.items_loss - 1.0  # natural units, of the log of 30 items: 3.4


@pytest.mark.parametrize("settings", MODELS)
def test_the_code_and_the_losses_of_held_out_users_are_much_better_than_before_training(
    tmp_path: Path, settings: config.Model
) -> None:
    task = task_in(tmp_path, settings)
    control, model = untrained(task), trained(task)
    assert_is_better(quality_of(model, task), quality_of(control, task))


def test_a_training_whose_steps_have_no_effect_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Optimizer, "_adamw", lambda self: None)
    task = task_in(tmp_path, MODELS[0])
    model, control = quality_of(trained(task), task), quality_of(untrained(task), task)
    assert model == control
    with pytest.raises(AssertionError):
        assert_is_better(model, control)
