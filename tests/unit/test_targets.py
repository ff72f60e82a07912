"""What is predicted of the next days: how targets are laid out, and what prediction heads bring."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from tests.unit.test_layout import LAYOUT, SPEC, VOCABULARY, features, some_raw
from tests.unit.test_training import LAYOUT as SMALL
from tests.unit.test_training import TARGETS as SMALL_TARGETS
from tests.unit.test_training import losses_of, on_ranks, silent, task_of, task_on
from userrep.arrow import packed
from userrep.features.layout import InputLayout, Moments, Scaler
from userrep.features.targets import Future, TargetLayout
from userrep.model.autoencoder import Autoencoder
from userrep.model.losses import Loss
from userrep.training.comm import LocalComm
from userrep.training.loop import train

pytestmark = pytest.mark.fast

SCALER = Scaler.fit(LAYOUT, Moments.of(some_raw(200)))


# Layout


def test_targets_are_the_window_s_inputs_and_flags_for_each_future_without_a_gap() -> None:
    targets = TargetLayout.of(LAYOUT, [2, 7])
    assert [block.name for block in targets.blocks] == [
        f"{name}_next_{days}d"
        for days in (2, 7)
        for name in ("behaviour", "content", "num_events", "weight", "num_active_days", "flags")
    ]
    assert [block.start for block in targets.blocks] == [0, *(block.stop for block in targets.blocks[:-1])]
    flags = {block.name: range(block.start, block.stop) for block in targets.blocks if block.kind == "flags"}
    for block in targets.blocks:
        assert (block.flag is not None) == (block.kind == "pooled")
        if block.flag is not None:
            assert block.flag in flags[f"flags_{block.name.split('_', 1)[1]}"]
    assert [len(flag) for flag in flags.values()] == [3, 3]
    assert TargetLayout.of(LAYOUT, []).width == 0
    assert TargetLayout.model_validate_json(targets.model_dump_json()) == targets


def test_targets_are_what_the_inputs_of_the_later_date_are() -> None:
    rows = [
        {"behaviour_2d": [1.0, 2.0], "has_behaviour_2d": True, "num_events_2d": 3, "weight_2d": 1.5},
        {"behaviour_2d": [9.0, 9.0], "has_behaviour_2d": False, "num_events_2d": 1, "num_active_days_2d": 1},
    ]
    later, targets = features(*rows), TargetLayout.of(LAYOUT, [2])
    x_BF, y_BT = SCALER.apply(LAYOUT, LAYOUT.raw(later)), Future.of(LAYOUT, SCALER, 2).targets(later)
    assert y_BT.shape == (2, targets.width)
    assert y_BT.dtype == np.float32
    for block in targets.blocks[:-1]:
        source = next(b for b in LAYOUT.blocks if b.name == block.name.replace("_next", ""))
        np.testing.assert_array_equal(y_BT[:, block.start : block.stop], x_BF[:, source.start : source.stop])
    assert y_BT[:, targets.blocks[-1].start :].tolist() == [[1, 0, 1], [0, 0, 1]]  # behaviour, content, any event


@pytest.mark.parametrize(("windows", "history"), [([30, 60], 730), ([6, 60], 360), ([2, 7], 14)])
def test_a_history_is_no_future_and_is_not_taken_for_a_window_that_its_days_end_like(
    windows: list[int], history: int
) -> None:
    spec = SPEC.model_copy(update={"windows_days": windows, "history_days": history, "context": []})
    layout = InputLayout.of(spec, VOCABULARY)
    for days in windows:
        future = Future.of(layout, Scaler.fit(layout, Moments.of(np.zeros((2, layout.width), np.float32))), days)
        assert future.columns == [
            "pooled",
            *(f"has_{name}_{days}d" for name in ("behaviour", "content")),
            *(f"{name}_{days}d" for name in ("num_events", "weight", "num_active_days")),
        ]


def test_who_has_no_event_has_no_vector_counts_of_zero_and_is_not_active() -> None:
    future = Future.of(LAYOUT, SCALER, 7)
    expected = future.targets(features({"num_events_7d": 0}))[0]
    expected[-1] = 0
    np.testing.assert_array_equal(future.absent_W(), expected)


# Training


def test_the_losses_of_all_targets_are_told_and_count_in_the_one_that_is_judged(tmp_path: Path) -> None:
    task, lines = task_on(tmp_path, max_epochs=1), []
    metrics = train(task, LocalComm(), lines.append).metrics
    loss = Loss(SMALL, SMALL_TARGETS, task.model, 8)
    for split in ("train", "valid_users", "valid_dates"):
        by_name = {name: metrics[f"{split}_loss.{name}"] for name in loss.names}
        assert metrics[f"{split}_loss"] == pytest.approx(loss.total(by_name))
    assert " behaviour_next " in lines[0]
    assert " flags_next " in lines[0]


def test_losses_are_those_of_one_rank_at_any_number_of_ranks(tmp_path: Path) -> None:
    task = task_on(tmp_path, model={"contrast_weight": 0.2}, max_epochs=1, learning_rate=1e-9)
    one = train(task, LocalComm(), silent)
    for result in on_ranks(4, lambda comm: train(task, comm, silent)):
        assert losses_of(result) == pytest.approx(losses_of(one), rel=1e-5)


def test_other_targets_make_another_training(tmp_path: Path) -> None:
    task = task_on(tmp_path)
    assert replace(task, targets=TargetLayout.of(SMALL, [7]).model_dump_json()).identity != task.identity


def write_clustered(root: Path, num_rows: int, *, with_future: bool) -> None:
    """Write users whose next item cluster is told by two weak inputs among many strong ones."""
    for shard in range(4):
        x, cluster = clustered(num_rows, seed=shard)
        y = np.ones((num_rows, SMALL_TARGETS.width), np.float32)
        for block in SMALL_TARGETS.blocks:
            if block.kind == "pooled":
                y[:, block.start : block.stop] = np.eye(8)[cluster] - 1 / 8
            elif block.kind == "scalar":
                y[:, block.start] = 0
        folder = root / "split=train" / f"shard={shard}"
        folder.mkdir(parents=True)
        numbers = np.hstack([x, y]) if with_future else x
        pq.write_table(pa.table({"row_key": np.arange(num_rows), "x": packed(numbers)}), folder / "part.parquet")


def clustered(num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng([seed, 7]).normal(size=(num_rows, SMALL.width)).astype(np.float32)
    cluster = 2 * (x[:, 0] > 0) + (x[:, 1] > 0)
    x[:, :2] *= 0.5
    x[:, SMALL.blocks[-1].start :] = 1
    return x, cluster


def test_heads_keep_what_tells_the_future_where_a_plain_autoencoder_drops_it(tmp_path: Path) -> None:
    right = {}
    for future_weight in (0.0, 1.0):
        root = tmp_path / str(future_weight)
        write_clustered(root, 400, with_future=future_weight > 0)
        quiet = {"dropout": 0.0, "block_dropout": 0.0, "newcomer_share": 0.0, "feature_dropout": 0.0}
        model = {"latent_dim": 4, "future_weight": future_weight} | quiet
        task = task_of(root, model, max_epochs=20, patience=20, learning_rate=0.01)
        weights = safetensors.torch.load(train(task, LocalComm(), silent).weights)
        autoencoder = Autoencoder(SMALL, task.model, num_targets=SMALL_TARGETS.width if future_weight else 0)
        autoencoder.load_state_dict(weights)

        def code(x: np.ndarray, autoencoder: Autoencoder = autoencoder) -> np.ndarray:
            with torch.inference_mode():
                return np.c_[autoencoder.encode(torch.from_numpy(x)).numpy(), np.ones(len(x))]

        (x, cluster), (unseen_x, unseen) = clustered(2000, seed=98), clustered(2000, seed=99)
        readout, *_ = np.linalg.lstsq(code(x), np.eye(4)[cluster], rcond=None)
        right[future_weight] = float(np.mean((code(unseen_x) @ readout).argmax(axis=1) == unseen))
    assert right[1.0] > 0.8
    assert right[0.0] < 0.4
