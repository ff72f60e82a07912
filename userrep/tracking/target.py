"""The MLflow store or server that trainings are recorded in: its URI, without secrets for messages, and its client."""

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from userrep.config import Config
from userrep.config.environment import LOGIN, on_databricks, with_variables, without_logins
from userrep.errors import UsageError
from userrep.store.filesystem import file_system
from userrep.store.open import artifacts_root

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
# Set while the client is open. Variables that are already set take precedence.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",  # otherwise MLflow copies a lock file of the working directory into the model
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default of seven takes minutes; the next pipeline records again
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the URL has the password, and stdout is for results
}


@dataclass(frozen=True)
class TrackingTarget:
    """An experiment and a registered model at a tracking URI.

    ``artifacts``: artifact folder of a new experiment; None if the server decides. ``secrets``: each secret text with
    the text to show instead.
    """

    uri: str = field(repr=False)
    experiment: str
    model: str
    artifacts: str | None
    secrets: dict[str, str] = field(repr=False)

    def shown(self, text: str) -> str:
        """Return a text in which passwords of the URI and values of ``${NAME}`` variables are hidden."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, self.secrets[secret])
        return without_logins(text)

    def __str__(self) -> str:
        return self.shown(self.uri)


def check_tracking(config: Config) -> None:
    """Check the tracking URI before any long work. Does not contact the server, which may be reachable later.

    Raises UsageError as ``tracking_target`` does.
    """
    if config.tracking.mlflow:
        tracking_target(config)


def tracking_target(config: Config) -> TrackingTarget:
    """Return where trainings are recorded.

    The URI is ``tracking.uri``, else MLFLOW_TRACKING_URI, else "databricks" on Databricks, else a SQLite file below a
    local root.

    Raises
    ------
    UsageError
        If there is no URI, a ``${NAME}`` in it is not set, MLflow has no store of its kind, or its SQLite file cannot
        be written.
    """
    written, origin = _written_uri(config)
    uri, variables = with_variables(written, origin)
    kind = _kind(uri)
    experiment, model = config.tracking.experiment, config.tracking.model
    if kind == "databricks":  # experiments are workspace paths, and models belong to a schema
        experiment = experiment if experiment.startswith("/") else f"/Shared/{experiment}"
        model = f"{config.catalog}.{config.schema_}.{model}" if config.catalog else model
    # MLflow's default for the artifacts of a database is ``mlruns`` in the working directory.
    artifacts = re.sub(r"^s3[an]://", "s3://", f"{artifacts_root(config)}/mlflow/artifacts")
    target = TrackingTarget(
        uri=uri,
        experiment=experiment,
        model=model,
        artifacts=artifacts if kind in _DATABASES else None,
        secrets=variables | dict.fromkeys(_passwords(uri), "***"),
    )
    if fault := _fault(uri, kind):
        raise UsageError(f"{origin} {target}: {fault}")
    return target


def _written_uri(config: Config) -> tuple[str, str]:
    """Return the URI before variables are resolved, and the setting it comes from."""
    if config.tracking.uri:
        return config.tracking.uri, "tracking.uri"
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri, "MLFLOW_TRACKING_URI"
    if on_databricks():
        return "databricks", "tracking on Databricks"
    if config.root is not None and ("://" not in config.root or config.root.startswith("file:")):
        return f"sqlite:///{file_system(config.root)[1]}/mlflow/mlflow.db", "tracking below root"
    where = f"root {config.root} is" if config.root else "tables in a catalog are"
    raise UsageError(
        f"tracking: {where} not a local folder for an SQLite file. Set tracking.uri or MLFLOW_TRACKING_URI to an "
        "MLflow server, or set tracking.mlflow: false."
    )


def _kind(uri: str) -> str:
    """Return the scheme of a URI without a database driver; "file" for a path."""
    match = re.match(r"([a-z][a-z0-9.-]*)(\+[a-z0-9]+)?:", uri)
    return match[1] if match else "databricks" if uri == "databricks" else "file"


def _passwords(uri: str) -> set[str]:
    """Return the secrets of a URI, as written and decoded: its password (or a name without one) and its query."""
    before_host = re.match(rf"[^/]*//({LOGIN})@", uri)
    name, _, password = before_host[1].partition(":") if before_host else ("", "", "")
    secrets = {password or name, uri.partition("?")[2]}
    return {text for secret in secrets for text in (secret, unquote(secret)) if text}


def _fault(uri: str, kind: str) -> str:
    """Return what is wrong with a URI and how to fix it; empty if it is usable."""
    if kind in ("http", "https"):
        return "" if re.match(r"https?://[^/?#]+", uri) else "the URI has no host. Write https://HOST."
    if kind == "sqlite":
        folder = next(parent for parent in Path(sqlite_file(uri)).absolute().parents if parent.exists())
        usable = folder.is_dir() and os.access(folder, os.W_OK)
        return "" if usable else f"{folder} is not a folder that this user can write to. Choose another file."
    if kind == "file":
        allowed = os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1")
        return "" if allowed else "MLflow no longer supports file stores. Write sqlite:///FOLDER/mlflow.db."
    plugins = {entry.name for entry in entry_points(group="mlflow.tracking_store")}
    if kind in ("databricks", *_DATABASES, *plugins):
        return ""
    return f"MLflow has no store of kind {kind}. Write https://HOST, databricks, or sqlite:///FOLDER/mlflow.db."


def sqlite_file(uri: str) -> str:
    """Return the file path of a ``sqlite:///`` URI."""
    return uri.partition("///")[2].partition("?")[0]


@contextmanager
def mlflow_client(target: TrackingTarget) -> Iterator[Any]:
    """Open an ``MlflowClient`` for a target. It prints nothing, and all global settings are restored at the end.

    ``mlflow.start_run`` instead could not set a run's start and end, and fails if the process has an active run.

    Cost: 2 s for the first import in a process, and 3 s for a new SQLite file.
    """
    with ExitStack() as restored:
        for name in _SETTINGS.keys() - os.environ.keys():
            restored.callback(os.environ.pop, name, None)
            os.environ[name] = _SETTINGS[name]
        restored.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # MLflow's imports raise warnings
        import mlflow
        from mlflow.utils.autologging_utils.logging_and_warnings import MlflowEventsAndWarningsBehaviorGlobally

        for logger in map(logging.getLogger, ("mlflow", "alembic", "urllib3")):  # the import has reset their levels
            restored.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)  # errors are also raised as exceptions
        # MLflow prints its progress to stderr. Other threads' lines there stay visible.
        silence = {"disable_event_logs": True, "disable_warnings": False, "reroute_warnings": False}
        restored.enter_context(MlflowEventsAndWarningsBehaviorGlobally(**silence))
        if target.uri.startswith("sqlite:"):
            Path(sqlite_file(target.uri)).parent.mkdir(parents=True, exist_ok=True)
        restored.callback(mlflow.set_tracking_uri, mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None)
        # Set globally: the model registry uses the global URI, even if a client was given another one.
        mlflow.set_tracking_uri(target.uri)
        yield mlflow.MlflowClient()
