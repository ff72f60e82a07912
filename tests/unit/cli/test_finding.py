"""Findings as lines of text, and checks that fail with an error."""

import pytest

from userrep.cli.finding import Finding, checked, python_version
from userrep.errors import UsageError

pytestmark = pytest.mark.fast


def test_a_finding_names_its_cure_only_if_it_is_bad() -> None:
    assert str(Finding("java", True, "17", "Install it.")) == "ok   java: 17"
    assert str(Finding("java", False, "11", "Install 17.")) == "FAIL java: 11. Install 17."
    assert str(Finding("root", False, "not writable")) == "FAIL root: not writable"


def test_the_error_of_a_check_is_what_it_found_in_one_line() -> None:
    def refused() -> None:
        raise UsageError("no root.")

    def broken() -> None:
        raise ValueError("first line\nsecond line")

    assert checked("root", lambda: 3) == Finding("root", True, "3")
    assert checked("root", refused) == Finding("root", False, "no root.")
    assert checked("root", broken) == Finding("root", False, "ValueError: first line")


def test_python_is_accepted_from_3_11_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, is_ok in (((3, 11, 7), True), ((3, 12, 0), True), ((3, 1, 1), False)):
        monkeypatch.setattr("userrep.cli.finding.sys.version_info", version)
        python = python_version()
        monkeypatch.undo()
        assert (python.ok, python.found) == (is_ok, ".".join(map(str, version)))
