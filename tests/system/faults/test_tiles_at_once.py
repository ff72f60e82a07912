"""Two different commands that build the same tiles at once make each of them once.

The log is partitioned by ingestion date, so Spark SQL makes its tiles; in test_pairs.py, tasks without Spark SQL make
them. Threads wait for each other at the commits, so that the order of these is the same in each run.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pyspark.sql import DataFrame, SparkSession

from tests.support.builders import AS_OF
from tests.system.faults.contents import doubled, visible
from tests.system.faults.fault_world import NIGHT, World
from userrep import failpoints
from userrep.errors import UserrepError
from userrep.tiles import build
from userrep.tiles.by_spark import tiles_of
from userrep.workflows.daily import backfill, daily
from userrep.workflows.jobs import run_job
from userrep.workflows.pipeline import run_pipeline

pytestmark = pytest.mark.full

TILES = "commit:user_item_days:before"
PATIENCE = 300.0  # seconds, on a busy machine
Command = Callable[[], object]


class Worlds(NamedTuple):
    """Worlds over a log by ingestion date: without tables, and after an undisturbed pipeline."""

    empty: World
    trained: World


@pytest.fixture(scope="module")
def by_ingestion(spark: SparkSession, log: Path, tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    folder, by_spark = tmp_path_factory.mktemp("by-ingestion"), list[DataFrame]()
    events = {"partition": {"column": "ingest_date", "holds": "ingestion_date"}}
    empty, trained = (World(folder / name, log, events=events) for name in ("empty", "trained"))

    def noted(*arguments: Any, **options: Any) -> DataFrame:
        by_spark.append(tiles_of(*arguments, **options))
        return by_spark[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "tiles_of", noted)
        run_pipeline(trained.pipeline(spark))
    assert by_spark
    return Worlds(empty, trained)


@contextmanager
def hooked(at_point: Callable[[str], None]) -> Iterator[None]:
    """Call a function at each failpoint that a thread of this process passes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failpoints, "reached", at_point)
        yield


def refusal(command: Command) -> str:
    """Run a command; return why it was refused, if it was."""
    try:
        command()
    except UserrepError as error:
        return str(error)
    return ""


def run_at_once(*commands: Command) -> None:
    """Run commands at once, with commits of tiles at the same time, and those that were refused again."""
    barrier = threading.Barrier(len(commands))

    def meet(name: str) -> None:
        if name == TILES:
            with suppress(threading.BrokenBarrierError):
                barrier.wait(PATIENCE)

    def run(command: Command) -> str:
        try:
            return refusal(command)
        finally:
            barrier.abort()  # the other one has no one to wait for

    with hooked(meet), ThreadPoolExecutor(len(commands)) as pool:
        refusals = list(pool.map(run, commands))
    print(refusals)
    for command, why in zip(commands, refusals, strict=True):
        if why:
            command()


def test_a_pipeline_and_a_tile_build_at_once_end_as_one_after_the_other(
    spark: SparkSession, by_ingestion: Worlds, tmp_path: Path
) -> None:
    world = by_ingestion.empty.copy(tmp_path / "at once")
    first, second = world.pipeline(spark), world.pipeline(spark)
    run_at_once(lambda: run_pipeline(first), lambda: run_job(second, "build_activity_tiles"))
    assert doubled(world.root) == []
    assert visible(world.root) == visible(by_ingestion.trained.root)


def test_a_daily_run_and_a_backfill_at_once_end_as_one_after_the_other(
    spark: SparkSession, by_ingestion: Worlds, tmp_path: Path
) -> None:
    def commands(world: World) -> list[Command]:
        first, second = world.pipeline(spark, NIGHT), world.pipeline(spark, NIGHT)
        dates = [AS_OF - timedelta(days=days) for days in (9, 8)]
        return [lambda: daily(first, on_time=True), lambda: backfill(second, dates)]

    in_turn, at_once = by_ingestion.trained.copy(tmp_path / "in turn"), by_ingestion.trained.copy(tmp_path / "at once")
    for command in commands(in_turn):
        command()
    run_at_once(*commands(at_once))
    assert doubled(at_once.root) == []
    assert visible(at_once.root) == visible(in_turn.root)


def test_a_pipeline_that_dies_while_another_command_builds_the_same_tiles_removes_none_of_them(
    spark: SparkSession, by_ingestion: Worlds, tmp_path: Path
) -> None:
    world = by_ingestion.empty.copy(tmp_path / "at once")
    building, dying = world.pipeline(spark), world.pipeline(spark)
    are_written, is_dead = threading.Event(), threading.Event()

    def at_point(name: str) -> None:
        if name == "commit:tile_days:before" and not are_written.is_set():
            are_written.set()  # by the tile build: its tiles are in the table, and do not count yet
            is_dead.wait(PATIENCE)
        elif name == TILES and are_written.is_set():
            raise RuntimeError("the pipeline died before it committed its tiles")

    def die() -> None:
        try:
            with suppress(RuntimeError, UserrepError):
                run_pipeline(dying)
        finally:
            is_dead.set()

    with hooked(at_point), ThreadPoolExecutor(2) as pool:
        job = pool.submit(run_job, building, "build_activity_tiles")
        job.add_done_callback(lambda _: are_written.set())  # also if it was refused
        are_written.wait(PATIENCE)
        pool.submit(die).result()
        job.result()
    run_job(world.pipeline(spark), "build_activity_tiles")
    assert doubled(world.root) == []
    assert visible(world.root).get("tiles") == visible(by_ingestion.trained.root)["tiles"]
