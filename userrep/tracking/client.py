"""MLflow's client, imported where it is first used, without its chatter and its telemetry."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from userrep.tracking.place import TrackingPlace, sqlite_file

# For the time of a recording, but for what the environment says itself.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",  # or a lock file in the working directory would go into the model
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # seven by default, minutes; a recording is tried again as a whole
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds
}


@contextmanager
def mlflow_client(place: TrackingPlace) -> Iterator[Any]:
    """Give an ``MlflowClient`` for a place; nothing is printed, and MLflow's global settings are put back.

    Cost: 2 s for the first import in a process, and 3 s for a new SQLite file.
    """
    with _settings(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own imports have some
        import mlflow

        if place.uri.startswith("sqlite:"):
            Path(sqlite_file(place.uri)).parent.mkdir(parents=True, exist_ok=True)
        before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
        with _silence():  # the import sets levels anew
            try:
                mlflow.set_tracking_uri(place.uri)  # its registry looks there for models, whatever a client was given
                yield mlflow.MlflowClient()
            finally:
                mlflow.set_tracking_uri(before)


@contextmanager
def _settings() -> Iterator[None]:
    ours = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep loggers from printing what is done, and what the exception says anyhow."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
