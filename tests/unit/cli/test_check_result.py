"""Results of checks as lines of text, and checks that fail with an error."""

import pytest

from userrep.cli.check_result import CheckResult, checked, python_version
from userrep.errors import UsageError

pytestmark = pytest.mark.fast


def test_a_result_names_its_cure_only_if_the_check_failed() -> None:
    assert str(CheckResult("java", True, "17", "Install it.")) == "ok   java: 17"
    assert str(CheckResult("java", False, "11", "Install 17.")) == "FAIL java: 11. Install 17."
    assert str(CheckResult("root", False, "not writable")) == "FAIL root: not writable"


def test_the_error_of_a_check_is_what_it_found_in_one_line() -> None:
    def refused() -> None:
        raise UsageError("no root.")

    def broken() -> None:
        raise ValueError("first line\nsecond line")

    assert checked("root", lambda: 3) == CheckResult("root", True, "3")
    assert checked("root", refused) == CheckResult("root", False, "no root.")
    assert checked("root", broken) == CheckResult("root", False, "ValueError: first line")


def test_python_is_accepted_from_3_11_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, is_ok in (((3, 11, 7), True), ((3, 12, 0), True), ((3, 1, 1), False)):
        monkeypatch.setattr("userrep.cli.check_result.sys.version_info", version)
        python = python_version()
        monkeypatch.undo()
        assert (python.ok, python.found) == (is_ok, ".".join(map(str, version)))
