"""Entry points of jobs: what they check before Spark starts, and how an error becomes an exit code and a line."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from userrep.errors import GateRefusedError, UsageError
from userrep.workflows import jobs

pytestmark = pytest.mark.fast

Call = Callable[..., int]


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the as-of dates of the pipelines that jobs open; a session is never started."""
    opened: list[Any] = []

    def opens(config: Any, spark: Any, as_of: date | None) -> None:
        opened.append(as_of)

    monkeypatch.setattr(jobs, "get_session", lambda *_, **__: None)
    monkeypatch.setattr(jobs, "Pipeline", opens)
    monkeypatch.delenv("USERREP_LOG", raising=False)
    return opened


@pytest.fixture
def call(pipelines: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Return a function that calls an entry point as its script would be called."""
    config = tmp_path / "userrep.yaml"
    config.write_text(config_of(tmp_path).model_dump_json(exclude_unset=True, by_alias=True))

    def run(main: Callable[[], int], *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["job.py", "--config", str(config), *arguments])
        return main()

    return run


def embed_users() -> int:
    return jobs.job_main("embed_users", "…")


def working(monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None) -> None:
    """Let jobs do nothing, or fail."""

    def work(*_: object, **__: object) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(jobs, "run_job", work)


def test_a_job_passes_its_as_of_date_to_the_pipeline(
    call: Call, pipelines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    working(monkeypatch)
    assert [call(embed_users, "--as-of", "2024-05-01"), call(embed_users)] == [0, 0]
    assert pipelines == [date(2024, 5, 1), None]


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (UsageError(["a: wrong.", "b: wrong too."]), 2, ["embed_users: a: wrong.", "embed_users: b: wrong too."]),
        (GateRefusedError("gates: too few users"), 3, ["embed_users: gates: too few users"]),
        (ValueError("first line\nsecond line"), 1, ["embed_users: ValueError: first line"]),
    ],
    ids=["usage", "gate", "unexpected"],
)
def test_an_error_ends_the_job_with_its_exit_code_and_a_line_for_each_fault(
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    lines: list[str],
) -> None:
    working(monkeypatch, error)
    assert call(embed_users) == code
    assert capsys.readouterr().err.splitlines() == lines


def test_a_full_disk_is_reported_even_if_another_error_wraps_it(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = GateRefusedError("gates: not written")
    error.__cause__ = OSError("[Errno 28] No space left on device")
    working(monkeypatch, error)
    assert call(embed_users) == 1
    assert capsys.readouterr().err.startswith("embed_users: a disk is full (No space left on device)")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--set", "modle=1"), "unknown key modle"),
        (("--run-id", "../x"), "run id '../x' is not a valid name"),
    ],
)
def test_wrong_options_are_reported_before_a_pipeline_is_opened(
    call: Call, pipelines: list[Any], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], fault: str
) -> None:
    assert call(embed_users, *arguments) == 2
    assert fault in capsys.readouterr().err
    assert pipelines == []


@pytest.mark.parametrize("text", ["20240501", "2024-W18-3", "2024-02-30", "now"])
def test_a_date_in_another_form_is_refused_by_the_name_of_the_option(
    call: Call, pipelines: list[Any], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        call(embed_users, "--as-of", text)
    assert "argument --as-of: invalid" in capsys.readouterr().err
    assert pipelines == []


def test_users_to_forget_are_read_before_a_pipeline_is_opened(
    call: Call, pipelines: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "ids.txt")
    assert call(lambda: jobs.erasure_main("…"), "--users", missing) == 2
    assert capsys.readouterr().err.startswith(f"forget_users: --users {missing}: No such file or directory")
    assert pipelines == []


@pytest.mark.parametrize("name", ["train_item_vectors", "build_user_features", "embed_users", "monitor_drift"])
def test_only_jobs_that_choose_dates_take_the_option_retrain(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(jobs, "run_job", lambda _, *, name, retrain: asked.append(retrain))
    if name in ("train_item_vectors", "build_user_features"):
        assert call(lambda: jobs.job_main(name, "…"), "--retrain") == 0
        assert asked == [True]
    else:
        with pytest.raises(SystemExit, match="2"):
            call(lambda: jobs.job_main(name, "…"), "--retrain")
        assert "unrecognized arguments: --retrain" in capsys.readouterr().err


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("signal_handlers")
def test_a_signal_asks_a_stream_to_stop_and_does_not_kill_it(number: signal.Signals) -> None:
    is_stopping = jobs.stop_on_signals()
    assert not is_stopping()
    os.kill(os.getpid(), number)
    assert is_stopping()
