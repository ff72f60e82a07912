"""Points at which a process can be killed: only at the points that are set, with its process group if it leads one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from userrep import failpoints

pytestmark = pytest.mark.default

PASSING = """
import os, subprocess, sys
from userrep.failpoints import around
for _ in range(2):
    with around("commit:registry"):
        print("committed", flush=True)
child = "import sys; from userrep.failpoints import reached; reached('commit:registry:after'); sys.exit(7)"
sys.exit(subprocess.run([sys.executable, "-c", child]).returncode)
"""


def passing(**environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", PASSING]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, start_new_session=True
    )


@pytest.mark.parametrize(
    ("point", "committed"),
    [("commit:registry:before", 0), ("commit:registry:after", 1), ("commit:registry:before:2", 1)],
)
def test_a_process_dies_at_the_point_that_is_set(point: str, committed: int) -> None:
    ran = passing(**{failpoints.ARM: point})
    assert ran.returncode == -signal.SIGKILL
    assert ran.stdout.count("committed") == committed


def test_points_are_noted_as_they_are_passed_and_what_a_process_starts_knows_nothing_of_them(tmp_path: Path) -> None:
    ran = passing(**{failpoints.PASSED: str(tmp_path / "points"), failpoints.ARM: "commit:registry:after:3"})
    assert ran.returncode == 7
    points = ["commit:registry:before", "commit:registry:after"]
    assert (tmp_path / "points").read_text().splitlines() == 2 * points


def test_the_leader_of_a_group_dies_with_it() -> None:
    code = "import subprocess; from userrep.failpoints import reached; subprocess.Popen(['sleep', '600']); reached('x')"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {failpoints.ARM: "x"},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    process.communicate(timeout=60)  # ends when no process has the pipe open
    assert process.returncode == -signal.SIGKILL
