"""Results of checks as lines of text, and checks that fail with an error."""

import pytest

from userrep.cli.check_result import CheckResult, checked
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
