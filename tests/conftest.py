"""Set-up of a test run: the plugins of this suite, and a temporary folder that is removed at the end."""

import os
import shutil
import tempfile
from pathlib import Path

import psutil
import pytest

pytest_plugins = (
    "tests.plugins.tiers",
    "tests.plugins.durations",
    "tests.plugins.skips",
    "tests.plugins.worlds",
    "tests.plugins.servers",
    "tests.plugins.commands",
)

_TEMPORARY = "userrep-tests-"

pytest.register_assert_rewrite("tests.support.conformance")


def pytest_configure(config: pytest.Config) -> None:
    """Use one temporary folder for all processes that tests start, and remove it at the end.

    A killed JVM leaves its temporary files, on a cluster with a copy of every JAR. pytest keeps the folders of failed
    tests elsewhere.
    """
    if hasattr(config, "workerinput"):  # a pytest-xdist process, which inherits the folder
        return
    for folder_left in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}[0-9]*-*"):
        if not psutil.pid_exists(int(folder_left.name.split("-")[2])):  # left by a killed run
            shutil.rmtree(folder_left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"{_TEMPORARY}{os.getpid()}-")
    patch = pytest.MonkeyPatch()
    if "PYTEST_DEBUG_TEMPROOT" not in os.environ:
        patch.setenv("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    patch.setattr(tempfile, "tempdir", folder)
    for name in ("TMPDIR", "SPARK_LOCAL_DIRS"):
        patch.setenv(name, folder)
    patch.setenv("SPARK_SUBMIT_OPTS", f"-Djava.io.tmpdir={folder}", prepend=" ")  # for drivers
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    config.add_cleanup(patch.undo)
