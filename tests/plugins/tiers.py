"""The three tiers of the suite: fast, default, full.

``fast`` tests start no process and no Spark session. ``default`` adds Spark and one representative of each kind of
system test. ``full`` is everything. Each file names its tier in ``pytestmark``; in a default file, single tests may be
marked full.
"""

import multiprocessing.process
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

TIERS = ("fast", "default", "full")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, so that a misspelled mark is an error."""
    config.addinivalue_line("markers", "fast: no Spark and no subprocess")
    config.addinivalue_line("markers", "default: part of `make test`")
    config.addinivalue_line("markers", "full: only part of `make test-all`")


def tier_of(item: pytest.Item) -> str | None:
    """Return the tier of a test, from its nearest mark."""
    return next((mark.name for mark in item.iter_markers() if mark.name in TIERS), None)


def _refused(*_: Any, **__: Any) -> None:
    pytest.fail("a fast test may start neither a process nor a Spark session; mark its file default", pytrace=True)


_start = subprocess.Popen.__init__


def _refused_except_ldconfig(self: Any, args: Any, *rest: Any, **more: Any) -> None:
    if "ldconfig" not in str(args):  # which the first `import torch` runs to find libraries
        _refused()
    _start(self, args, *rest, **more)


@pytest.fixture(autouse=True)
def _fast_tests_start_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a fast test that starts a process or a Spark session."""
    if tier_of(request.node) != "fast":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", _refused_except_ldconfig)
        patch.setattr(multiprocessing.process.BaseProcess, "start", _refused)
        if "pyspark.sql" in sys.modules:  # without this import, the test has no session to start
            patch.setattr("pyspark.sql.SparkSession.Builder.getOrCreate", _refused)
        yield
