"""Commands that are killed at random moments of their duration and run again."""

from pathlib import Path

import pytest

from tests.system.faults.attack import each_moment
from tests.system.faults.tally import ALL, Faults

pytestmark = pytest.mark.full

SHORT = ("promotion", "rollback")  # fixtures of commands that take a few seconds
COMMANDS = (*SHORT, "publication", "erasure", "nightly", "pipeline")


def test_commands_killed_at_a_random_moment_and_run_again_end_as_undisturbed_ones(
    request: pytest.FixtureRequest, faults: Faults, tmp_path: Path
) -> None:
    for name in COMMANDS if ALL else SHORT:
        each_moment(request.getfixturevalue(name), faults, tmp_path / name)
    assert not faults.failed
