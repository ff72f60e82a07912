"""The last streamed vector of each user is the batch's, to the bit, whatever the order and the number of copies."""

import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from tests.support.builders import AS_OF, config_of, write_rows
from tests.support.streaming_world import (
    DAY,
    NEXT,
    SMALL,
    NewWorld,
    Row,
    World,
    active_users,
    arrive,
    events_between,
    write_to_log,
)
from userrep.items.versions import Versions
from userrep.sources.read import read_source, with_validity
from userrep.streaming.records import checked_rows
from userrep.streaming.sources import ARRIVED, ORIGIN
from userrep.synthetic.generator import LogSpec, generate_log
from userrep.workflows.pipeline import run_pipeline

pytestmark = pytest.mark.default


def test_a_stream_of_shuffled_events_and_copies_ends_in_the_vectors_of_the_batch(
    new_world: NewWorld, tmp_path: Path
) -> None:
    world = new_world(tmp_path, events={"path": str(tmp_path / "arriving")}, max_files_per_batch=1)
    rows = events_between(world.spark, world.log, AS_OF - 2 * DAY, NEXT)
    shuffled = random.Random(5).sample(rows, len(rows))
    arrive(tmp_path / "arriving", shuffled[: len(rows) // 2], "0.parquet")
    arrive(tmp_path / "arriving", shuffled[len(rows) // 2 :] + shuffled[::7], "1.parquet")
    assert world.stream().batches == 2
    world.close(AS_OF)
    active = active_users(rows, AS_OF)
    assert len(active) > 50
    assert active <= world.streamed(NEXT).keys()
    assert world.differing(NEXT) == set()
    assert world.agreement(NEXT).is_equal


# Worlds of their own: another log, trained within seconds.

FIRST_DAY = date(2024, 1, 1)
REFIT = date(2024, 2, 9)  # item vectors are refitted every 7 days from 2024-01-19 on


def small_world(spark: SparkSession, folder: Path, as_of: date, *, seed: int, has_event_ids: bool = True) -> World:
    """Generate a small log, run the pipeline on it and return the world, whose stream reads ``folder/arriving``."""
    spec = LogSpec(
        num_users=120, num_items=40, first_day=FIRST_DAY, num_days=40, events_per_user_day=1.0, duplicate_share=0.05,
        seed=seed,
    )  # fmt: skip
    generate_log(spark, spec, str(folder / "log"))
    names = ("user_id", "item_id", "event_at", "event_type", "weight", *(["event_id"] if has_event_ids else []))
    events = {"path": str(folder / "log" / "events"), "columns": {name: name for name in names}}
    stream = {"events": {"path": str(folder / "arriving")}, "max_files_per_batch": 1}
    world = World(spark, folder / "log", None, folder, stream, SMALL | {"events": events})
    run_pipeline(world.work(as_of))
    return world


def stream_days(world: World, first: date, last: date, *, but: str = "") -> list[Row]:
    """Let the log's rows of some days arrive, shuffled, with copies, but for one column; return them."""
    rows = events_between(world.spark, world.log, first, last + DAY)
    arriving = [{name: value for name, value in row.items() if name != but} for row in rows]
    random.Random(last.day).shuffle(arriving)
    half = len(rows) // 2
    arrive(world.folder / "arriving", arriving[:half], f"{last}-0.parquet")
    arrive(world.folder / "arriving", arriving[half:] + arriving[::5], f"{last}-1.parquet")
    world.stream()
    return rows


@pytest.mark.full
def test_stream_and_batch_of_another_log_differ_only_on_the_day_of_a_refit_of_item_vectors(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = small_world(spark, tmp_path, REFIT - 2 * DAY, seed=11)

    rows = stream_days(world, REFIT - 4 * DAY, REFIT - 2 * DAY)
    world.close(REFIT - 2 * DAY)
    assert len(active_users(rows, REFIT - 2 * DAY)) > 20
    assert world.differing(REFIT - DAY) == set()
    assert world.agreement(REFIT - DAY).is_equal

    rows = stream_days(world, REFIT - DAY, REFIT - DAY)
    before = world.streamed(REFIT)
    with monkeypatch.context() as patch:  # a batch that keeps the item vectors that the stream has
        patch.setattr(Versions, "valid_at", lambda self, as_of: REFIT - 7 * DAY)
        world.close(REFIT - DAY)
    assert active_users(rows) <= before.keys()
    assert world.differing(REFIT) == set()
    world.close(REFIT - DAY)  # now with the refit
    assert world.streamed(REFIT) == before
    assert active_users(rows) <= world.differing(REFIT)
    found = world.agreement(REFIT)
    assert (found.not_streamed, found.not_in_snapshot) == (0, 0)

    rows = stream_days(world, REFIT, REFIT)  # by the item vectors of the refit
    world.close(REFIT)
    assert active_users(rows) <= world.streamed(REFIT + DAY).keys()
    assert world.differing(REFIT + DAY) == set()
    assert world.agreement(REFIT + DAY).is_equal


@pytest.mark.full
def test_without_event_ids_rows_are_copies_by_the_columns_of_the_log_that_they_arrive_with(
    spark: SparkSession, tmp_path: Path
) -> None:
    """Two events that differ only in the device are two where the device arrives, and one for a stream without it."""
    today = date(2024, 2, 5)
    world = small_world(spark, tmp_path, today, seed=12, has_event_ids=False)
    at = datetime(today.year, today.month, today.day, 12, tzinfo=UTC)
    play = {
        "event_id": "1", "user_id": "two devices", "item_id": "i000001", "event_at": at, "event_type": "play",
        "weight": 1.0, "device": "tv",
    }  # fmt: skip
    twins = [play, play | {"device": "phone"}]
    once = play | {"user_id": "one device"}

    write_to_log(world.log, "events", [*twins, once, once], ingest_date=today)
    rows = stream_days(world, today - 2 * DAY, today)
    world.close(today)
    vectors = world.streamed(today + DAY)
    assert active_users(rows, today) <= vectors.keys()
    assert vectors["two devices"] != vectors["one device"]
    assert world.differing(today + DAY) == set()
    assert world.agreement(today + DAY).is_equal

    tomorrow = [row | {"event_at": at + DAY} for row in (*twins, once, once)]
    write_to_log(world.log, "events", tomorrow, ingest_date=today + DAY)
    rows = stream_days(world, today + DAY, today + DAY, but="device")
    world.close(today + DAY)
    assert active_users(rows) <= world.streamed(today + 2 * DAY).keys()
    assert world.differing(today + 2 * DAY) == {"two devices"}


@pytest.mark.full
def test_an_event_two_hours_ahead_of_the_clock_is_rejected_by_the_stream_and_taken_by_the_batch(
    spark: SparkSession, tmp_path: Path
) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    ahead = {"in time": timedelta(minutes=30), "early": timedelta(hours=2), "in the future": timedelta(hours=26)}
    rows = [{"user_id": user, "item_id": "i", "event_at": now + span} for user, span in ahead.items()]
    write_rows(tmp_path / "events" / "0.parquet", rows)
    config = config_of(tmp_path)
    source = config.events.all_sources["events"]
    log = read_source(spark, source, what="events")
    arrived = log.withColumns({ORIGIN: F.lit("here"), ARRIVED: F.current_timestamp()})
    streamed = checked_rows({"events": arrived}, config, is_own_source=False, since=now.date())
    batch = with_validity(log, source)
    reasons = [dict(of.select("user_id", "reason").collect()) for of in (streamed, batch)]
    assert reasons == [
        {"in time": None, "early": "ahead_of_the_clock", "in the future": "ahead_of_the_clock"},
        {"in time": None, "early": None, "in the future": None},  # whose day the inventory holds back
    ]
