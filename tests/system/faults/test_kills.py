"""Commands killed as a machine kills them, between and within their commits, and run again: as if nothing had been."""

from pathlib import Path

import pytest

from tests.system.faults.attack import Attack, each_moment, each_point
from tests.system.faults.fault_world import NIGHT
from tests.system.faults.tally import ALL, Faults
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import STAGED, list_snapshots
from userrep.tables import Tables

pytestmark = pytest.mark.full

SHORT = ("promotion", "rollback")  # fixtures, of commands that take a few seconds
COMMANDS = (*SHORT, "publication", "erasure", "nightly", "pipeline")


def test_a_pipeline_killed_at_point_after_point_ends_as_an_undisturbed_one(
    pipeline: Attack, faults: Faults, tmp_path: Path
) -> None:
    """One root, a kill at each point in turn: each run goes on from what the one before has left."""
    world, num = pipeline.before.copy(tmp_path / "0"), 0
    for point in faults.chosen(pipeline.points):
        found = pipeline.killed_at(world, point)
        if found and found[0].startswith("not killed, but ended with 0"):  # done before, by a run that was killed later
            num += 1
            world = pipeline.before.copy(tmp_path / str(num))
            found = pipeline.killed_at(world, point)
        faults.tell("pipeline killed at a point", point, found)
    faults.tell("pipeline killed at a point", "and run again", pipeline.run_again(world))
    assert not faults.failed


def test_a_night_killed_at_a_point_and_run_again_ends_as_an_undisturbed_one(
    nightly: Attack, faults: Faults, tmp_path: Path
) -> None:
    each_point(nightly, faults, tmp_path)


def test_an_erasure_killed_at_a_point_and_run_again_ends_as_an_undisturbed_one(
    erasure: Attack, faults: Faults, tmp_path: Path
) -> None:
    each_point(erasure, faults, tmp_path)


def test_a_publication_killed_before_its_commit_leaves_what_was_published_and_is_made_good(
    nightly: Attack, faults: Faults, tmp_path: Path
) -> None:
    world = nightly.before.copy(tmp_path / "night")
    tables = Tables(None, root=str(world.root))
    space_id = find_space(tables, None).space_id
    before = list_snapshots(tables, space_id)
    faults.tell("publication killed before its commit", "killed", nightly.killed_at(world, "commit:snapshots:before:2"))
    assert list_snapshots(tables, space_id) == before
    assert [s.as_of for s in list_snapshots(tables, space_id, states=(STAGED,))] == [NIGHT]
    faults.tell("publication killed before its commit", "and run again", nightly.run_again(world))
    assert not faults.failed


def test_a_promotion_killed_at_a_point_and_run_again_is_done_once(
    promotion: Attack, faults: Faults, tmp_path: Path
) -> None:
    each_point(promotion, faults, tmp_path)


def test_a_rollback_killed_at_a_point_and_run_again_is_done_once(
    rollback: Attack, faults: Faults, tmp_path: Path
) -> None:
    each_point(rollback, faults, tmp_path)


def test_commands_killed_at_any_moment_and_run_again_end_as_undisturbed_ones(
    request: pytest.FixtureRequest, faults: Faults, tmp_path: Path
) -> None:
    for name in COMMANDS if ALL else [faults.chance.choice(SHORT)]:
        each_moment(request.getfixturevalue(name), faults, tmp_path / name)
    assert not faults.failed
