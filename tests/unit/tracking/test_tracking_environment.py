"""The environment of a training: its host, and the versions that are installed."""

import json
import platform
import socket
from importlib import metadata

import numpy
import pyarrow
import pytest

from userrep import __version__
from userrep.tracking import environment
from userrep.tracking.environment import training_environment

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def _platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the platform without the process that Python 3.11 asks for it."""
    monkeypatch.setattr(platform, "platform", lambda: "Linux-6.1")


def test_host_python_and_packages_are_those_of_this_process() -> None:
    found = training_environment()
    assert (found["python"], found["host"]) == (platform.python_version(), socket.gethostname())
    assert found["platform"] == "Linux-6.1"
    packages = found["packages"]
    assert isinstance(packages, dict)
    assert {
        "userrep": __version__,
        "numpy": numpy.__version__,
        "pyarrow": pyarrow.__version__,
    }.items() <= packages.items()
    assert packages["delta-spark"] == metadata.version("delta-spark")
    assert {"torch", "horovod", "pyspark", "pandas", "safetensors"} <= packages.keys()
    assert json.loads(json.dumps(found)) == found


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_PACKAGES", ("numpy", "no-such-package"))
    packages = training_environment()["packages"]
    assert packages == {"userrep": __version__, "numpy": numpy.__version__, "no-such-package": None}
