"""A pipeline, and a consumer that trains on its snapshots, that are killed and run again."""

from pathlib import Path

import pytest

from tests.system.faults.attack import Attack, each_point
from tests.system.faults.tally import Faults

pytestmark = pytest.mark.full


def test_a_pipeline_killed_at_one_point_after_another_ends_as_an_undisturbed_one(
    pipeline: Attack, faults: Faults, tmp_path: Path
) -> None:
    """Kill at each point in turn on one root: each run continues from what the run before it has left."""
    world, num = pipeline.before.copy(tmp_path / "0"), 0
    for point in faults.chosen(pipeline.points):
        wrong = pipeline.killed_at(world, point)
        if wrong and wrong[0].startswith("not killed, but ended with 0"):  # a run that was killed later did it before
            num += 1
            world = pipeline.before.copy(tmp_path / str(num))
            wrong = pipeline.killed_at(world, point)
        faults.record("pipeline killed at a point", point, wrong)
    faults.record("pipeline killed at a point", "and run again", pipeline.run_again(world))
    assert not faults.failed


def test_a_consumer_killed_at_any_point_ends_with_one_model_and_one_training_set(
    consumer: Attack, faults: Faults, tmp_path: Path
) -> None:
    each_point(consumer, faults, tmp_path)
