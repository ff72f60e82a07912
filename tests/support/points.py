"""Failpoints: those that a run in this process passes, and programs that are killed at one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from userrep import failpoints


@contextmanager
def noted(notes: Path) -> Iterator[None]:
    """Write the failpoints that are passed inside the context to a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failpoints, "_notes", str(notes))
        patch.setattr(failpoints, "_is_set", True)
        yield


def points_in(notes: Path) -> list[str]:
    """Return the failpoints of such a file, in order."""
    return notes.read_text(encoding="utf-8").splitlines()


def run_until_killed(point: str, *arguments: str) -> None:
    """Run Python with these arguments, and check that it was killed at a failpoint."""
    process = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        env=os.environ | {failpoints.ARM: point},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
