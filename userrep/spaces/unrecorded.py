"""Trainings that MLflow has not got yet: what is to be recorded waits in a file beside the artifacts until it is.

A run that is killed after a training, or finds the tracking server away, loses nothing: the next one records it.
"""

import json
from collections.abc import Callable, Mapping, Sequence

from userrep.config import Config
from userrep.errors import TrackingError, UsageError
from userrep.model.artifact import load_artifact
from userrep.spaces.registry import Space, artifact_folder, list_spaces
from userrep.store.storage import artifacts_root, delete_file, exists, read_bytes, write_bytes
from userrep.store.tables import Tables
from userrep.tracking.environment import training_environment
from userrep.tracking.record import TrackedRun, record_training

_MAX_BYTES = 64 << 20  # a line for each epoch and rank


def keep_training(
    config: Config,
    space_id: str,
    *,
    curve: Sequence[Mapping[str, float]],
    ranks: Sequence[Mapping[str, object]],
) -> None:
    """Keep what MLflow is to be told of a training, with this process's environment, before its space is registered.

    Takes what ``record_training`` takes. One file, written whole; in the place of one that a killed run left. Nothing
    where tracking is off.
    """
    if not config.tracking.mlflow:
        return
    training = {"curve": list(curve), "ranks": list(ranks), "environment": training_environment()}
    write_bytes(_path(config, space_id), json.dumps(training).encode())


def record_kept(tables: Tables, config: Config, report: Callable[[str], None]) -> None:
    """Record the kept trainings of registered spaces, oldest first; what cannot be recorded is told, and kept.

    Cost: one look for a file per space, where nothing is kept; 2 s to 8 s for the first recording of a process.
    """
    if not config.tracking.mlflow:
        return
    for space in list_spaces(tables):
        if not exists(_path(config, space.space_id)):
            continue
        try:
            run = _record(config, space)
        except (TrackingError, UsageError) as error:
            report(f"{error} The space is whole; the next run of the pipeline records it.")
            return
        delete_file(_path(config, space.space_id))
        report(f"tracking: space {space.space_id} is recorded with MLflow: run {run.run_id}, {run.model_uri}")


def _record(config: Config, space: Space) -> TrackedRun:
    folder = artifact_folder(config, space)
    training = json.loads(read_bytes(_path(config, space.space_id), max_bytes=_MAX_BYTES))
    manifest = load_artifact(folder, space.content_hash).manifest
    return record_training(config, folder=folder, manifest=manifest, **training)


def _path(config: Config, space_id: str) -> str:
    return f"{artifacts_root(config)}/artifacts/unrecorded/{space_id}.json"
