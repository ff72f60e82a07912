"""Failpoints: named points at which tests kill or pause a run, to check that the next run recovers.

Three environment variables control them:

- ``USERREP_FAILPOINT=NAME``, or ``NAME:HIT`` for the HIT-th time, kills the process with SIGKILL when it reaches the
  point, without cleanup. If the process leads its process group, as the first process of a container or a scheduler's
  task does, the whole group is killed, including the JVM.
- ``USERREP_FAILPOINTS_PASSED=FILE`` appends the name of each passed point to a file, one per line.
- ``USERREP_FAILPOINT_HOLD=NAME=FOLDER`` pauses the process at a point: it creates a file ``held`` in the folder and
  continues once the folder has a file ``go``.

They apply only to the process that they are set for, not to its children. docs/explanation/reliability-tests.md
describes the tests.
"""

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Environment variables.
ARM, PASSED, HOLD = "USERREP_FAILPOINT", "USERREP_FAILPOINTS_PASSED", "USERREP_FAILPOINT_HOLD"

_kill_at = os.environ.pop(ARM, "")
_notes = os.environ.pop(PASSED, "")
_pause_at, _, _folder = os.environ.pop(HOLD, "").partition("=")
_is_set = bool(_kill_at or _notes or _pause_at)
_hits: Counter[str] = Counter()


@contextmanager
def around(name: str) -> Iterator[None]:
    """Mark a point before and a point after the block: ``NAME:before`` and ``NAME:after``."""
    reached(f"{name}:before")
    yield
    reached(f"{name}:after")


def reached(name: str) -> None:
    """Mark a point; random ids in its name become ``*``. Does nothing unless a variable is set."""
    if not _is_set:
        return
    name = re.sub("[0-9a-f]{32}", "*", name)
    _hits[name] += 1
    if _notes:
        with Path(_notes).open("a", encoding="utf-8") as passed:
            passed.write(f"{name}\n")
    if name == _pause_at and _hits[name] == 1:
        (Path(_folder) / "held").touch()
        while not (Path(_folder) / "go").exists():
            time.sleep(0.05)
    if _kill_at in (f"{name}:{_hits[name]}", name if _hits[name] == 1 else None):
        is_leader = os.getpgrp() == os.getpid()
        (os.killpg if is_leader else os.kill)(os.getpid(), signal.SIGKILL)
