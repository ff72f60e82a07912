"""How errors are reported: lines on stderr, an object on stdout with --json, and cures that run as printed."""

import json
from collections.abc import Callable

import pytest

from userrep.cli.error_report import report_error, with_config
from userrep.errors import GateRefusedError, LogIncompleteError, UsageError, explain

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (UsageError(["a is wrong.", "b is wrong."]), 2, ["a is wrong.", "b is wrong."]),
        (GateRefusedError("x: refused.\ny: refused."), 3, ["x: refused.", "y: refused."]),
        (LogIncompleteError("the log is not complete yet."), 4, ["the log is not complete yet."]),
        (ValueError("odd"), 1, ["ValueError: odd. Committed work is kept. Use --debug for a traceback."]),
    ],
)
def test_an_error_has_a_line_per_fault_and_an_exit_code(
    capsys: pytest.CaptureFixture[str],
    log_to_stderr: Callable[[], None],
    error: Exception,
    code: int,
    lines: list[str],
) -> None:
    log_to_stderr()
    assert explain(error) == (code, lines)
    assert report_error(error) == code
    assert capsys.readouterr() == ("", "".join(f"userrep: {line}\n" for line in lines))
    assert report_error(error, as_json=True) == code
    assert json.loads(capsys.readouterr().out) == {"exit_code": code, "faults": lines}


@pytest.mark.parametrize(
    "arguments",
    [
        "status --config conf/a.yaml",
        "-c conf/a.yaml status --json",
        "status --config=conf/a.yaml",
        "status -cconf/a.yaml",
    ],
)
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Run `userrep pipeline --as-of D`.", "Run `userrep pipeline --as-of D --config conf/a.yaml`."),
        ("`userrep a`, or `userrep b c`", "`userrep a --config conf/a.yaml`, or `userrep b c --config conf/a.yaml`"),
        ("`userrep a --config b.yaml`", "`userrep a --config b.yaml`"),
        ("`userrep a -c b.yaml`", "`userrep a -c b.yaml`"),
        ("`userrep init --events PATH` and `userrep demo`", "`userrep init --events PATH` and `userrep demo`"),
        ("`userrep doctor --as consumer --open ROOT`", "`userrep doctor --as consumer --open ROOT`"),
        (
            "`userrep estimate --help` and `pip install 'userrep[train]'`",
            "`userrep estimate --help` and `pip install 'userrep[train]'`",
        ),
        ("`userrep initial`", "`userrep initial --config conf/a.yaml`"),
    ],
)
def test_commands_in_messages_get_the_configuration_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch, arguments: str, line: str, said: str
) -> None:
    monkeypatch.setattr("sys.argv", ["userrep", *arguments.split()])
    assert with_config([line]) == [said]


def test_commands_in_messages_get_the_overrides_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["--set", "windows_days=[7, 30]", "status", "--config", "a.yaml", "--set=root=b"]
    monkeypatch.setattr("sys.argv", ["userrep", *given])
    said = "`userrep daily --config a.yaml --set 'windows_days=[7, 30]' --set root=b`"
    assert with_config(["`userrep daily`"]) == [said]


def test_a_configuration_is_quoted_for_the_shell_and_only_named_if_it_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["userrep", "status", "--config", r"my \1 file.yaml"])
    assert with_config(["`userrep daily`"]) == [r"`userrep daily --config 'my \1 file.yaml'`"]
    for arguments in (["status"], ["status", "--config"]):
        monkeypatch.setattr("sys.argv", ["userrep", *arguments])
        assert with_config(["`userrep daily`"]) == ["`userrep daily`"]
