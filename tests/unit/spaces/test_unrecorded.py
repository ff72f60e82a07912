"""Trainings that wait to be recorded: oldest first, kept until they are. MLflow itself is in test_tracking.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import add_spaces
from tests.unit.inference.test_model import saved
from userrep.config import Config
from userrep.errors import TrackingError
from userrep.spaces import unrecorded
from userrep.spaces.registry import artifact_folder, find_space
from userrep.spaces.unrecorded import keep_training, record_kept
from userrep.store.open import open_tables
from userrep.store.tables import Tables
from userrep.tracking.record import TrackedRun
from userrep.tracking.target import TrackingTarget

pytestmark = pytest.mark.fast

ENVIRONMENT = {"python": "of the training"}
RANKS = [{"rank": 0, "host": "h", "rows_per_second": 10.5}]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name an environment that takes no process to find out."""
    monkeypatch.setattr(unrecorded, "training_environment", lambda: ENVIRONMENT)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path)


@pytest.fixture
def tables(config: Config) -> Tables:
    """Tables with two spaces, whose order of creation is not that of their names."""
    tables = open_tables(config, None)
    for space_id in ("s002-b", "s001-a"):
        manifest = saved(Path(str(config.root)), space_id=space_id, is_space=True)
        add_spaces(tables, space_id, content_hash=manifest.content_hash)
    return tables


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a tracking server has been sent."""
    return answer_with(monkeypatch, lambda space_id: TrackedRun(f"run of {space_id}", f"models:/userrep/{space_id}"))


def answer_with(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], TrackedRun]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    def record_training(target: TrackingTarget, **training: Any) -> TrackedRun:
        run = answer(training["manifest"].space_id)
        sent.append(training)
        return run

    monkeypatch.setattr(unrecorded, "record_training", record_training)
    return sent


def waiting(config: Config) -> list[str]:
    folder = Path(str(config.root), "artifacts", "unrecorded")
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_kept_training_is_recorded_once_as_it_was_kept(
    tables: Tables, config: Config, recorded: list[dict[str, Any]], lines: list[str]
) -> None:
    keep_training(tables, config, "s001-a", ranks=[])
    keep_training(tables, config, "s001-a", ranks=RANKS)  # takes the place of what a killed run left
    record_kept(tables, config)
    record_kept(tables, config)
    (training,) = recorded
    assert training.pop("manifest").space_id == "s001-a"
    assert training == {
        "folder": artifact_folder(tables, find_space(tables, "s001-a")), "ranks": RANKS,
        "environment": ENVIRONMENT,
    }  # fmt: skip
    assert lines == ["tracking: space s001-a recorded in MLflow: run run of s001-a, models:/userrep/s001-a"]
    assert waiting(config) == []


def test_the_oldest_space_is_recorded_first_and_what_was_never_registered_waits(
    tables: Tables, config: Config, recorded: list[dict[str, Any]]
) -> None:
    for space_id in ("s001-a", "s002-b", "s003-c"):
        keep_training(tables, config, space_id, ranks=RANKS)
    record_kept(tables, config)
    assert [training["manifest"].space_id for training in recorded] == ["s002-b", "s001-a"]
    assert waiting(config) == ["s003-c.json"]


def test_a_training_that_cannot_be_recorded_is_kept_and_those_after_it_are_not_tried(
    tables: Tables, config: Config, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    for space_id in ("s001-a", "s002-b"):
        keep_training(tables, config, space_id, ranks=RANKS)

    def unreachable(space_id: str) -> TrackedRun:
        raise TrackingError(f"no server for {space_id}.")

    assert answer_with(monkeypatch, unreachable) == []
    record_kept(tables, config)
    assert lines == ["no server for s002-b. The space itself is complete. The next run of the pipeline records it."]
    assert waiting(config) == ["s001-a.json", "s002-b.json"]


def test_nothing_is_kept_or_recorded_where_tracking_is_off(
    tables: Tables, config: Config, tmp_path: Path, recorded: list[dict[str, Any]]
) -> None:
    off = config_of(tmp_path, tracking={"mlflow": False})
    keep_training(tables, off, "s001-a", ranks=RANKS)
    assert waiting(config) == []
    keep_training(tables, config, "s001-a", ranks=RANKS)
    record_kept(tables, off)
    assert (waiting(config), recorded) == (["s001-a.json"], [])
