"""A finished training as an MLflow run: settings, losses, speed, environment, and its artifact as a registered model.

Every step looks whether it has been done, so that a recording that was cut off goes on where it was.
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
from userrep.tracking.model import write_model
from userrep.tracking.place import TrackingPlace, tracking_place

NEWEST = "candidate"  # the alias of the newest version
MAX_RANKS = 32  # of which each has a metric of its own
RETRY_SECONDS = 2.0
_BATCH = 1000  # metrics that a server takes at once


@dataclass(frozen=True)
class TrackedRun:
    """``model_uri``: what ``mlflow.pyfunc.load_model`` takes."""

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
    """Record a training, once; a second call for the same artifact finds the run and changes nothing.

    Parameters
    ----------
    folder, manifest : the artifact, saved. curve : losses per epoch, with the number of the ``epoch``. ranks : per rank
    ``rank``, ``host``, ``device``, ``rows_per_second``. environment : of the training; by default this process's.

    Raises
    ------
    UsageError
        If the tracking URI cannot be meant.
    TrackingError
        If recording fails twice, for example because the server is away.
    """
    place = tracking_place(config)
    environment = environment or training_environment()
    recording = _Recording(place, folder, manifest, curve, ranks, environment)
    try:
        return recording.run()
    except Exception:  # a server that is away says so in many ways
        time.sleep(RETRY_SECONDS)
    try:
        return recording.run()
    except Exception as error:
        raise TrackingError(
            f"tracking: space {manifest.space_id} could not be recorded at {place}: {_said(error, place)}. "
            "See that MLflow answers there, or set tracking.mlflow: false."
        ) from None


def _said(error: Exception, place: TrackingPlace) -> str:
    lines = place.shown(str(error)).strip().splitlines() or ["no message"]  # first hidden, then cut
    return f"{type(error).__name__}: {lines[0][:300].rstrip('.')}"


@dataclass(frozen=True)
class _Recording:
    place: TrackingPlace
    folder: str
    manifest: SpaceManifest
    curve: Sequence[Mapping[str, float]]
    ranks: Sequence[Mapping[str, Any]]
    environment: Mapping[str, object]

    def run(self) -> TrackedRun:
        """Take the steps that are missing."""
        with mlflow_client(self.place) as client:
            experiment_id = self._experiment(client)
            run = self._run(client, experiment_id)
            run_id = run.info.run_id
            if run.info.status != "FINISHED":
                self._log(client, run_id)
                self._name(client, self._version(client, run_id) or self._new_version(client, run))
                client.set_terminated(run_id, end_time=self._ended)
        return TrackedRun(run_id, f"models:/{self.place.model}@{self.manifest.space_id}")

    @property
    def _ended(self) -> int:
        """Milliseconds since 1970. The same at each try: a measurement that is sent again is not a second one."""
        return int(self.manifest.created_at.timestamp() * 1000)

    @property
    def _tags(self) -> dict[str, str]:
        names = ("space_id", "lineage_id", "trained_until", "content_hash", "config_hash", "code_hash")
        return {f"userrep.{name}": str(getattr(self.manifest, name)) for name in names}

    def _experiment(self, client: Any) -> str:
        name = self.place.experiment
        found = client.get_experiment_by_name(name)
        return str(found.experiment_id if found else client.create_experiment(name, self.place.artifacts))

    def _run(self, client: Any, experiment_id: str) -> Any:
        """Find the run of this artifact, or start it."""
        wanted = " and ".join(
            f"tags.`userrep.{name}` = '{getattr(self.manifest, name)}'" for name in ("space_id", "content_hash")
        )
        if found := client.search_runs([experiment_id], wanted, max_results=1):
            return found[0]
        started = self._ended - int(1000 * self.manifest.metrics.get("seconds", 0))
        return client.create_run(experiment_id, started, tags=self._tags, run_name=self.manifest.space_id)

    def _log(self, client: Any, run_id: str) -> None:
        """Send parameters, losses, speed and environment."""
        from mlflow.entities import Metric, Param

        settings = {name: getattr(self.manifest, name).model_dump(mode="json") for name in ("model", "training")}
        client.log_batch(run_id, params=[Param(name, str(value)) for name, value in _flat(settings)])
        metrics = [Metric(name, value, self._ended, step) for name, value, step in self._measured()]
        for start in range(0, len(metrics), _BATCH):
            client.log_batch(run_id, metrics[start : start + _BATCH])
        client.log_dict(run_id, {**self.environment, "ranks": list(self.ranks)}, "environment.json")

    def _measured(self) -> Iterator[tuple[str, float, int]]:
        """Yield (name, value, epoch): each epoch's losses, the best epoch's, and the speed of ranks."""
        for row in self.curve:
            yield from ((name, value, int(row["epoch"])) for name, value in row.items() if name != "epoch")
        of_epochs = {name for row in self.curve for name in row}
        for name, value in self.manifest.metrics.items():
            yield f"best.{name}" if name in of_epochs else name, value, 0
        speeds = {rank["rank"]: float(rank["rows_per_second"]) for rank in self.ranks}
        if len(speeds) <= MAX_RANKS:
            yield from ((f"rows_per_second.rank_{rank}", speed, 0) for rank, speed in speeds.items())
        else:
            for name, of in (("min", min), ("median", median), ("max", max)):
                yield f"rows_per_second.{name}", of(speeds.values()), 0

    def _version(self, client: Any, run_id: str) -> Any:
        """Find the version that was registered before this recording was cut off."""
        versions = client.search_model_versions(f"name = '{self.place.model}'")
        return next((version for version in versions if version.run_id == run_id), None)

    def _new_version(self, client: Any, run: Any) -> Any:
        """Register the artifact."""
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(self.place.model)
        except MlflowException as error:
            if not error.error_code.endswith("ALREADY_EXISTS"):
                raise
        done = run.outputs.model_outputs if run.outputs else []
        model_id = done[0].model_id if done else self._logged_model(client, run.info)
        source, tags = f"models:/{model_id}", self._tags
        return client.create_model_version(self.place.model, source, run.info.run_id, tags, model_id=model_id)

    def _logged_model(self, client: Any, run: Any) -> str:
        """Log the artifact as a model of the run; return its id."""
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        logged = client.create_logged_model(run.experiment_id, self.manifest.space_id, run.run_id, self._tags)
        model_id: str = logged.model_id
        about = Model(logged.artifact_location, run.run_id, model_id=model_id, model_uuid=model_id)
        with tempfile.TemporaryDirectory() as scratch:
            path = str(Path(scratch) / "model")
            write_model(path, folder=self.folder, manifest=self.manifest, model=about)
            client.log_model_artifacts(model_id, path)
        client.finalize_logged_model(model_id, "READY")
        client.log_outputs(run.run_id, [LoggedModelOutput(model_id, 0)])
        return model_id

    def _name(self, client: Any, version: Any) -> None:
        """Set the aliases; the newest version's does not go back to an older one."""
        name, aliases = self.place.model, client.get_registered_model(self.place.model).aliases
        client.set_registered_model_alias(name, self.manifest.space_id, version.version)
        if int(aliases.get(NEWEST, 0)) < int(version.version):
            client.set_registered_model_alias(name, NEWEST, version.version)


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of nested settings."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
