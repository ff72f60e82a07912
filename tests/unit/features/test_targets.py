"""What is predicted of the next days: how targets are laid out, and what a model gains by predicting them."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from tests.unit.features.test_layout import LAYOUT, SPEC, VOCABULARY, features, some_raw
from tests.unit.training.test_training import LAYOUT as SMALL
from tests.unit.training.test_training import TARGETS as SMALL_TARGETS
from tests.unit.training.test_training import bits_of, losses_of, on_ranks, silent, task_of, task_on, write_candidates
from userrep.errors import ArtifactError
from userrep.features.layout import InputLayout, Moments, Scaler
from userrep.features.targets import Future, TargetLayout
from userrep.model.autoencoder import Autoencoder
from userrep.model.losses import Loss
from userrep.store.arrow import packed
from userrep.training.launch.comm import LocalComm
from userrep.training.loop import train

pytestmark = pytest.mark.fast

D1, D2 = date(2024, 5, 1), date(2024, 5, 8)
SCALER = Scaler.fit(LAYOUT, Moments.of(some_raw(200)))


# Layout


def test_the_first_future_has_items_and_all_have_counts_and_a_flag_without_a_gap() -> None:
    targets = TargetLayout.of(SPEC, [2, 7])
    counts = ("num_events", "weight", "num_active_days", "active")
    assert [block.name for block in targets.blocks] == [
        *(f"{name}_next_2d" for name in ("behaviour", "content", "items", *counts)),
        *(f"{name}_next_7d" for name in counts),
    ]
    assert [block.start for block in targets.blocks] == [0, *(block.stop for block in targets.blocks[:-1])]
    assert (targets.items.name, targets.items.start) == ("items_next_2d", targets.item_width)
    assert targets.item_width == sum(SPEC.modalities.values())
    assert [block.name for block in targets.numbers] == [f"{name}_next_{days}d" for days in (2, 7) for name in counts]
    assert TargetLayout.of(SPEC, []).width == 0
    assert TargetLayout.model_validate_json(targets.model_dump_json()) == targets


def test_targets_are_read_from_the_features_of_the_later_date() -> None:
    rows = [
        {"behaviour_2d": [1.0, 2.0], "has_behaviour_2d": True, "num_events_2d": 3, "weight_2d": 1.5},
        {"behaviour_2d": [9.0, 9.0], "has_behaviour_2d": False, "num_events_2d": 40, "num_active_days_2d": 1},
    ]
    later = stored(features(*rows), [D1, D2])
    targets, future = TargetLayout.of(SPEC, [2]), Future(2, LAYOUT, SCALER, {D2: 0, D1: 1})
    y_BT = future.targets(later)
    assert y_BT.shape == (2, targets.width)
    assert y_BT.dtype == np.float32
    part = {block.name: y_BT[:, block.start : block.stop].tolist() for block in targets.blocks}
    assert part["behaviour_next_2d"] == [[1, 2], [0, 0]]
    assert part["items_next_2d"] == [[3, 1], [0, 0]]  # without a vector no weight; then the index of the date
    assert part["active_next_2d"] == [[1], [1]]
    x_BF = SCALER.apply(LAYOUT, LAYOUT.raw(later))
    for name in ("num_events", "weight", "num_active_days"):
        source = next(block for block in LAYOUT.blocks if block.name == f"{name}_2d")
        np.testing.assert_allclose(part[f"{name}_next_2d"], x_BF[:, source.start : source.stop], atol=1e-5)


def test_at_most_ten_events_count() -> None:
    later = stored(features({"behaviour_2d": [1.0, 2.0], "has_behaviour_2d": True, "num_events_2d": 40}), [D1])
    targets = TargetLayout.of(SPEC, [2])
    assert Future(2, LAYOUT, SCALER, {D1: 0}).targets(later)[0, targets.items.start] == 10


def test_only_the_first_future_reads_vectors() -> None:
    counts = [f"{name}_7d" for name in ("num_events", "weight", "num_active_days")]
    assert Future(7, LAYOUT, SCALER).columns == counts
    first = Future(7, LAYOUT, SCALER, {D1: 0})
    assert first.columns == ["pooled", "has_behaviour_7d", "has_content_7d", *counts]
    later = stored(features({"num_events_7d": 2}), [D1])
    np.testing.assert_array_equal(Future(7, LAYOUT, SCALER).targets(later)[0], first.targets(later)[0, -4:])


@pytest.mark.parametrize(("windows", "history"), [([30, 60], 730), ([6, 60], 360), ([2, 7], 14)])
def test_a_history_is_no_future_and_is_not_taken_for_a_window_that_its_days_end_like(
    windows: list[int], history: int
) -> None:
    spec = SPEC.model_copy(update={"windows_days": windows, "history_days": history, "context": []})
    layout = InputLayout.of(spec, VOCABULARY)
    scaler = Scaler.fit(layout, Moments.of(np.zeros((2, layout.width), np.float32)))
    for days in windows:
        assert Future(days, layout, scaler, {D1: 0}).columns == [
            "pooled",
            *(f"has_{name}_{days}d" for name in ("behaviour", "content")),
            *(f"{name}_{days}d" for name in ("num_events", "weight", "num_active_days")),
        ]


@pytest.mark.parametrize("places", [{}, {D1: 0}])
def test_a_user_without_events_has_no_vector_no_weight_counts_of_zero_and_is_not_active(
    places: dict[date, int],
) -> None:
    future = Future(7, LAYOUT, SCALER, places)
    expected = future.targets(stored(features({"num_events_7d": 0}), [D1]))[0]
    expected[-1] = 0
    np.testing.assert_allclose(future.absent_W(), expected)


def stored(rows: pa.RecordBatch, as_ofs: list[date]) -> pa.RecordBatch:
    """Write rows as they are stored: all pooled vectors in one column, with their dates."""
    vectors = np.hstack([np.stack(rows.column(block.column).to_pylist()) for block in SPEC.pooled])
    rows = rows.append_column("pooled", packed(vectors.astype(np.float32)))
    return rows.set_column(rows.schema.get_field_index("as_of"), "as_of", pa.array(as_ofs, pa.date32()))


# Training


def test_the_losses_of_all_targets_are_reported_and_added_to_the_judged_loss(tmp_path: Path) -> None:
    task, lines = task_on(tmp_path, max_epochs=1), []
    metrics = train(task, LocalComm(), lines.append).metrics
    loss = Loss(SMALL, SMALL_TARGETS, task.model, task.read_candidates(), task.row_weight)
    for split in ("train", "valid_users", "valid_dates"):
        by_name = {name: metrics[f"{split}_loss.{name}"] for name in loss.names}
        assert metrics[f"{split}_loss"] == pytest.approx(loss.total(by_name))
    assert f"validation {metrics['valid_loss']:.4f}" in lines[0]
    assert {"items_next", "active_next"} <= {name.rpartition("_")[0] for name in loss.names}


def test_losses_are_those_of_one_rank_at_any_number_of_ranks(tmp_path: Path) -> None:
    task = task_on(tmp_path, max_epochs=1, learning_rate=1e-9)
    one = train(task, LocalComm(), silent)
    for result in on_ranks(4, lambda comm: train(task, comm, silent)):
        assert losses_of(result) == pytest.approx(losses_of(one), rel=1e-5)


def test_other_targets_items_or_weights_of_rows_make_another_training(tmp_path: Path) -> None:
    task = task_on(tmp_path)
    assert task.candidates is not None
    for other in (
        replace(task, targets=TargetLayout.of(SMALL.spec, [7])),
        replace(task, candidates=(task.candidates[0], "0" * 64)),
        replace(task, row_weight=2.0),
    ):
        assert other.identity != task.identity


def test_items_that_have_changed_on_disk_are_refused(tmp_path: Path) -> None:
    task = task_on(tmp_path)
    assert task.candidates is not None
    Path(task.candidates[0]).write_bytes(b"something else")
    with pytest.raises(ArtifactError, match="has changed since this training started"):
        train(task, LocalComm(), silent)


NUM_CLUSTERS = 4


def write_clustered(root: Path, num_rows: int) -> None:
    """Write users whose next item depends on two weak inputs among many strong ones, with one item per cluster."""
    for shard in range(4):
        x, cluster = clustered(num_rows, seed=shard)
        y = np.zeros((num_rows, SMALL_TARGETS.width), np.float32)
        y[:, :NUM_CLUSTERS] = np.eye(NUM_CLUSTERS)[cluster]
        y[:, SMALL_TARGETS.items.start] = 1
        folder = root / "split=train" / f"shard={shard}"
        folder.mkdir(parents=True)
        numbers = np.hstack([x, y])
        pq.write_table(pa.table({"row_key": np.arange(num_rows), "x": packed(numbers)}), folder / "part.parquet")
    items = np.eye(NUM_CLUSTERS, SMALL_TARGETS.item_width, dtype=np.float32)
    write_candidates(root, {"vector_0": items, "log_share_0": np.full(NUM_CLUSTERS, np.log(1 / 4), np.float32)})


def clustered(num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng([seed, 7]).normal(size=(num_rows, SMALL.width)).astype(np.float32)
    cluster = 2 * (x[:, 0] > 0) + (x[:, 1] > 0)
    x[:, :2] *= 0.5
    x[:, SMALL.blocks[-1].start :] = 1
    return x, cluster


@pytest.mark.parametrize("hidden_dim", [0, 32])
def test_a_model_that_looks_ahead_keeps_what_predicts_the_future_where_a_plain_autoencoder_drops_it(
    tmp_path: Path, hidden_dim: int
) -> None:
    right = {}
    write_clustered(tmp_path, 400)
    for weight in (0.0, 1.0):
        quiet = {"dropout": 0.0, "feature_dropout": 0.0, "hidden_dim": hidden_dim, "next_days_weight": 0.0}
        model = {"latent_dim": 4, "next_items_weight": weight} | quiet
        task = task_of(tmp_path, model, targets=SMALL_TARGETS, max_epochs=20, patience=20, learning_rate=0.01)
        task = replace(task, folder=str(tmp_path / f"checkpoints-{weight}"))
        weights = safetensors.torch.load(bits_of(train(task, LocalComm(), silent)))
        autoencoder = Autoencoder(SMALL, task.model, SMALL_TARGETS)
        autoencoder.load_state_dict(weights)

        def code(x: np.ndarray, autoencoder: Autoencoder = autoencoder) -> np.ndarray:
            with torch.inference_mode():
                return np.c_[autoencoder.encode(torch.from_numpy(x)).numpy(), np.ones(len(x))]

        (x, cluster), (unseen_x, unseen) = clustered(2000, seed=98), clustered(2000, seed=99)
        readout, *_ = np.linalg.lstsq(code(x), np.eye(4)[cluster], rcond=None)
        right[weight] = float(np.mean((code(unseen_x) @ readout).argmax(axis=1) == unseen))
    assert right[1.0] > 0.8
    assert right[0.0] < 0.4
