"""What of a training is recorded. Real stores are recorded to in test_tracking.py."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.inference.test_model import saved
from userrep.model.artifact import SpaceManifest
from userrep.tracking.record import _first_line, _flat, _Recording
from userrep.tracking.target import TrackingTarget

pytestmark = pytest.mark.fast

TARGET = TrackingTarget(uri="https://ada:hush@host", experiment="e", model="m", artifacts=None, secrets={"hush": "***"})
CURVE = [
    {"epoch": 1, "train_loss": 3.0, "valid_loss": 2.0},
    {"epoch": 2, "train_loss": 1.5, "valid_loss": 2.5},
]


def rank(number: int, speed: float) -> dict[str, Any]:
    return {"rank": number, "host": "node", "device": "cuda", "rows_per_second": speed}


@pytest.fixture
def manifest(tmp_path: Path) -> SpaceManifest:
    metrics = {"train_loss": 3.0, "valid_loss": 2.0, "best_epoch": 1.0, "seconds": 12.5}
    return saved(tmp_path / "artifact").model_copy(update={"metrics": metrics})


def recording(manifest: SpaceManifest, ranks: list[dict[str, Any]]) -> _Recording:
    return _Recording(TARGET, "folder", manifest, CURVE, ranks, {})


def test_losses_of_each_epoch_the_best_epoch_s_and_the_cost_are_measured(manifest: SpaceManifest) -> None:
    measured = list(recording(manifest, [rank(0, 100.0), rank(1, 101.0)])._metrics())
    assert measured == [
        ("train_loss", 3.0, 1), ("valid_loss", 2.0, 1), ("train_loss", 1.5, 2), ("valid_loss", 2.5, 2),
        ("best.train_loss", 3.0, 0), ("best.valid_loss", 2.0, 0), ("best_epoch", 1.0, 0), ("seconds", 12.5, 0),
        ("rows_per_second.rank_0", 100.0, 0), ("rows_per_second.rank_1", 101.0, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("num_ranks", [32, 33])
def test_more_than_32_ranks_are_summed_up(manifest: SpaceManifest, num_ranks: int) -> None:
    ranks = [rank(k, (k + 1.0) ** 2) for k in range(num_ranks)]
    speeds = {name: v for name, v, _ in recording(manifest, ranks)._metrics() if name.startswith("rows_per_second")}
    if num_ranks == 32:
        assert speeds == {f"rows_per_second.rank_{k}": (k + 1.0) ** 2 for k in range(32)}
    else:
        assert speeds == {
            "rows_per_second.min": 1.0, "rows_per_second.median": 289.0, "rows_per_second.max": 1089.0,
        }  # fmt: skip


def test_a_run_is_tagged_with_what_made_it_and_ends_when_the_space_was_made(manifest: SpaceManifest) -> None:
    made = manifest.model_copy(update={"created_at": datetime(2024, 1, 2, 0, 0, 1, 500_000, tzinfo=UTC)})
    run = recording(made, [])
    assert run._ended == 1_704_153_601_500
    assert run._tags == {
        "userrep.space_id": "s1", "userrep.lineage_id": "l1", "userrep.trained_until": "2024-01-01",
        "userrep.content_hash": manifest.content_hash, "userrep.config_hash": "c", "userrep.code_hash": "d",
    }  # fmt: skip


def test_settings_are_named_by_their_path() -> None:
    nested = {"model": {"latent_dim": 4}, "training": {"as_ofs": {"until": None, "every_days": 7}, "seed": 17}}
    assert list(_flat(nested)) == [
        ("model.latent_dim", 4), ("training.as_ofs.until", None), ("training.as_ofs.every_days", 7),
        ("training.seed", 17),
    ]  # fmt: skip


def test_an_error_is_shown_in_one_short_line_without_secrets() -> None:
    assert (
        _first_line(ConnectionError("no //ada:hush@host, hush.\nmore of it"), TARGET)
        == "ConnectionError: no //***@host, ***"
    )
    assert _first_line(ValueError(), TARGET) == "ValueError: no message"
    cut = _first_line(ValueError("x" * 298 + "hush"), TARGET)
    assert cut == "ValueError: " + "x" * 298 + "**"
