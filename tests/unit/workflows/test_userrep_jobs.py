"""Entry points of jobs: the commands they stand for, what they check before Spark starts, and how they stop."""

import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import config_file
from userrep.cli import main as cli
from userrep.cli import pipeline as cli_pipeline
from userrep.errors import GateRefusedError, UsageError
from userrep.workflows import jobs

pytestmark = pytest.mark.fast

ENTRY_POINTS = sorted((Path(__file__).parents[3] / "jobs").glob("*.py"))
COMMANDS = {"evaluate_space": ("evaluate",), "forget_users": ("forget",), "stream_embeddings": ("stream",)}
Call = Callable[..., int]


@pytest.mark.parametrize("path", ENTRY_POINTS, ids=lambda path: path.stem)
def test_an_entry_point_is_a_command_of_the_same_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, ...]] = []
    monkeypatch.setattr(cli, "main", lambda *job: called.append(job))
    if path.stem != "generate_events":
        runpy.run_path(str(path), run_name="__main__")
        assert called == [COMMANDS.get(path.stem, ("run", path.stem))]
    assert {*cli_pipeline.JOB_NAMES} | {*COMMANDS, "generate_events"} == {path.stem for path in ENTRY_POINTS}


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the as-of dates of the pipelines that jobs open; a session is never started."""
    opened: list[Any] = []

    def open_run(config: Any, as_of: date | None) -> None:
        opened.append(as_of)

    monkeypatch.setattr(cli_pipeline, "context_for_run", open_run)
    monkeypatch.setattr(cli_pipeline, "_stages", lambda *_, **__: None)
    monkeypatch.delenv("USERREP_LOG", raising=False)
    return opened


@pytest.fixture
def call(pipelines: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Return a function that calls a job as its entry point does; it returns the exit code."""
    config = config_file(tmp_path)

    def run(*arguments: str, job: tuple[str, ...] = ("run", "embed_users")) -> int:
        monkeypatch.setattr(sys, "argv", ["job.py", "--config", str(config), *arguments])
        try:
            cli.main(*job)
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return run


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
    assert [call("--as-of", "2024-05-01"), call()] == [0, 0]
    assert pipelines == [date(2024, 5, 1), None]


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (UsageError(["a: wrong.", "b: wrong too."]), 2, ["userrep: a: wrong.", "userrep: b: wrong too."]),
        (GateRefusedError("gates: too few users"), 3, ["userrep: gates: too few users"]),
        (
            ValueError("first line\nsecond line"),
            1,
            ["userrep: ValueError: first line. Committed work is kept. Use --debug for a traceback."],
        ),
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
    assert call() == code
    assert capsys.readouterr().err.splitlines() == lines


def test_a_full_disk_is_reported_even_if_another_error_wraps_it(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = GateRefusedError("gates: not written")
    error.__cause__ = OSError("[Errno 28] No space left on device")
    working(monkeypatch, error)
    assert call() == 1
    assert capsys.readouterr().err.startswith("userrep: a disk is full (No space left on device)")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--set", "modle=1"), "unknown key modle"),
        (("--run-id", "../x"), "run id '../x' is not a valid name"),
        (("--run-id=../x",), "run id '../x' is not a valid name"),
        (("--as-of", "20240501"), "--as-of 20240501: not a date. Use YYYY-MM-DD, today or yesterday."),
        (("--as-of", "2024-W18-3"), "--as-of 2024-W18-3: not a date"),
        (("--as-of", "2024-02-30"), "--as-of 2024-02-30: not a date"),
        (("--as-of", "now"), "--as-of now: not a date"),
    ],
)
def test_wrong_options_are_reported_before_a_pipeline_is_opened(
    call: Call, pipelines: list[Any], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], fault: str
) -> None:
    assert call(*arguments) == 2
    assert fault in capsys.readouterr().err
    assert pipelines == []


def test_users_to_forget_are_read_before_tables_are_opened(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "ids.txt")
    assert call("--users", missing, job=("forget",)) == 2
    assert capsys.readouterr().err.startswith(f"userrep: --users {missing}: No such file or directory")


@pytest.mark.parametrize("name", ["train_item_vectors", "build_user_features", "embed_users", "monitor_drift"])
def test_only_jobs_that_choose_dates_take_the_option_retrain(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(jobs, "run_job", lambda _, name, *, retrain: asked.append(retrain))
    if name in ("train_item_vectors", "build_user_features"):
        assert call("--retrain", job=("run", name)) == 0
        assert asked == [True]
    else:
        assert call("--retrain", job=("run", name)) == 2
        said = f"run {name}: --retrain applies only to train_item_vectors, build_user_features. Remove it."
        assert said in capsys.readouterr().err


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
    received: list[int] = []
    is_stopping = jobs.stop_on_signals(received)
    assert not is_stopping()
    os.kill(os.getpid(), number)
    assert is_stopping()
    assert jobs.stop_on_signals(received)()  # a signal that came while Spark started is remembered
