"""Publications, promotions and rollbacks that are killed and run again."""

from pathlib import Path

import pytest

from tests.system.faults.attack import Attack, each_point
from tests.system.faults.tally import Faults

pytestmark = pytest.mark.full


def test_a_publication_killed_at_a_point_and_run_again_ends_as_an_undisturbed_one(
    publication: Attack, faults: Faults, tmp_path: Path
) -> None:
    each_point(publication, faults, tmp_path)


def test_a_promotion_killed_at_a_point_and_run_again_is_made_once(
    promotion: Attack, faults: Faults, tmp_path: Path
) -> None:
    each_point(promotion, faults, tmp_path)


def test_a_rollback_killed_at_a_point_and_run_again_is_made_once(
    rollback: Attack, faults: Faults, tmp_path: Path
) -> None:
    each_point(rollback, faults, tmp_path)
