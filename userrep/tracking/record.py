"""Record a finished training as an MLflow run: settings, losses, speed, environment, and a registered model.

Each step checks whether it was done before, so an interrupted recording resumes where it stopped.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from userrep.config import Config
from userrep.errors import TrackingError
from userrep.model.artifact import SpaceManifest
from userrep.tracking.client import mlflow_client
from userrep.tracking.environment import training_environment
from userrep.tracking.registered_model import write_model
from userrep.tracking.target import TrackingTarget, tracking_target

NEWEST = "candidate"  # alias of the newest model version
MAX_RANKS = 32  # up to this number, each rank has its own metric
RETRY_SECONDS = 2.0
_BATCH = 1000  # maximum metrics that a server accepts in one request


@dataclass(frozen=True)
class TrackedRun:
    """The MLflow run of a training. ``model_uri``: argument for ``mlflow.pyfunc.load_model``."""

    run_id: str
    model_uri: str


def record_training(
    config: Config,
    *,
    folder: str,
    manifest: SpaceManifest,
    curve: Sequence[Mapping[str, float]],
    ranks: Sequence[Mapping[str, object]],
    environment: Mapping[str, object] | None = None,
) -> TrackedRun:
    """Record a training. A second call for the same artifact finds the existing run and changes nothing.

    Parameters
    ----------
    folder, manifest : the saved artifact. curve : losses per epoch, each row with its ``epoch``. ranks : ``rank``,
    ``host``, ``device`` and ``rows_per_second`` of each rank. environment : environment of the training; by default
    that of this process.

    Raises
    ------
    UsageError
        If the tracking URI is unusable.
    TrackingError
        If recording fails twice, for example because the server is unreachable.
    """
    target = tracking_target(config)
    environment = environment or training_environment()
    recording = _Recording(target, folder, manifest, curve, ranks, environment)
    try:
        return recording.run()
    except Exception:  # an unreachable server raises many kinds of errors
        time.sleep(RETRY_SECONDS)
    try:
        return recording.run()
    except Exception as error:
        raise TrackingError(
            f"tracking: space {manifest.space_id} could not be recorded at {target}: {_first_line(error, target)}. "
            "Check that MLflow is running there, or set tracking.mlflow: false."
        ) from None


def _first_line(error: Exception, target: TrackingTarget) -> str:
    lines = target.shown(str(error)).strip().splitlines() or ["no message"]  # hide secrets before cutting the text
    return f"{type(error).__name__}: {lines[0][:300].rstrip('.')}"


@dataclass(frozen=True)
class _Recording:
    target: TrackingTarget
    folder: str
    manifest: SpaceManifest
    curve: Sequence[Mapping[str, float]]
    ranks: Sequence[Mapping[str, Any]]
    environment: Mapping[str, object]

    def run(self) -> TrackedRun:
        """Take the steps that are not done yet."""
        with mlflow_client(self.target) as client:
            experiment_id = self._experiment(client)
            run = self._run(client, experiment_id)
            run_id = run.info.run_id
            if run.info.status != "FINISHED":
                self._log(client, run_id)
                self._set_aliases(client, self._version(client, run_id) or self._new_version(client, run))
                client.set_terminated(run_id, end_time=self._ended)
        return TrackedRun(run_id, f"models:/{self.target.model}@{self.manifest.space_id}")

    @property
    def _ended(self) -> int:
        """End of the training in milliseconds since 1970. Metrics that are sent twice with this time count once."""
        return int(self.manifest.created_at.timestamp() * 1000)

    @property
    def _tags(self) -> dict[str, str]:
        names = ("space_id", "lineage_id", "trained_until", "content_hash", "config_hash", "code_hash")
        return {f"userrep.{name}": str(getattr(self.manifest, name)) for name in names}

    def _experiment(self, client: Any) -> str:
        name = self.target.experiment
        existing = client.get_experiment_by_name(name)
        return str(existing.experiment_id if existing else client.create_experiment(name, self.target.artifacts))

    def _run(self, client: Any, experiment_id: str) -> Any:
        """Return the run of this artifact; create it if there is none."""
        same_artifact = " and ".join(
            f"tags.`userrep.{name}` = '{getattr(self.manifest, name)}'" for name in ("space_id", "content_hash")
        )
        if runs := client.search_runs([experiment_id], same_artifact, max_results=1):
            return runs[0]
        started = self._ended - int(1000 * self.manifest.metrics.get("seconds", 0))
        return client.create_run(experiment_id, started, tags=self._tags, run_name=self.manifest.space_id)

    def _log(self, client: Any, run_id: str) -> None:
        """Log parameters, losses, speed and environment."""
        from mlflow.entities import Metric, Param

        settings = {name: getattr(self.manifest, name).model_dump(mode="json") for name in ("model", "training")}
        client.log_batch(run_id, params=[Param(name, str(value)) for name, value in _flat(settings)])
        metrics = [Metric(name, value, self._ended, step) for name, value, step in self._metrics()]
        for start in range(0, len(metrics), _BATCH):
            client.log_batch(run_id, metrics[start : start + _BATCH])
        client.log_dict(run_id, {**self.environment, "ranks": list(self.ranks)}, "environment.json")

    def _metrics(self) -> Iterator[tuple[str, float, int]]:
        """Yield (name, value, epoch): the losses of each epoch, the metrics of the best epoch, and the ranks' speed."""
        for row in self.curve:
            yield from ((name, value, int(row["epoch"])) for name, value in row.items() if name != "epoch")
        curve_names = {name for row in self.curve for name in row}
        for name, value in self.manifest.metrics.items():
            yield f"best.{name}" if name in curve_names else name, value, 0
        speeds = {rank["rank"]: float(rank["rows_per_second"]) for rank in self.ranks}
        if len(speeds) <= MAX_RANKS:
            yield from ((f"rows_per_second.rank_{rank}", speed, 0) for rank, speed in speeds.items())
        else:
            for name, aggregate in (("min", min), ("median", median), ("max", max)):
                yield f"rows_per_second.{name}", aggregate(speeds.values()), 0

    def _version(self, client: Any, run_id: str) -> Any:
        """Return the model version that an interrupted recording of this run has registered, or None."""
        versions = client.search_model_versions(f"name = '{self.target.model}'")
        return next((version for version in versions if version.run_id == run_id), None)

    def _new_version(self, client: Any, run: Any) -> Any:
        """Register the artifact as a new model version."""
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(self.target.model)
        except MlflowException as error:
            if not error.error_code.endswith("ALREADY_EXISTS"):
                raise
        logged = run.outputs.model_outputs if run.outputs else []
        model_id = logged[0].model_id if logged else self._log_model(client, run.info)
        source, tags = f"models:/{model_id}", self._tags
        return client.create_model_version(self.target.model, source, run.info.run_id, tags, model_id=model_id)

    def _log_model(self, client: Any, run: Any) -> str:
        """Log the artifact as a model of the run; return its id."""
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        logged = client.create_logged_model(run.experiment_id, self.manifest.space_id, run.run_id, self._tags)
        model_id: str = logged.model_id
        model = Model(logged.artifact_location, run.run_id, model_id=model_id, model_uuid=model_id)
        with tempfile.TemporaryDirectory() as scratch:
            path = str(Path(scratch) / "model")
            write_model(path, folder=self.folder, manifest=self.manifest, model=model)
            client.log_model_artifacts(model_id, path)
        client.finalize_logged_model(model_id, "READY")
        client.log_outputs(run.run_id, [LoggedModelOutput(model_id, 0)])
        return model_id

    def _set_aliases(self, client: Any, version: Any) -> None:
        """Set the aliases of a version. The alias ``NEWEST`` never moves to an older version."""
        name, aliases = self.target.model, client.get_registered_model(self.target.model).aliases
        client.set_registered_model_alias(name, self.manifest.space_id, version.version)
        if int(aliases.get(NEWEST, 0)) < int(version.version):
            client.set_registered_model_alias(name, NEWEST, version.version)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of nested settings."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
