"""The environment of a training: host, platform and package versions."""

import platform
import socket
from importlib.metadata import PackageNotFoundError, version

from userrep import __version__

_PACKAGES = ("torch", "horovod", "pyspark", "delta-spark", "pyarrow", "numpy", "pandas", "safetensors")


def training_environment() -> dict[str, object]:
    """Return this process's host and platform, and the versions of Python and of the packages that a training uses."""
    packages = {"userrep": __version__} | {name: _version(name) for name in _PACKAGES}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "packages": packages,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # Horovod is optional
        return None
