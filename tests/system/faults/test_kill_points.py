"""Commands killed once, where a kill could lose or double most: run again, they end as undisturbed ones.

These points are fixed. The other points, and kills by the clock, are in the full tier.
"""

from pathlib import Path

import pytest

from tests.system.faults.attack import Attack
from tests.system.faults.contents import tables_of
from tests.system.faults.fault_world import NIGHT, World
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import STAGED, Snapshot, list_snapshots
from userrep.store.file_tables import FileTables

pytestmark = pytest.mark.default


def copied(target: Attack, folder: Path) -> World:
    return target.before.copy(folder / "world")


def snapshots(world: World, *states: str) -> list[Snapshot]:
    tables = FileTables(None, str(world.root))
    return list_snapshots(tables, find_space(tables, None).space_id, **({"states": states} if states else {}))


@pytest.mark.full
def test_the_pipeline_of_the_next_day_killed_after_its_tiles_and_before_their_ledger_makes_each_tile_once(
    next_day: Attack, tmp_path: Path
) -> None:
    world = copied(next_day, tmp_path)
    before = tables_of(world.root, "user_item_days", "tile_days")
    assert next_day.killed_at(world, "commit:tile_days:before") == []
    tables = tables_of(world.root, "user_item_days", "tile_days")
    assert len(tables["user_item_days"]) > len(before["user_item_days"])
    assert tables["tile_days"] == before["tile_days"]
    assert next_day.run_again(world) == []


@pytest.mark.full
def test_a_pipeline_killed_after_its_tiles_and_before_their_ledger_makes_each_tile_once(
    pipeline: Attack, tmp_path: Path
) -> None:
    world = copied(pipeline, tmp_path)
    assert pipeline.killed_at(world, "commit:tile_days:before") == []
    tables = tables_of(world.root)
    assert tables["user_item_days"]
    assert tables["tile_days"] == []
    assert pipeline.run_again(world) == []


@pytest.mark.full
def test_a_daily_run_killed_before_the_ledger_of_its_sums_makes_them_once(nightly: Attack, tmp_path: Path) -> None:
    world = copied(nightly, tmp_path)
    before = tables_of(world.root)
    assert nightly.killed_at(world, "commit:sum_generations:before") == []
    tables = tables_of(world.root)
    assert len(tables["user_window_sums"]) > len(before["user_window_sums"])
    assert tables["sum_generations"] == before["sum_generations"]
    assert nightly.run_again(world) == []


def test_a_daily_run_killed_before_its_publication_leaves_what_is_published(nightly: Attack, tmp_path: Path) -> None:
    world = copied(nightly, tmp_path)
    assert nightly.killed_at(world, "commit:snapshots:before:3") == []
    assert snapshots(world) == snapshots(nightly.before)
    assert [snapshot.as_of for snapshot in snapshots(world, STAGED)] == [NIGHT]
    assert nightly.run_again(world) == []


def test_an_erasure_killed_after_its_rows_and_before_the_ledgers_corrects_their_counts(
    erasure: Attack, tmp_path: Path
) -> None:
    world = copied(erasure, tmp_path)
    assert erasure.killed_at(world, "commit:feature_sets:before") == []
    assert snapshots(world) == snapshots(erasure.before)  # with users who are gone
    assert len(tables_of(world.root, "user_embeddings")["user_embeddings"]) < len(
        tables_of(erasure.before.root, "user_embeddings")["user_embeddings"]
    )
    assert erasure.run_again(world) == []


def test_a_promotion_killed_after_its_commit_is_made_once(promotion: Attack, tmp_path: Path) -> None:
    world = copied(promotion, tmp_path)
    assert promotion.killed_at(world, "commit:registry:after") == []
    assert serving(world) == "s002"
    assert promotion.run_again(world) == []


def test_a_rollback_killed_after_its_commit_is_made_once(rollback: Attack, tmp_path: Path) -> None:
    world = copied(rollback, tmp_path)
    assert rollback.killed_at(world, "commit:registry:after") == []
    assert serving(world) == serving(rollback.after) != "s002"
    assert rollback.run_again(world) == []


def serving(world: World) -> str:
    return find_space(FileTables(None, str(world.root)), None).space_id
