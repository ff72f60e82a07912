"""MLflow's client: imported on first use, with its output and telemetry turned off."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from userrep.tracking.target import TrackingTarget, sqlite_file

# Set while the client is open. Variables that are already set take precedence.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",  # otherwise MLflow copies a lock file of the working directory into the model
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the default of seven takes minutes; a whole recording is retried instead
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds
}


@contextmanager
def mlflow_client(target: TrackingTarget) -> Iterator[Any]:
    """Open an ``MlflowClient`` for a target. It prints nothing, and MLflow's global settings are restored at the end.

    Cost: 2 s for the first import in a process, and 3 s for a new SQLite file.
    """
    with _settings(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's imports raise warnings
        import mlflow

        if target.uri.startswith("sqlite:"):
            Path(sqlite_file(target.uri)).parent.mkdir(parents=True, exist_ok=True)
        before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
        with _silence():  # after the import, which resets the log levels
            try:
                # Set globally: the model registry uses the global URI, even if a client was given another one.
                mlflow.set_tracking_uri(target.uri)
                yield mlflow.MlflowClient()
            finally:
                mlflow.set_tracking_uri(before)


@contextmanager
def _settings() -> Iterator[None]:
    added = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep MLflow's loggers from printing progress, and errors that are also raised as exceptions."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
