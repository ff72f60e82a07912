"""A stream that is killed, stopped, started again or too early loses, repeats and mixes no update."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import DataFrame

from tests.support.builders import AS_OF, SPARK
from tests.support.streaming_world import DAY, NEXT, NewWorld, Row, World, active_users, arrive, events_between
from userrep import failpoints
from userrep.errors import UsageError, UserrepError
from userrep.streaming.micro_batches import BatchResult, MicroBatches, last_seen_day

pytestmark = pytest.mark.full

FILES = 24
PATIENCE = 300.0  # seconds, on a busy machine


@pytest.fixture(scope="module")
def world(new_world: NewWorld, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A stream that has taken a few events of the last day; each test continues where the one before it ended."""
    world, _ = begun(new_world, tmp_path_factory.mktemp("restarts"))
    return world


def begun(new_world: NewWorld, folder: Path) -> tuple[World, list[Row]]:
    """Start a stream with a first micro-batch of a few events, so that it knows the day from the second one on.

    Otherwise, which users it encodes for the next as-of date would depend on who comes in the first micro-batch.
    """
    world = new_world(folder, **settings(folder))
    rows = events_between(world.spark, world.log, AS_OF, AS_OF + DAY)[:5]
    arrive(folder / "arriving", rows, "0.parquet")
    world.stream()
    return world, rows


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    return {"events": {"path": str(folder / "arriving")}, "max_files_per_batch": 2, "trigger": "1s", **more}


class Program:
    """``userrep stream`` as a process, with the lines that it prints. ``killed_at``: a point where it kills itself."""

    def __init__(self, world: World, *, killed_at: str = "") -> None:
        file = world.folder / "userrep.yaml"
        values = world.config.model_dump(mode="json", by_alias=True, exclude_unset=True)
        conf = SPARK | {"spark.driver.memory": "1g"}
        file.write_text(yaml.safe_dump(values | {"spark": {"master": "local[2]", "conf": conf}}))
        command = [sys.executable, "-m", "userrep.cli", "stream", "--config", str(file)]
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env=os.environ | {"SPARK_LOCAL_DIRS": str(world.folder / "spark"), failpoints.ARM: killed_at},
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.lines.append(line.rstrip())

    def wait_for(self, text: str) -> None:
        wait_until(lambda: any(text in line for line in self.lines) or self.process.poll() is not None)
        assert self.process.poll() is None, self.lines

    def ends(self) -> int:
        """Wait for its end; return the exit code."""
        try:
            return self.process.wait(PATIENCE)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.reader.join()


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


@contextmanager
def arriving_meanwhile(world: World, chunks: list[list[dict[str, Any]]]) -> Iterator[None]:
    """Let files arrive, one a second; at the end of the block, all that are left."""
    done = threading.Event()

    def bring() -> None:
        for k, chunk in enumerate(chunks, 1):
            arrive(world.folder / "arriving", chunk, f"{k}.parquet")
            done.wait(1.0)

    thread = threading.Thread(target=bring)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def copies(updates: DataFrame) -> int:
    key = ("query_id", "batch_id", "space_id", "as_of", "user_id")
    return updates.groupBy(*key).count().where("count > 1").count()


def test_a_stream_killed_before_and_after_commits_ends_in_the_vectors_of_an_undisturbed_one(
    world: World, new_world: NewWorld, tmp_path: Path
) -> None:
    rows = events_between(world.spark, world.log, AS_OF - 2 * DAY, AS_OF + DAY)
    random.Random(1).shuffle(rows)
    chunks = [rows[k::FILES] for k in range(FILES)]
    with arriving_meanwhile(world, chunks):
        program = Program(world, killed_at="commit:embedding_updates:after:2")  # Spark takes this micro-batch for open
        assert program.ends() == -signal.SIGKILL, program.lines
    program = Program(world, killed_at="commit:embedding_updates:before:2")
    assert program.ends() == -signal.SIGKILL, program.lines
    program = Program(world)
    program.wait_for("stream: batch")
    program.process.terminate()
    assert program.ends() == 0, program.lines
    assert any(line.startswith("last_batch: ") for line in program.lines)
    world.stream()

    undisturbed, first = begun(new_world, tmp_path)
    arrive(tmp_path / "arriving", rows, "1.parquet")
    undisturbed.stream()
    assert world.spark.read.parquet(str(world.folder / "arriving")).count() == len(rows) + len(first)
    assert copies(world.updates()) == 0
    for each in (world, undisturbed):
        assert [row.as_of for row in each.updates().select("as_of").distinct().collect()] == [NEXT]
    vectors = world.streamed(NEXT)
    assert len(vectors) > 150
    assert vectors.keys() == active_users([*rows, *first])
    assert vectors == undisturbed.streamed(NEXT)


def test_a_change_of_open_days_is_refused(world: World) -> None:
    world.reconfigure(**settings(world.folder, open_days=4))
    with pytest.raises(
        UsageError,
        match=r"started with open_days 3, got 4\. Start a new stream with `userrep stream --new-query-id NAME`",
    ):
        world.stream()
    world.reconfigure(**settings(world.folder))


def test_a_lost_checkpoint_is_refused_and_a_new_stream_ends_in_the_vectors_of_the_old_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run each micro-batch of the new stream twice, as after a kill between its commit and Spark's."""
    with pytest.raises(UsageError, match=r"--new-query-id: the stream already exists, got stream\. Choose another"):
        world.stream(new_query_id="stream")
    shutil.rmtree(world.folder / "root" / "streams" / "stream")
    with pytest.raises(
        UsageError, match=r"^stream stream: .* its checkpoint \S+ is missing or incomplete\. .* --new-query-id NAME`"
    ):
        world.stream()
    once, assumed = MicroBatches._run, []

    def twice(self: MicroBatches, rows: DataFrame, batch_id: int) -> BatchResult:
        assumed.append(self.today)
        result = once(self, rows, batch_id)
        once(self, rows, batch_id)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(MicroBatches, "_run", twice)
        world.stream(new_query_id="again")
    assert assumed[0] == last_seen_day(world.tables) == AS_OF
    assert copies(world.updates()) == 0
    assert world.streamed(NEXT, query_id="again") == world.streamed(NEXT, query_id="stream")
    world.close(AS_OF)
    found = world.agreement(NEXT)
    assert found.is_equal, found


def test_events_of_a_day_without_opening_wait_for_it(world: World, lines: list[str]) -> None:
    world.reconfigure(**settings(world.folder, query_id="again"))
    missing = NEXT + 3 * DAY
    rows = events_between(world.spark, world.log, missing - DAY, missing)
    arrive(world.folder / "arriving", rows, "ahead.parquet")
    wanted = f"^stream: no stream base for as-of date {missing}, the newest is {missing - DAY}. Run `userrep daily`"
    with pytest.raises(UserrepError, match=rf"{wanted} to build it; --until-empty does not wait\.$"):
        world.stream()
    stopping, failed = threading.Event(), []

    def run() -> None:
        try:
            world.stream(until_empty=False, is_stopping=stopping.is_set)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: any("waits: no stream base for as-of date" in line for line in lines) or bool(failed))
        world.close(NEXT)
        wait_until(lambda: bool(failed) or not world.updates().where(f"as_of = DATE'{missing}'").isEmpty())
    finally:
        stopping.set()
        thread.join()
    assert failed == []
    users = {row["user_id"] for row in rows if row["user_id"]}
    found = {row["user_id"] for row in world.updates().where(f"as_of = DATE'{missing}'").collect()}
    assert len(users & found) > 50
