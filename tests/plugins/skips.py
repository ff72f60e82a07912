"""Skips are listed at the end of a run, and with ``--strict-skips`` only the reasons below are accepted.

The make targets pass the option: `make setup` installs everything that a test needs, and a skip would hide that a part
of the system was not tested.
"""

import re
from collections.abc import Generator

import pytest

from tests.plugins.tiers import tier_of

# Reasons that remain on a machine after `make setup`.
ALLOWED = (r"^shared data is absent: ",)  # real logs are not part of the repository
# Reasons that remain for tests that only `make test-all` runs: properties of the machine.
ALLOWED_IN_FULL = (
    r"^this machine has no CUDA device",
    r"^this machine has a CUDA toolkit",
    r"^this machine does not allow mounts",
    r"^this machine has no systemd",
)


def is_allowed(reason: str, tier: str | None) -> bool:
    """Return whether a test of this tier may be skipped for this reason after `make setup`."""
    patterns = ALLOWED + (ALLOWED_IN_FULL if tier == "full" else ())
    return any(re.search(pattern, reason) for pattern in patterns)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--strict-skips``."""
    parser.addoption("--strict-skips", action="store_true", help="fail a test that is skipped for an unlisted reason")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip for an unlisted reason into a failure."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("strict_skips"):
        assert isinstance(report.longrepr, tuple)
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        if not is_allowed(reason, tier_of(item)):
            report.outcome = "failed"
            report.longrepr = f"skipped, but tests/plugins/skips.py does not accept the reason: {reason}"
    return report
