"""Where trainings are recorded: which setting decides, what is refused before any work, and what is never shown."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from userrep.errors import UsageError
from userrep.tracking.target import TrackingTarget, check_tracking, sqlite_file, tracking_target

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DATABRICKS_RUNTIME_VERSION", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.delenv(name, raising=False)


def target_of(folder: Path, **tracking: Any) -> TrackingTarget:
    return tracking_target(config_of(folder, tracking=tracking))


def test_the_configured_uri_precedes_the_environment_s_then_databricks_then_a_file_below_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below_root = target_of(tmp_path)
    assert below_root.uri == f"sqlite:///{tmp_path}/root/mlflow/mlflow.db"
    assert below_root.artifacts == f"{tmp_path}/root/mlflow/artifacts"
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    assert target_of(tmp_path).uri == "databricks"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://theirs")
    assert (target_of(tmp_path).uri, target_of(tmp_path).artifacts) == ("https://theirs", None)
    assert target_of(tmp_path, uri="https://ours").uri == "https://ours"
    assert not (tmp_path / "root").exists()


def test_on_databricks_experiments_are_paths_and_models_have_a_schema(tmp_path: Path) -> None:
    shared = target_of(tmp_path, uri="databricks")
    assert (shared.experiment, shared.model) == ("/Shared/userrep", "userrep")
    values = {"root": None, "catalog": "main", "schema": "reps", "artifacts": "/models"}
    config = config_of(tmp_path, **values, tracking={"uri": "databricks://work", "experiment": "/Users/ada/reps"})
    assert (tracking_target(config).experiment, tracking_target(config).model) == (
        "/Users/ada/reps",
        "main.reps.userrep",
    )
    elsewhere = config_of(tmp_path, **values, tracking={"uri": "https://host"})
    assert (tracking_target(elsewhere).experiment, tracking_target(elsewhere).model) == ("userrep", "userrep")


@pytest.mark.parametrize(
    ("root", "artifacts"),
    [
        ("s3a://bucket/x", "s3://bucket/x/mlflow/artifacts"),
        ("s3n://bucket/x", "s3://bucket/x/mlflow/artifacts"),
        ("abfss://c@account.dfs.core.windows.net/x", "abfss://c@account.dfs.core.windows.net/x/mlflow/artifacts"),
    ],
)
def test_a_database_has_its_artifacts_below_root_at_a_uri_that_mlflow_reads(
    tmp_path: Path, root: str, artifacts: str
) -> None:
    config = config_of(tmp_path, root=root, tracking={"uri": "postgresql://db/m"})
    assert tracking_target(config).artifacts == artifacts


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"root": "s3a://bucket/x"},
            r"tracking: root s3a://bucket/x is not a local folder for an SQLite file\. Set tra",
        ),
        (
            {"root": None, "catalog": "main", "schema": "reps", "artifacts": "/models"},
            r"tables in a catalog are not a local folder for an SQLite file\. Set tracking\.uri or MLFLOW_TRACKING_URI",
        ),
        ({"tracking": {"uri": "htps://host"}}, r"tracking.uri htps://host: MLflow has no store of kind htps\. Write"),
        ({"tracking": {"uri": "http:/host"}}, r"tracking.uri http:/host: the URI has no host\. Write https://HOST"),
        ({"tracking": {"uri": "mlruns"}}, r"MLflow no longer supports file stores\. Write sqlite:///FOLDER"),
        ({"tracking": {"uri": "file:///x/mlruns"}}, r"MLflow no longer supports file stores"),
        ({"tracking": {"uri": "sqlite:////dev/null/m.db"}}, r"/dev/null is not a folder that this user can write to"),
        (
            {"tracking": {"uri": "https://${NO_A}:${NO_B}@host"}},
            r"tracking.uri: not set in the environment: NO_A, NO_B",
        ),
    ],
)
def test_an_unusable_uri_is_refused_before_any_work(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    config = config_of(tmp_path, **values)
    with pytest.raises(UsageError, match=said) as caught:
        check_tracking(config)
    assert len(caught.value.faults) == 1
    assert "\n" not in str(caught.value)
    off = {**values, "tracking": {**values.get("tracking", {}), "mlflow": False}}
    check_tracking(config_of(tmp_path, **off))


def test_stores_of_plain_files_are_taken_where_mlflow_is_set_to_take_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "True")
    target = target_of(tmp_path, uri="file:///x/mlruns")
    assert (target.uri, target.artifacts) == ("file:///x/mlruns", None)


def test_neither_passwords_nor_variables_of_a_uri_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKING_TOKEN", "t0psecret")
    target = target_of(tmp_path, uri="postgresql+psycopg2://ada:p%40ss@db/m?sslpassword=${TRACKING_TOKEN}")
    assert target.uri == "postgresql+psycopg2://ada:p%40ss@db/m?sslpassword=t0psecret"
    said = target.shown("password p@ss of ada, or t0psecret, does not open //ada:p%40ss@db/m?sslpassword=t0psecret")
    for text in (said, str(target), repr(target)):
        assert not [secret for secret in ("p@ss", "p%40ss", "t0psecret") if secret in text]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "htps://ada:hush@host")
    with pytest.raises(UsageError, match=r"MLFLOW_TRACKING_URI htps://\*\*\*@host: ") as caught:
        target_of(tmp_path)
    assert "hush" not in str(caught.value)
    assert str(target_of(tmp_path, uri="postgresql://ada:pa/ss@db/m")) == "postgresql://***@db/m"


def test_a_secret_that_holds_another_is_hidden_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT", "key")
    monkeypatch.setenv("LONG", "key-of-the-house")
    target = target_of(tmp_path, uri="https://${SHORT}:${LONG}@host")
    assert target.shown("no entry with key-of-the-house, nor with key") == "no entry with ***, nor with ${SHORT}"
    token = target_of(tmp_path, uri="https://onlytoken@host")  # a name without a password is a token
    assert token.shown("token onlytoken has expired") == "token *** has expired"


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:///relative/m.db", "relative/m.db"),
        ("sqlite:////absolute/m.db", "/absolute/m.db"),
        ("sqlite:////absolute/m.db?timeout=9", "/absolute/m.db"),
    ],
)
def test_the_file_of_a_sqlite_uri(uri: str, file: str) -> None:
    assert sqlite_file(uri) == file
