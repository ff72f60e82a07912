"""Pairs of commands whose commits compare and swap the same table in a bucket: they end as one after the other.

As tests/system/faults/test_pairs.py on a disk, with the first that was held going on first. The bucket's tables are
compared with those of the commands in turn on a disk. ``make pair-test`` runs all ten; other targets run one.
"""

import shutil
from itertools import combinations
from pathlib import Path

import pyarrow.fs
import pytest
from pyspark.sql import SparkSession

from tests.system.faults.commands import Held, InTurn, check_end, ends_in_turn, line_of, points_of, shard, with_ids
from tests.system.faults.contents import doubled, visible
from tests.system.faults.fault_world import World
from tests.system.s3.conftest import Bucket
from userrep.store.filesystem import file_system
from userrep.workflows.pipeline import run_pipeline

pytestmark = pytest.mark.full

TILE_BUILDS = ("pipeline", "daily", "backfill", "tiles")  # the ledger of tiles
PAIRS = [
    *combinations(TILE_BUILDS, 2),
    ("pipeline", "vectors"),  # item numbers
    ("daily", "vectors"),
    ("backfill", "vectors"),
    ("pipeline", "training"),  # the registry
]


CASES = [("vectors" in pair, pair) for pair in PAIRS]  # whether item vectors are due, pair


@pytest.fixture(scope="module")
def trained(
    request: pytest.FixtureRequest,
    spark: SparkSession,
    log: Path,
    run_once: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> World:
    """The world after the pipeline, on a disk; read-only."""
    folder = tmp_path_factory.mktemp("trained") / "trained"
    if request.param:
        world = World(folder, log, refit_days=20)
        run_pipeline(world.pipeline(spark))
        return world
    world = World(folder, log)
    shutil.copytree(run_once / "root", world.root)
    return world


@pytest.mark.parametrize(("trained", "pair"), shard(CASES), indirect=["trained"], ids=str, scope="module")
def test_two_commands_at_once_in_a_bucket_end_as_one_after_the_other(
    trained: World, in_turn: InTurn, bucket: Bucket, tmp_path: Path, pair: tuple[str, str]
) -> None:
    root = f"{bucket.uri}/{'-and-'.join(pair)}"
    files, folder = file_system(root)
    pyarrow.fs.copy_files(str(trained.root), folder, destination_filesystem=files)
    settings = {
        "spark.hadoop.fs.s3a.endpoint": bucket.store.endpoint,
        "spark.hadoop.fs.s3a.endpoint.region": "us-east-1",
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.access.key": "test",
        "spark.hadoop.fs.s3a.secret.key": "test",
    }
    refit_days = trained.refit_days
    world = with_ids(World(tmp_path / "at-once", trained.log, root=root, refit_days=refit_days, conf=settings))
    held = {name: Held(world, name, point) for name, point in points_of(pair).items()}
    met = [command.arrives() for command in held.values()]
    ends = ends_in_turn(held, pair, root)
    for name, (code, output) in ends.items():
        if check_end(code, output):
            again, output_again = world.ends(line_of(world, name))
            assert again == 0, output_again[-2000:]
    assert all(met), f"the commands did not meet: {ends}"
    assert doubled(root) == []
    assert in_turn.agrees(visible(root), (pair, pair[::-1]))
