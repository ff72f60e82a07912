"""MLflow's client: its settings, loggers and tracking URI are for the time of a recording only."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from userrep.tracking.target import TrackingTarget, mlflow_client

pytestmark = pytest.mark.fast


class Mlflow(ModuleType):
    """Stands for MLflow where its import, of seconds, is not what is tested: it keeps one tracking URI."""

    def __init__(self, uri: str | None) -> None:
        super().__init__("mlflow")
        self.uri = uri
        self.prints = True

    def is_tracking_uri_set(self) -> bool:
        return self.uri is not None

    def get_tracking_uri(self) -> str:
        return self.uri or "file:mlruns"

    def set_tracking_uri(self, uri: str | None) -> None:
        self.uri = uri

    @contextmanager
    def MlflowEventsAndWarningsBehaviorGlobally(self, *, disable_event_logs: bool, **_: bool) -> Iterator[None]:
        self.prints = not disable_event_logs
        yield
        self.prints = True

    def MlflowClient(self) -> str:
        return f"a client of {self.uri}"


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Mlflow:
    mlflow = Mlflow("https://theirs")
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "mlflow.utils.autologging_utils.logging_and_warnings", mlflow)
    return mlflow


def target_at(uri: str) -> TrackingTarget:
    return TrackingTarget(uri=uri, experiment="e", model="m", artifacts=None, secrets={})


@pytest.mark.parametrize("before", ["https://theirs", None])
def test_the_tracking_uri_is_the_target_s_inside_and_what_it_was_outside_even_after_an_error(
    mlflow: Mlflow, before: str | None
) -> None:
    mlflow.uri = before
    with mlflow_client(target_at("https://ours")) as client:
        assert client == "a client of https://ours"
    assert mlflow.uri == before
    with pytest.raises(ConnectionError), mlflow_client(target_at("https://ours")):
        raise ConnectionError
    assert mlflow.uri == before


def test_settings_of_the_environment_are_kept_and_ours_are_removed_afterwards(
    mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    before = dict(os.environ)
    with mlflow_client(target_at("https://ours")):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
        assert (os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"], os.environ["DO_NOT_TRACK"]) == ("1", "true")
    assert dict(os.environ) == before


def test_what_mlflow_logs_and_prints_is_silent_inside_as_it_was_outside_and_stderr_is_left_alone(
    mlflow: Mlflow, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
    before = [logger.level for logger in loggers]
    with mlflow_client(target_at("https://ours")):
        for logger in loggers:
            logger.error("what the exception says anyhow")
        assert not mlflow.prints
        print("of another thread", file=sys.stderr)
    assert caplog.records == []
    assert capsys.readouterr().err == "of another thread\n"
    assert mlflow.prints
    assert [logger.level for logger in loggers] == before


@pytest.mark.usefixtures("mlflow")
def test_the_folder_of_a_sqlite_file_is_made_and_none_for_a_server(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with mlflow_client(target_at("https://host/a/b")):
        assert list(tmp_path.iterdir()) == []
    with mlflow_client(target_at(f"sqlite:///{tmp_path}/new/mlflow/m.db")):
        assert (tmp_path / "new" / "mlflow").is_dir()
