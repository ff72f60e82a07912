"""Record a finished training as an MLflow run: settings, losses, speed, environment, and a registered model.

Each step checks whether it was done before, so the next recording of the same artifact resumes where one stopped.
"""

import platform
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from pyarrow.fs import LocalFileSystem, copy_files

from userrep import __version__
from userrep.config.environment import package_version
from userrep.errors import TrackingError, UsageError, missing_package
from userrep.model.artifact import SpaceManifest
from userrep.store.filesystem import file_system, is_local
from userrep.tracking.registered_model import pyfunc_model
from userrep.tracking.target import TrackingTarget, mlflow_client

NEWEST = "candidate"  # alias of the newest model version
_BATCH = 1000  # maximum metrics that a server accepts in one request
_MAX_RANKS = 32  # up to this number, each rank has its own metric
_PACKAGES = ("torch", "horovod", "pyspark", "delta-spark", "pyarrow", "numpy", "pandas", "safetensors")


@dataclass(frozen=True)
class TrackedRun:
    """The MLflow run of a training. ``model_uri``: argument for ``mlflow.pyfunc.load_model``."""

    run_id: str
    model_uri: str


def training_environment() -> dict[str, object]:
    """Return this process's host and platform, and the versions of Python and of the packages that a training uses."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "packages": {"userrep": __version__} | {name: package_version(name) for name in _PACKAGES},
    }


def record_training(
    target: TrackingTarget,
    *,
    folder: str,
    manifest: SpaceManifest,
    ranks: Sequence[Mapping[str, Any]],
    environment: Mapping[str, object],
) -> TrackedRun:
    """Record a training. A second call for the same artifact finds the existing run and changes nothing.

    Parameters
    ----------
    folder, manifest : the saved artifact. ranks : ``rank``, ``host``, ``device`` and ``rows_per_second`` of each rank.
    environment : ``training_environment`` of the training.

    Raises
    ------
    TrackingError
        If recording fails, for example because the server is unreachable.
    UsageError
        If the registered model has a space with this id of another root.
    """
    try:
        with mlflow_client(target) as client:
            run = _run(client, target, manifest)
            if run.info.status != "FINISHED":
                model_id = _model(client, run, folder, manifest)
                _log(client, run.info.run_id, manifest, {**environment, "ranks": list(ranks)})
                _register(client, target.model, run.info.run_id, model_id, manifest)
                client.set_terminated(run.info.run_id, end_time=_ended(manifest))
    except UsageError as error:  # of this space, not of the server
        raise UsageError(f"tracking: space {manifest.space_id} is not recorded: {error}") from None
    except Exception as error:  # an unreachable server raises many kinds of errors
        reason = missing_package(error) or f"{_first_line(error, target)}. Check that MLflow is running there."
        raise TrackingError(
            f"tracking: space {manifest.space_id} could not be recorded at {target}: {reason} Without MLflow, set "
            "tracking.mlflow: false."
        ) from None
    return TrackedRun(run.info.run_id, f"models:/{target.model}@{manifest.space_id}")


def _first_line(error: Exception, target: TrackingTarget) -> str:
    lines = target.shown(str(error)).strip().splitlines() or ["no message"]  # hide secrets before cutting the text
    return f"{type(error).__name__}: {lines[0][:300].rstrip('.')}"


def _ended(manifest: SpaceManifest) -> int:
    """Return the end of the training in milliseconds since 1970. Metrics sent twice with this time count once."""
    return int(manifest.created_at.timestamp() * 1000)


def _tags(manifest: SpaceManifest) -> dict[str, str]:
    names = ("space_id", "lineage_id", "trained_until", "content_hash", "config_hash", "code_hash")
    return {f"userrep.{name}": str(getattr(manifest, name)) for name in names}


def _run(client: Any, target: TrackingTarget, manifest: SpaceManifest) -> Any:
    """Return the run of this artifact; create it, and its experiment, if there is none."""
    known = client.get_experiment_by_name(target.experiment)
    experiment_id = known.experiment_id if known else client.create_experiment(target.experiment, target.artifacts)
    tags = _tags(manifest)
    same_artifact = (f"tags.`{name}` = '{tags[name]}'" for name in ("userrep.space_id", "userrep.content_hash"))
    if runs := client.search_runs([experiment_id], " and ".join(same_artifact), max_results=1):
        return runs[0]
    started = _ended(manifest) - int(1000 * manifest.metrics.get("seconds", 0))
    return client.create_run(experiment_id, started, tags=tags, run_name=manifest.space_id)


def _model(client: Any, run: Any, folder: str, manifest: SpaceManifest) -> str:
    """Return the id of the run's model; log the artifact as its model unless an earlier recording has.

    Models that an earlier recording could not finish are deleted.
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    run_id, experiment_id = run.info.run_id, run.info.experiment_id
    for known in client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'"):
        if known.status == "READY":
            return str(known.model_id)
        client.delete_logged_model(known.model_id)
    model = client.create_logged_model(experiment_id, manifest.space_id, run_id, _tags(manifest))
    with _local_copy(folder) as local:  # MLflow copies it as a local folder
        Model.log(None, mlflow.pyfunc, run_id=run_id, model_id=model.model_id, **pyfunc_model(local, manifest))
    return str(model.model_id)


@contextmanager
def _local_copy(folder: str) -> Iterator[str]:
    """Return a local folder with the files of an artifact: its own, or a copy for the block."""
    files, path = file_system(folder)
    if is_local(folder):
        yield path
        return
    with TemporaryDirectory() as parent:
        copy = Path(parent, path.rpartition("/")[2])
        copy_files(path, str(copy), source_filesystem=files, destination_filesystem=LocalFileSystem())
        yield str(copy)


def _log(client: Any, run_id: str, manifest: SpaceManifest, environment: Mapping[str, Any]) -> None:
    """Log parameters, losses, speed and environment."""
    import mlflow
    from mlflow.entities import Metric

    settings = manifest.model_dump(mode="json", include={"model", "training"})
    mlflow.log_params(pd.json_normalize(settings).to_dict("records")[0], run_id=run_id)  # named by their dotted paths
    measured = _metrics(manifest, environment["ranks"])
    metrics = [Metric(name, value, _ended(manifest), epoch) for name, value, epoch in measured]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run_id, metrics[start : start + _BATCH])
    mlflow.log_dict(dict(environment), "environment.json", run_id=run_id)


def _metrics(manifest: SpaceManifest, ranks: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, int]]:
    """Return (name, value, epoch): the losses of each epoch; then, with epoch 0, those of the best one, and speeds."""
    losses = [
        (name, value, int(row["epoch"])) for row in manifest.curve for name, value in row.items() if name != "epoch"
    ]
    names = {name for name, _, _ in losses}
    totals = {f"best.{name}" if name in names else name: value for name, value in manifest.metrics.items()}
    speeds = {f"rank_{rank['rank']}": float(rank["rows_per_second"]) for rank in ranks}
    if len(speeds) > _MAX_RANKS:
        values = speeds.values()
        speeds = {"min": min(values), "median": median(values), "max": max(values)}
    totals |= {f"rows_per_second.{name}": speed for name, speed in speeds.items()}
    return losses + [(name, value, 0) for name, value in totals.items()]


def _register(client: Any, name: str, run_id: str, model_id: str, manifest: SpaceManifest) -> None:
    """Register the logged model of a run, unless it is registered; set description and aliases of its version."""
    import mlflow

    known, hash_tag = client.search_model_versions(f"name = '{name}'"), "userrep.content_hash"
    same_id = [version for version in known if version.tags.get("userrep.space_id") == manifest.space_id]
    if any(version.tags.get(hash_tag) != manifest.content_hash for version in same_id):
        raise UsageError(f"model {name} has a space {manifest.space_id} of another root. Set another tracking.model.")
    versions = [version for version in known if version.run_id == run_id]
    registered = versions[0] if versions else mlflow.register_model(f"models:/{model_id}", name, tags=_tags(manifest))
    description = (
        f"Space {manifest.space_id}: {manifest.model.latent_dim} numbers per user, trained on events before "
        f"{manifest.trained_until}. `userrep spaces show {manifest.space_id} --card` prints its model card."
    )
    client.update_model_version(name, registered.version, description)
    client.set_registered_model_alias(name, manifest.space_id, registered.version)
    newest = client.get_registered_model(name).aliases.get(NEWEST, 0)
    if int(newest) < int(registered.version):  # the alias never moves to an older version
        client.set_registered_model_alias(name, NEWEST, registered.version)
