"""Skips are listed at the end of a run, and with ``--strict-skips`` only the reasons below are accepted.

`make test` and CI pass the option: there everything that a test needs is installed by `make setup`, and a skip would
hide that a part of the system was not tested.
"""

import re
from collections.abc import Iterator

import pytest

# Reasons of skips that remain on a machine after `make setup`. Each needs a comment.
ALLOWED = (
    r"^shared data is absent: ",  # real logs are not part of the repository
)


def is_allowed(reason: str) -> bool:
    """Return whether a skip with this reason is accepted after `make setup`."""
    return any(re.search(pattern, reason) for pattern in ALLOWED)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--strict-skips``."""
    parser.addoption("--strict-skips", action="store_true", help="fail a test that skips for an unlisted reason")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Turn a skip for an unlisted reason into a failure."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("strict_skips"):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        if not is_allowed(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped, but only reasons in {__name__}.ALLOWED are accepted: {reason}"
    return report
