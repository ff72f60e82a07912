"""Fixtures that run the command line in the test's process, and the messages that userrep logs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.command_line import Answer, Userrep


@pytest.fixture
def userrep(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Userrep:
    """Return a function that runs a command in this process."""
    from tests.support.command_line import Answer
    from userrep.cli import main as cli

    def run(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["userrep", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
            assert code, "a successful command must return without SystemExit"
        out, err = capfd.readouterr()
        assert "--debug" in arguments or "Traceback" not in err
        return Answer(code, out, err)

    return run


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The messages that userrep logs during a test."""
    from tests.support.log_lines import messages_to

    messages: list[str] = []
    with messages_to(messages.append):
        yield messages


@pytest.fixture
def log_to_stderr() -> Iterator[Callable[[], None]]:
    """Return a function that begins to print log lines; nothing is printed after the test."""
    from userrep import logs

    yield logs.log_to_stderr
    logs.stop_log_to_stderr()


@pytest.fixture
def no_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a command that starts a Spark session."""

    def started(*_: object, **__: object) -> None:
        raise AssertionError("the command started a Spark session")

    monkeypatch.setattr("userrep.spark.session.get_session", started)
