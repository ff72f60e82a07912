"""A daily run that is killed and run again."""

from pathlib import Path

import pytest

from tests.system.faults.attack import Attack, each_point
from tests.system.faults.tally import Faults

pytestmark = pytest.mark.full


def test_a_daily_run_killed_at_a_point_and_run_again_ends_as_an_undisturbed_one(
    nightly: Attack, faults: Faults, tmp_path: Path
) -> None:
    each_point(nightly, faults, tmp_path)
