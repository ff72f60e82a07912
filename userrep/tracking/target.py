"""Where trainings are recorded: MLflow's store or server, and how much of its address may be shown."""

import os
import re
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import unquote

from userrep.config import Config
from userrep.config.variables import on_databricks, with_variables
from userrep.errors import UsageError
from userrep.store.storage import artifacts_root, file_system

_SERVERS = ("http", "https", "databricks")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class TrackingPlace:
    """An experiment and a registered model at a URI. ``artifacts``: the folder of a new experiment's files, None where
    the server has its own. ``secrets``: what must not be shown, and what is shown for it.
    """

    uri: str = field(repr=False)
    experiment: str
    model: str
    artifacts: str | None
    secrets: dict[str, str] = field(repr=False)

    def shown(self, text: str) -> str:
        """Return a text without the passwords of the URI, and without what stands for a ``${NAME}`` in it."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, self.secrets[secret])
        return re.sub(r"//[^/@\s]*@", "//***@", text)

    def __str__(self) -> str:
        return self.shown(self.uri)


def check_tracking(config: Config) -> None:
    """Refuse a tracking URI that cannot be meant, before any long work. A server is not asked: it may be back by then.

    Raises
    ------
    UsageError
        As ``tracking_place`` does.
    """
    if config.tracking.mlflow:
        tracking_place(config)


def tracking_place(config: Config) -> TrackingPlace:
    """Find where trainings are recorded: by configuration, by environment, on Databricks, or below a local root.

    Raises
    ------
    UsageError
        If none of them says so, a ``${NAME}`` is not set, MLflow has no such kind of store, or SQLite cannot write.
    """
    written, origin = _written_uri(config)
    uri, variables = with_variables(written, origin)
    kind = _kind(uri)
    experiment, model = _databricks_names(config) if kind == "databricks" else _names(config)
    place = TrackingPlace(
        uri=uri,
        experiment=experiment,
        model=model,
        artifacts=_artifacts(config) if kind in _DATABASES else None,
        secrets=variables | dict.fromkeys(_passwords(uri), "***"),
    )
    if fault := _fault(uri, kind):
        raise UsageError(f"{origin} {place}: {fault}")
    return place


def _written_uri(config: Config) -> tuple[str, str]:
    """Return the URI as it is written, and where."""
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
        f"tracking: {where} no place for SQLite. Name MLflow's server in tracking.uri or MLFLOW_TRACKING_URI, "
        "or set tracking.mlflow: false."
    )


def _names(config: Config) -> tuple[str, str]:
    return config.tracking.experiment, config.tracking.model


def _databricks_names(config: Config) -> tuple[str, str]:
    """Return the names where experiments are paths in a workspace, and models belong to a schema."""
    experiment, model = _names(config)
    path = experiment if experiment.startswith("/") else f"/Shared/{experiment}"
    return path, f"{config.catalog}.{config.schema_}.{model}" if config.catalog else model


def _kind(uri: str) -> str:
    """Return the scheme without a database's driver; a path is a file's."""
    match = re.match(r"([a-z][a-z0-9.-]*)(\+[a-z0-9]+)?:", uri)
    return match[1] if match else "databricks" if uri == "databricks" else "file"


def _passwords(uri: str) -> set[str]:
    """Return what a URI has before its host, but for a name, and after its ``?``; as written and decoded."""
    before_host = re.match(r"[^/]*//([^/@]*)@", uri)
    name, _, password = before_host[1].partition(":") if before_host else ("", "", "")
    found = {password or name, uri.partition("?")[2]}
    return {text for secret in found for text in (secret, unquote(secret)) if text}


def _artifacts(config: Config) -> str:
    """Return a database's folder of artifacts; without one, MLflow would take the working directory's ``mlruns``."""
    return re.sub(r"^s3[an]://", "s3://", f"{artifacts_root(config)}/mlflow/artifacts")


def _fault(uri: str, kind: str) -> str:
    """Say what is wrong with a URI, and the cure; empty where nothing is."""
    if kind in ("http", "https"):
        return "" if re.match(r"https?://[^/?#]+", uri) else "no host in it; write https://HOST."
    if kind == "sqlite":
        folder = next(parent for parent in Path(sqlite_file(uri)).absolute().parents if parent.exists())
        usable = folder.is_dir() and os.access(folder, os.W_OK)
        return "" if usable else f"{folder} is no folder that this user may write to; name another file."
    if kind == "file":
        allowed = os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1")
        return "" if allowed else "MLflow has given up stores of plain files; write sqlite:///FOLDER/mlflow.db."
    plugins = {entry.name for entry in entry_points(group="mlflow.tracking_store")}
    if kind in (*_SERVERS, *_DATABASES, *plugins):
        return ""
    return f"MLflow has no store of kind {kind}; write https://HOST, databricks, or sqlite:///FOLDER/mlflow.db."


def sqlite_file(uri: str) -> str:
    """Return the file of a ``sqlite:///`` URI."""
    return uri.partition("///")[2].partition("?")[0]
