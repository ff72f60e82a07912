"""What of a training is recorded. Real stores are recorded to in test_tracking.py."""

import json
import platform
import socket
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy
import pyarrow
import pytest

from tests.unit.inference.test_model import saved
from userrep import __version__
from userrep.config.training import AsOfs, Model, Training
from userrep.model.artifact import SpaceManifest
from userrep.tracking import record
from userrep.tracking.record import _ended, _first_line, _log, _metrics, _tags, training_environment
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
    return saved(tmp_path / "artifact").model_copy(update={"metrics": metrics, "curve": CURVE})


def test_losses_of_each_epoch_the_best_epoch_s_and_the_cost_are_measured(manifest: SpaceManifest) -> None:
    assert _metrics(manifest, [rank(0, 100.0), rank(1, 101.0)]) == [
        ("train_loss", 3.0, 1), ("valid_loss", 2.0, 1), ("train_loss", 1.5, 2), ("valid_loss", 2.5, 2),
        ("best.train_loss", 3.0, 0), ("best.valid_loss", 2.0, 0), ("best_epoch", 1.0, 0), ("seconds", 12.5, 0),
        ("rows_per_second.rank_0", 100.0, 0), ("rows_per_second.rank_1", 101.0, 0),
    ]  # fmt: skip


@pytest.fixture
def params(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace MLflow, and return the parameters that are logged."""

    class Entities(ModuleType):
        Metric = staticmethod(lambda *values: values)

    params: dict[str, Any] = {}
    mlflow: Any = ModuleType("mlflow")
    mlflow.log_params = lambda values, **_: params.update(values)
    mlflow.log_dict = lambda *_, **__: None
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "mlflow.entities", Entities("mlflow.entities"))
    return params


@pytest.mark.usefixtures("params")
def test_metrics_of_all_epochs_are_sent_a_thousand_at_a_time(manifest: SpaceManifest) -> None:
    sent: list[tuple[str, list[Any]]] = []
    client = SimpleNamespace(log_batch=lambda run_id, metrics: sent.append((run_id, metrics)))
    long = manifest.model_copy(update={"curve": [{**CURVE[0], "epoch": epoch} for epoch in range(1, 1001)]})
    _log(client, "run", long, {"ranks": []})
    assert [(run_id, len(metrics)) for run_id, metrics in sent] == [("run", 1000), ("run", 1000), ("run", 4)]
    assert sent[1][1][-1] == ("valid_loss", 2.0, _ended(manifest), 1000)


@pytest.mark.parametrize("num_ranks", [32, 33])
def test_more_than_32_ranks_are_summed_up(manifest: SpaceManifest, num_ranks: int) -> None:
    ranks = [rank(k, (k + 1.0) ** 2) for k in range(num_ranks)]
    speeds = {name: v for name, v, _ in _metrics(manifest, ranks) if name.startswith("rows_per_second")}
    if num_ranks == 32:
        assert speeds == {f"rows_per_second.rank_{k}": (k + 1.0) ** 2 for k in range(32)}
    else:
        assert speeds == {
            "rows_per_second.min": 1.0, "rows_per_second.median": 289.0, "rows_per_second.max": 1089.0,
        }  # fmt: skip


def test_a_run_is_tagged_with_what_made_it_and_ends_when_the_space_was_made(manifest: SpaceManifest) -> None:
    made = manifest.model_copy(update={"created_at": datetime(2024, 1, 2, 0, 0, 1, 500_000, tzinfo=UTC)})
    assert _ended(made) == 1_704_153_601_500
    assert _tags(made) == {
        "userrep.space_id": "s1", "userrep.lineage_id": "l1", "userrep.trained_until": "2024-01-01",
        "userrep.content_hash": manifest.content_hash, "userrep.config_hash": "c", "userrep.code_hash": "d",
    }  # fmt: skip


def test_settings_are_named_by_their_path(manifest: SpaceManifest, params: dict[str, Any]) -> None:
    as_ofs = AsOfs(until=None, every_days=7)
    training = Training(as_ofs=as_ofs, seed=17, future_days=[7, 30])
    changed = manifest.model_copy(update={"model": Model(latent_dim=4), "training": training})
    _log(SimpleNamespace(log_batch=lambda *_: None), "run", changed, {"ranks": []})
    assert params["model.latent_dim"] == 4
    assert params["training.as_ofs.until"] is None
    assert params["training.as_ofs.every_days"] == 7
    assert params["training.seed"] == 17
    assert params["training.future_days"] == [7, 30]
    assert len(params) == len(Model.model_fields) + len(Training.model_fields) - 1 + len(AsOfs.model_fields)


def test_an_error_is_shown_in_one_short_line_without_secrets() -> None:
    assert (
        _first_line(ConnectionError("no //ada:hush@host, hush.\nmore of it"), TARGET)
        == "ConnectionError: no //***@host, ***"
    )
    assert _first_line(ValueError(), TARGET) == "ValueError: no message"
    cut = _first_line(ValueError("x" * 298 + "hush"), TARGET)
    assert cut == "ValueError: " + "x" * 298 + "**"


# The environment of a training


@pytest.fixture
def _platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the platform without the process that Python 3.11 asks for it."""
    monkeypatch.setattr(platform, "platform", lambda: "Linux-6.1")


@pytest.mark.usefixtures("_platform")
def test_host_python_and_packages_are_those_of_this_process() -> None:
    found = training_environment()
    assert (found["python"], found["host"]) == (platform.python_version(), socket.gethostname())
    assert found["platform"] == "Linux-6.1"
    packages = found["packages"]
    assert isinstance(packages, dict)
    assert {
        "userrep": __version__,
        "numpy": numpy.__version__,
        "pyarrow": pyarrow.__version__,
    }.items() <= packages.items()
    assert packages["delta-spark"] == metadata.version("delta-spark")
    assert {"torch", "horovod", "pyspark", "pandas", "safetensors"} <= packages.keys()
    assert json.loads(json.dumps(found)) == found


@pytest.mark.usefixtures("_platform")
def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_PACKAGES", ("numpy", "no-such-package"))
    packages = training_environment()["packages"]
    assert packages == {"userrep": __version__, "numpy": numpy.__version__, "no-such-package": None}
