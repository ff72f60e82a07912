"""Peers that are installed in environments of their own, kept in the user's cache."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from benchmarks.report import Skipped

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "userrep" / "peers"
UV = [sys.executable, "-m", "uv"]


def installed(peer: str, commands: Callable[[Path], list[list[str]]]) -> Path:
    """Return the folder of a peer's environment; the first call installs it.

    ``peer``: a requirement with its version. Each version, and each version of Python, has its own folder.
    ``commands``: commands that install the peer into a folder. Parallel processes wait for each other.

    Raises
    ------
    Skipped
        If a command fails.
    """
    name = re.sub(r"[^A-Za-z0-9.]+", "-", peer).strip("-")
    folder = CACHE / f"{name}-python{sys.version_info.major}.{sys.version_info.minor}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            for command in commands(folder):
                tried(peer, command)
            (folder / "done").touch()
    return folder


def tried(peer: str, command: list[str], what: str = "install", **environment: str) -> str:
    """Run a command and return its output.

    Raises
    ------
    Skipped
        If the command fails, with the last line of its stderr.
    """
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    if ran.returncode:
        *_, reason = ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"]
        raise Skipped(f"{peer} does not {what} ({reason})")
    return ran.stdout
