"""Trainings recorded with MLflow: what is in the record, that it is made once, and that a model loads the same."""

import json
import os
import pkgutil
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from tests.support.builders import config_of
from tests.unit.inference.test_model import features, layout_of, saved
from userrep.config import Config
from userrep.errors import ArtifactError, TrackingError, UsageError
from userrep.inference.encoder import Encoder
from userrep.model.artifact import SpaceManifest, load_artifact
from userrep.spaces.registry import add_candidate
from userrep.spaces.unrecorded import keep_training, record_kept
from userrep.store.open import open_tables
from userrep.tracking.record import TrackedRun, record_training, training_environment
from userrep.tracking.target import mlflow_client, tracking_target

pytestmark = pytest.mark.default

REPOSITORY = Path(__file__).parents[3]
AWAY = "http://somebody:hush@127.0.0.1:9"  # the port of `discard`, on which no server listens
CURVE = [
    {"epoch": epoch, "train_loss": 3.0 / epoch, "valid_loss": 2.0 / epoch, "valid_users_loss.behaviour_7d": 1 / epoch}
    for epoch in (1, 2, 3)
]
RANKS = [{"rank": k, "host": f"node{k}", "device": "cpu", "rows_per_second": 100.0 + k} for k in range(2)]


def clear(environment: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DATABRICKS_RUNTIME_VERSION", "MLFLOW_ALLOW_FILE_STORE"):
        environment.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    clear(monkeypatch)


def recorded(config: Config, manifest: SpaceManifest, folder: Path) -> TrackedRun:
    target, manifest = tracking_target(config), manifest.model_copy(update={"curve": CURVE})
    environment = training_environment()
    return record_training(target, folder=str(folder), manifest=manifest, ranks=RANKS, environment=environment)


@contextmanager
def asking(config: Config) -> Iterator[Any]:
    with mlflow_client(tracking_target(config)) as client:
        yield client


def loaded(config: Config, model_uri: str) -> Any:
    with asking(config):
        import mlflow.pyfunc

        return mlflow.pyfunc.load_model(model_uri)


class Store(NamedTuple):
    """A SQLite store with one training, and what the process that recorded it has printed."""

    config: Config
    manifest: SpaceManifest
    artifact: Path
    run: TrackedRun
    recorder: "subprocess.CompletedProcess[str]"
    folder: Path  # where that process ran

    def database(self) -> Path:
        return Path(str(self.config.root), "mlflow", "mlflow.db")


def in_a_copy(store: Store, folder: Path, name: str) -> Config:
    """Return a configuration with its own experiment and model in a copy of the store, quicker than a new one."""
    config = config_of(folder, tracking={"experiment": name, "model": name})
    database = Path(str(config.root), "mlflow", "mlflow.db")
    database.parent.mkdir(parents=True)
    shutil.copy(store.database(), database)
    return config


RECORD_ALONE = """
    import json, os, socket, sys
    from pathlib import Path
    from tests.unit.tracking.test_tracking import config_of, load_artifact, recorded

    def refused(*_):
        raise AssertionError("the network was used")

    socket.socket.connect = socket.getaddrinfo = refused
    folder, before = Path(sys.argv[1]), dict(os.environ)
    run = recorded(config_of(folder), load_artifact(str(folder / "artifact")).manifest, folder / "artifact")
    import mlflow
    print(json.dumps([vars(run), mlflow.is_tracking_uri_set(), dict(os.environ) == before]))
    """


def ran(code: str, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    folder.mkdir()
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Record one training in a store that is not there yet, in a process of its own; not to be changed."""
    folder = tmp_path_factory.mktemp("with space") / "of ours"
    manifest = saved(folder / "artifact")
    with pytest.MonkeyPatch.context() as environment:
        clear(environment)
        recorder = ran(RECORD_ALONE, folder / "empty", str(folder))
    assert recorder.returncode == 0, recorder.stderr
    run = TrackedRun(**json.loads(recorder.stdout.splitlines()[-1])[0])
    return Store(config_of(folder), manifest, folder / "artifact", run, recorder, folder / "empty")


# What is recorded


def test_a_run_has_the_settings_the_losses_of_each_epoch_and_block_and_the_speed_of_each_rank(store: Store) -> None:
    config, manifest, tracked = store.config, store.manifest, store.run
    with asking(config) as client:
        run = client.get_run(tracked.run_id)
        curves = {
            name: [(m.step, m.value) for m in client.get_metric_history(tracked.run_id, name)]
            for name in run.data.metrics
        }
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "s1"
    assert run.data.params["model.latent_dim"] == "16"
    assert run.data.params["training.as_ofs.every_days"] == "7"
    assert run.data.params["training.learning_rate"] == "0.003"
    assert curves["valid_users_loss.behaviour_7d"] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert curves["train_loss"] == [(1, 3.0), (2, 1.5), (3, 1.0)]
    assert curves["best.valid_loss"] == [(0, 0.1 + 0.2)]
    assert run.data.metrics["rows_per_second.rank_1"] == 101
    expected = {
        "space_id": "s1",
        "lineage_id": "l1",
        "trained_until": "2024-01-01",
        "config_hash": "c",
        "code_hash": "d",
    }
    tags = expected | {"content_hash": manifest.content_hash}
    assert {f"userrep.{name}": value for name, value in tags.items()}.items() <= run.data.tags.items()


def test_the_environment_names_versions_hosts_and_devices(store: Store, tmp_path: Path) -> None:
    config, tracked = store.config, store.run
    with asking(config) as client:
        text = Path(client.download_artifacts(tracked.run_id, "environment.json", str(tmp_path))).read_text()
    environment = json.loads(text)
    assert environment["python"] == sys.version.split()[0]
    assert environment["packages"]["numpy"] == np.__version__
    assert {"torch", "horovod", "pyspark", "pyarrow"} <= set(environment["packages"])
    assert environment["ranks"] == RANKS


# The model


def test_a_model_is_registered_under_its_space_and_as_the_newest_candidate(store: Store) -> None:
    config, manifest, tracked = store.config, store.manifest, store.run
    assert tracked.model_uri == "models:/userrep@s1"
    with asking(config) as client:
        versions = [client.get_model_version_by_alias("userrep", alias) for alias in ("s1", "candidate")]
    assert [version.version for version in versions] == ["1", "1"] or [v.version for v in versions] == [1, 1]
    assert versions[0].run_id == tracked.run_id
    assert versions[0].tags["userrep.content_hash"] == manifest.content_hash
    assert versions[0].description == (
        "Space s1: 16 numbers per user, trained on events before 2024-01-01. `userrep spaces show s1 --card` prints "
        "its model card."
    )


def test_a_model_loaded_through_mlflow_gives_the_embeddings_of_the_encoder_to_the_bit(store: Store) -> None:
    config, manifest, artifact, tracked = store[:4]
    batch = features(300)
    expected_BD = Encoder(load_artifact(str(artifact), manifest.content_hash)).embed(batch)
    users = batch.to_pandas()  # lists are arrays, maps are lists of pairs
    as_of_spark = users.assign(
        num_by_context_7d=[dict(pairs) for pairs in users["num_by_context_7d"]],
        behaviour_7d=[row.tolist() for row in users["behaviour_7d"]],
        user_id="u",
    )
    for model in (loaded(config, tracked.model_uri), loaded(config, "models:/userrep@candidate")):
        for frame in (users, as_of_spark):
            z_BD = model.predict(frame)
            assert z_BD.dtype == np.float32
            assert np.array_equal(z_BD, expected_BD)
        assert model.predict(users[:0]).shape == (0, 16)


def test_an_unknown_user_is_encoded_through_mlflow_too(store: Store) -> None:
    config, artifact, tracked = store.config, store.artifact, store.run
    absent = pa.RecordBatch.from_pylist(
        [dict.fromkeys(features(1).schema.names) | features(1).slice(0, 1).to_pylist()[0] | {
            "days_since_last_event": None, "days_since_first_event": None, "attribute_country": None,
            "num_by_context_7d": [], "has_behaviour_7d": False,
        }], features(1).schema,
    )  # fmt: skip
    z_BD = loaded(config, tracked.model_uri).predict(absent.to_pandas())
    assert np.array_equal(z_BD, Encoder(load_artifact(str(artifact))).embed(absent))


def test_the_example_has_invented_users_and_can_be_encoded(store: Store) -> None:
    model = loaded(store.config, store.run.model_uri)
    example = model.input_example
    assert isinstance(example, pd.DataFrame)
    assert "user_id" not in example
    known, unknown = model.predict(example)
    assert np.isfinite([known, unknown]).all()
    assert not np.array_equal(known, unknown)


def test_the_signature_names_what_goes_in_and_the_width_of_what_comes_out(store: Store) -> None:
    config, tracked = store.config, store.run
    signature = loaded(config, tracked.model_uri).metadata.signature
    kinds = {column.name: str(column.type) for column in signature.inputs.inputs}
    assert set(kinds) == set(features(1).schema.names)
    assert "double" in kinds["behaviour_7d"]
    assert signature.outputs.inputs[0].shape == (-1, 16)


def test_no_file_of_a_logged_model_can_run_anything(store: Store) -> None:
    config, artifact = store.config, store.artifact
    folder = next(Path(str(config.root), "mlflow", "artifacts", "models").iterdir()) / "artifacts"
    files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    texts = {name for name in files if name.endswith((".json", ".yaml", ".txt", "MLmodel", "_meta"))}
    rest = files.keys() - texts
    assert {Path(name).name for name in rest} == {"weights.safetensors"}
    assert files[rest.pop()] == (artifact / "weights.safetensors").read_bytes()
    assert all("\0" not in files[name].decode() for name in texts)
    assert b"loader_module: userrep.inference.mlflow_model" in files["MLmodel"]


def test_a_logged_artifact_that_was_swapped_is_not_loaded(store: Store, tmp_path: Path) -> None:
    config, manifest = in_a_copy(store, tmp_path, "swapped"), saved(tmp_path / "artifact")
    tracked = recorded(config, manifest, tmp_path / "artifact")
    saved(tmp_path / "other", empty_F=np.ones(layout_of().width, np.float32))
    data = next(Path(str(config.root), "mlflow", "artifacts", "models").rglob("data")) / "artifact"
    shutil.rmtree(data)
    shutil.move(tmp_path / "other", data)
    with pytest.raises(ArtifactError, match="not the expected artifact: expected content hash"):
        loaded(config, tracked.model_uri)


# Once


def census(config: Config) -> dict[str, Any]:
    """Count what a store has, and say what it is called."""
    with asking(config) as client:
        experiment = client.get_experiment_by_name(config.tracking.experiment).experiment_id
        runs = client.search_runs([experiment])
        versions = client.search_model_versions(f"name = '{config.tracking.model}'")
        return {
            "runs": [(run.info.run_id, run.info.status, run.info.end_time) for run in runs],
            "versions": [(version.version, version.run_id) for version in versions],
            "aliases": dict(client.get_registered_model(config.tracking.model).aliases),
            "models": len(client.search_logged_models([experiment])),
            "losses": [len(client.get_metric_history(run.info.run_id, "train_loss")) for run in runs],
        }


def test_recording_twice_changes_nothing(store: Store) -> None:
    config, manifest, artifact, tracked = store[:4]
    before = census(config)
    assert recorded(config, manifest, artifact) == tracked
    assert census(config) == before
    assert (len(before["runs"]), len(before["versions"]), before["models"], before["losses"]) == (1, 1, 1, [3])


@pytest.mark.parametrize(
    "step",
    [
        "mlflow.MlflowClient.log_model_artifacts",
        "mlflow.models.Model.log", "mlflow.log_dict", "mlflow.MlflowClient.create_registered_model",
        "mlflow.register_model", "mlflow.MlflowClient.set_registered_model_alias", "mlflow.MlflowClient.set_terminated",
    ],
)  # fmt: skip
def test_a_recording_that_was_cut_off_goes_on_where_it_was(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    shutil.copy(store.database(), tmp_path / "m.db")  # quicker than a new one
    config = config_of(tmp_path, tracking={"uri": f"sqlite:///{tmp_path}/m.db", "experiment": step, "model": "cut-off"})
    done = pkgutil.resolve_name(step)

    def cut_off(*args: Any, **more: Any) -> Any:
        done(*args, **more)
        raise ConnectionError("cut off")

    with monkeypatch.context() as cut:
        cut.setattr(step, cut_off)
        with pytest.raises(TrackingError, match="ConnectionError: cut off"):
            recorded(config, store.manifest, store.artifact)
    tracked = recorded(config, store.manifest, store.artifact)
    there = census(config)
    assert [run[:2] for run in there["runs"]] == [(tracked.run_id, "FINISHED")]
    assert [run_id for _, run_id in there["versions"]] == [tracked.run_id]
    assert set(there["aliases"]) == {"s1", "candidate"}
    assert (there["models"], there["losses"]) == (1, [3])


def test_the_newest_candidate_stays_when_an_older_recording_is_ended(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = in_a_copy(store, tmp_path, "newer")
    older, newer = saved(tmp_path / "s1"), saved(tmp_path / "s2", space_id="s2")
    with monkeypatch.context() as cut:
        cut.setattr("mlflow.MlflowClient.set_registered_model_alias", lambda *_: 1 / 0)
        with pytest.raises(TrackingError, match="ZeroDivisionError: division by zero"):
            recorded(config, older, tmp_path / "s1")
    recorded(config, newer, tmp_path / "s2")
    recorded(config, older, tmp_path / "s1")
    assert {name: int(version) for name, version in census(config)["aliases"].items()} == {
        "s1": 1, "s2": 2, "candidate": 2,
    }  # fmt: skip


def test_a_space_of_another_root_does_not_take_the_alias_of_one_with_its_id(store: Store, tmp_path: Path) -> None:
    config = in_a_copy(store, tmp_path, "shared")
    ours, other = saved(tmp_path / "s1"), saved(tmp_path / "other" / "s1", int8_scales=[0.5] * 16)
    assert ours.space_id == other.space_id
    recorded(config, ours, f"file:{tmp_path}/s1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"s1 is not recorded: model shared has a space s1 of another root"):
        recorded(config, other, tmp_path / "other" / "s1")
    assert int(census(config)["aliases"]["s1"]) == 1


# Servers that are away, and what waits for them


def test_an_unreachable_server_is_reported_in_one_line_without_the_password(tmp_path: Path) -> None:
    config, manifest = config_of(tmp_path, tracking={"uri": AWAY}), saved(tmp_path / "artifact")
    with pytest.raises(TrackingError, match=r"space s1 could not be recorded at http://\*\*\*@127.0.0.1:9: ") as caught:
        recorded(config, manifest, tmp_path / "artifact")
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "set tracking.mlflow: false" in str(caught.value)


def test_a_training_waits_until_the_server_is_back_and_is_recorded_with_its_own_environment(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    config = config_of(tmp_path, tracking={"uri": "${TRACKING_SERVER}"})
    tables = open_tables(config, spark)
    manifest = saved(Path(str(config.root)), is_space=True)
    monkeypatch.setattr("userrep.spaces.unrecorded.training_environment", lambda: {"python": "of the training"})
    keep_training(tables, config, "s1", ranks=RANKS)
    monkeypatch.setenv("TRACKING_SERVER", AWAY)
    record_kept(tables, config)
    assert lines == []  # a space that was never registered is none
    add_candidate(
        tables, space_id="s1", lineage_id="l1", trained_until=date(2024, 1, 1), content_hash=manifest.content_hash
    )
    record_kept(tables, config)
    assert len(lines) == 1
    assert lines[0].startswith("tracking: space s1 could not be recorded at ${TRACKING_SERVER}: ")
    assert lines[0].endswith("The space itself is complete. The next run of the pipeline records it.")
    monkeypatch.delenv("TRACKING_SERVER")
    record_kept(tables, config)
    assert "TRACKING_SERVER" in lines[1]
    monkeypatch.setenv("TRACKING_SERVER", f"sqlite:///{tmp_path}/m.db")
    record_kept(tables, config)
    record_kept(tables, config)
    assert len(lines) == 3
    assert "space s1 recorded in MLflow: run " in lines[2]
    assert not list(Path(str(config.root), "artifacts", "unrecorded").iterdir())
    with asking(config) as client:
        run_id = client.get_model_version_by_alias("userrep", "candidate").run_id
        environment = Path(client.download_artifacts(run_id, "environment.json")).read_text()
    assert json.loads(environment)["python"] == "of the training"


@pytest.mark.full
@pytest.mark.skipif(find_spec("flask") is None, reason="MLflow's server is not installed")
def test_a_tracking_server_takes_recordings_and_gives_models(store: Store, tmp_path: Path) -> None:
    port = _free_port()
    config = config_of(tmp_path, tracking={"uri": f"http://127.0.0.1:{port}", "experiment": "its own", "model": "its"})
    manifest = saved(tmp_path / "artifact")
    served = [
        sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{tmp_path}/m.db", "--artifacts-destination", str(tmp_path / "of server"),
    ]  # fmt: skip
    alone = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    shutil.copy(store.database(), tmp_path / "m.db")  # quicker than a new one
    log, env = (tmp_path / "log").open("wb"), {**os.environ, **alone}
    with log, subprocess.Popen(served, cwd=tmp_path, stdout=log, stderr=log, env=env, start_new_session=True) as server:
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", server)
            tracked = recorded(config, manifest, tmp_path / "artifact")
            before = census(config)
            assert recorded(config, manifest, tmp_path / "artifact") == tracked
            assert census(config) == before
            z_BD = loaded(config, "models:/its@candidate").predict(features(20).to_pandas())
        finally:
            os.killpg(server.pid, signal.SIGTERM)
    assert np.array_equal(z_BD, Encoder(load_artifact(str(tmp_path / "artifact"))).embed(features(20)))
    assert list((tmp_path / "of server").rglob("weights.safetensors"))
    assert not (tmp_path / "root" / "mlflow").exists()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        assert server.poll() is None, "the server has ended"
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the server does not answer")


# Quiet, or off


def test_recording_in_a_new_store_prints_nothing_makes_no_request_and_leaves_the_process_unchanged(
    store: Store,
) -> None:
    assert store.recorder.stderr == ""
    (printed,) = store.recorder.stdout.splitlines()
    assert json.loads(printed) == [vars(store.run), False, True]
    assert not list(store.folder.iterdir())


@pytest.mark.full
def test_switched_off_mlflow_is_not_even_imported(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        import userrep.workflows.pipeline
        from tests.support.builders import config_of
        from userrep.spaces.unrecorded import keep_training, record_kept
        from userrep.tracking.target import check_tracking
        config = config_of(Path("..").absolute(), tracking={"mlflow": False, "uri": "nonsense://"})
        check_tracking(config)
        keep_training(None, config, "s1", ranks=[])
        record_kept(None, config)
        print([name for name in ("mlflow", "sqlalchemy") if name in sys.modules])
        """
    done = ran(code, tmp_path / "empty")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    assert not (tmp_path / "root").exists()
