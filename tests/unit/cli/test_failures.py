"""Messages and exit codes of exceptions. test_cli_usage.py covers the messages of commands."""

import pytest

from userrep.cli.failures import report_error
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
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, lines: list[str]
) -> None:
    assert explain(error) == (code, lines)
    assert report_error(error) == code
    assert capsys.readouterr() == ("", "".join(f"userrep: {line}\n" for line in lines))
