"""Named points at which a run can be made to die, so that tests can prove what the next run makes of it.

``USERREP_FAILPOINT=NAME``, or ``NAME:HIT`` for another time than the first that it is reached, ends the process there
as a machine would: SIGKILL, nothing is cleaned up. Where the process leads its group, as a container's first one or a
scheduler's task does, the group dies with it, and so does the JVM. ``USERREP_FAILPOINTS_PASSED=FILE`` notes each point
that is passed, a line each. ``USERREP_FAILPOINT_HOLD=NAME=FOLDER`` lets the process wait at a point: it leaves a file
``held`` in the folder, and goes on once there is a file ``go``. All hold for the one process that they were set for:
what it starts knows nothing of them.
docs/reliability.md says what is tested so.
"""

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Variables of the environment.
ARM, PASSED, HOLD = "USERREP_FAILPOINT", "USERREP_FAILPOINTS_PASSED", "USERREP_FAILPOINT_HOLD"

_armed = os.environ.pop(ARM, "")
_notes = os.environ.pop(PASSED, "")
_held_at, _, _folder = os.environ.pop(HOLD, "").partition("=")
_is_set = bool(_armed or _notes or _held_at)
_hits: Counter[str] = Counter()


@contextmanager
def around(name: str) -> Iterator[None]:
    """Put a point before and one after what happens within: ``NAME:before`` and ``NAME:after``."""
    reached(f"{name}:before")
    yield
    reached(f"{name}:after")


def reached(name: str) -> None:
    """Mark a point; ids made by chance in its name read ``*``. Costs no more than this line where nothing is set."""
    if _is_set:
        _note(re.sub("[0-9a-f]{32}", "*", name))


def _note(name: str) -> None:
    _hits[name] += 1
    if _notes:
        with Path(_notes).open("a", encoding="utf-8") as passed:
            passed.write(f"{name}\n")
    if name == _held_at and _hits[name] == 1:
        (Path(_folder) / "held").touch()
        while not (Path(_folder) / "go").exists():
            time.sleep(0.05)
    if _armed in (f"{name}:{_hits[name]}", name if _hits[name] == 1 else None):
        leads = os.getpgrp() == os.getpid()
        (os.killpg if leads else os.kill)(os.getpid(), signal.SIGKILL)
