"""Trainings that are not yet recorded in MLflow: each is kept in a file below the artifacts root until then.

So nothing is lost if a run is killed after the training or cannot reach the tracking server: the next run records it.
"""

import json
import logging
from collections.abc import Mapping, Sequence

from userrep.config import Config
from userrep.errors import ArtifactError, TrackingError, UsageError, in_one_line
from userrep.model.artifact import load_artifact
from userrep.spaces.registry import artifact_folder, list_spaces
from userrep.store.filesystem import delete_file, exists, read_bytes, write_bytes
from userrep.store.tables import Tables
from userrep.tracking.record import record_training, training_environment
from userrep.tracking.target import tracking_target

logger = logging.getLogger(__name__)

_MAX_BYTES = 64 << 20  # an entry for each rank


def keep_training(tables: Tables, config: Config, space_id: str, *, ranks: Sequence[Mapping[str, object]]) -> None:
    """Save what a training's artifact lacks, to be recorded after the space is registered: its ranks and environment.

    ``ranks`` are those of ``record_training``; the environment is that of this process. Writes one file, and replaces
    one left by a killed run. Does nothing if tracking is off.
    """
    if config.tracking.mlflow:
        training = {"ranks": list(ranks), "environment": training_environment()}
        write_bytes(_path(tables, space_id), json.dumps(training).encode())


def record_kept(tables: Tables, config: Config) -> None:
    """Record the saved trainings of registered spaces in MLflow, oldest first.

    A failure of the tracking server is reported and ends the call; the remaining trainings stay saved. One whose
    artifact is missing or damaged is reported and passed over. Cost: one file look-up per space; the first recording of
    a process takes 2 to 8 s.
    """
    if not config.tracking.mlflow:
        return
    for space in list_spaces(tables):
        path, folder = _path(tables, space.space_id), artifact_folder(tables, space)
        if not exists(path):
            continue
        try:
            training = json.loads(read_bytes(path, max_bytes=_MAX_BYTES))
            manifest = load_artifact(folder, space.content_hash).manifest
        except (ArtifactError, ValueError, OSError) as error:
            logger.warning(f"tracking: space {space.space_id} cannot be recorded: {in_one_line(error)}")
            continue
        try:
            target = tracking_target(config)
        except UsageError as error:
            logger.warning(f"{error} The space itself is complete. The next run of the pipeline records it.")
            return
        try:
            run = record_training(target, folder=folder, manifest=manifest, **training)
        except UsageError as error:
            logger.warning(f"{error} The space itself is complete.")
            continue
        except TrackingError as error:
            logger.warning(f"{error} The space itself is complete. The next run of the pipeline records it.")
            return
        delete_file(path)
        logger.info(f"tracking: space {space.space_id} recorded in MLflow: run {run.run_id}, {run.model_uri}")


def _path(tables: Tables, space_id: str) -> str:
    return f"{tables.artifacts_root}/artifacts/unrecorded/{space_id}.json"
