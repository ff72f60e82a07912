"""Commands killed as a machine kills them, between and within their commits, and run again: as if nothing had been."""

from pathlib import Path

from pyspark.sql import SparkSession

from tests.faults.attack import Attack, attack, each_point
from tests.faults.fault_world import NIGHT, World
from tests.faults.reader import ReaderWhileUsersLeave
from tests.faults.tally import Faults
from userrep.downstream.return_propensity import CONSUMER
from userrep.operations.erasure import Erasure
from userrep.spaces.consumers import declare_ready
from userrep.spaces.registry import add_candidate, find_space, mark_ready, promote, rollback
from userrep.spaces.snapshots import STAGED, list_snapshots
from userrep.tables import Tables

FORGOTTEN = ["u0000001", "u0000002", "u0000003"]


def test_a_pipeline_killed_at_point_after_point_ends_as_an_undisturbed_one(
    pipeline: tuple[Attack, World], faults: Faults, tmp_path: Path
) -> None:
    """One root, a kill at each point in turn: each run goes on from what the one before has left."""
    of, _ = pipeline
    world, num = of.before.copy(tmp_path / "0"), 0
    for point in faults.chosen(of.points):
        found = of.killed_at(world, point)
        if found and found[0].startswith("not killed, but ended with 0"):  # done before, by a run that was killed later
            num += 1
            world = of.before.copy(tmp_path / str(num))
            found = of.killed_at(world, point)
        faults.tell("pipeline killed at a point", point, found)
    faults.tell("pipeline killed at a point", "and run again", of.run_again(world))
    assert not faults.failed


def test_a_night_killed_at_a_point_and_run_again_ends_as_an_undisturbed_one(
    nightly: tuple[Attack, World], faults: Faults, tmp_path: Path
) -> None:
    each_point(nightly[0], faults, tmp_path)


def test_an_erasure_killed_at_a_point_and_run_again_ends_as_an_undisturbed_one(
    spark: SparkSession, nightly: tuple[Attack, World], faults: Faults, tmp_path: Path
) -> None:
    _, before = nightly
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(FORGOTTEN), encoding="utf-8")

    def again(world: World) -> None:
        Erasure(Tables.of(world.config, spark), world.config, FORGOTTEN, lambda _: None).run(now=False)

    after = before.copy(tmp_path / "after")
    of = attack("forget", f"forget --users {ids}", before, after, again)
    of.reader = ReaderWhileUsersLeave
    each_point(of, faults, tmp_path)


def test_a_publication_killed_before_its_commit_leaves_what_was_published_and_is_made_good(
    nightly: tuple[Attack, World], faults: Faults, tmp_path: Path
) -> None:
    of, _ = nightly
    world = of.before.copy(tmp_path / "night")
    tables = Tables(None, root=str(world.root))
    space_id = find_space(tables, None).space_id
    before = list_snapshots(tables, space_id)
    faults.tell("publication killed before its commit", "killed", of.killed_at(world, "commit:snapshots:before:2"))
    assert list_snapshots(tables, space_id) == before
    assert [s.as_of for s in list_snapshots(tables, space_id, states=(STAGED,))] == [NIGHT]
    faults.tell("publication killed before its commit", "and run again", of.run_again(world))
    assert not faults.failed


def test_a_promotion_killed_at_a_point_and_run_again_is_done_once(
    trained: World, faults: Faults, tmp_path: Path
) -> None:
    before = with_a_second_space(trained.copy(tmp_path / "before"))
    of = attack("promote", "spaces promote s002", before, before.copy(tmp_path / "after"), promoted)
    each_point(of, faults, tmp_path)


def test_a_rollback_killed_at_a_point_and_run_again_is_done_once(
    trained: World, faults: Faults, tmp_path: Path
) -> None:
    before = with_a_second_space(trained.copy(tmp_path / "before"))
    promoted(before)
    of = attack("rollback", "spaces rollback", before, before.copy(tmp_path / "after"), rolled_back)
    each_point(of, faults, tmp_path)


def with_a_second_space(world: World) -> World:
    """Register another space that is ready to serve, and for which the consumer is ready."""
    tables = Tables(None, root=str(world.root))
    first = find_space(tables, None)
    add_candidate(
        tables, space_id="s002", lineage_id=first.lineage_id, trained_until=first.trained_until, content_hash="none"
    )
    mark_ready(tables, find_space(tables, "s002"))
    declare_ready(tables, CONSUMER, "s002")
    return world


def promoted(world: World) -> None:
    tables = Tables(None, root=str(world.root))
    promote(tables, find_space(tables, "s002"))


def rolled_back(world: World) -> None:
    rollback(Tables(None, root=str(world.root)))
