"""Every night, and history put right: daily, backfill, late data, on a pipeline's own tables."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from tests.support.builders import AS_OF, pipeline_config
from tests.support.log_lines import messages_to
from userrep.config import Config
from userrep.errors import GateRefusedError, UsageError, UserrepError
from userrep.joins.join import join_embeddings
from userrep.joins.training_sets import list_training_sets
from userrep.spaces.registry import Space, add_candidate, artifact_folder, find_space, mark_ready, retire
from userrep.spaces.snapshots import list_snapshots
from userrep.spaces.stale import stale_dates
from userrep.store import schemas
from userrep.workflows.daily import backfill, backfill_stale, daily
from userrep.workflows.run_context import RunContext
from userrep.workflows.schedule import dates_between
from userrep.workflows.space_stages import publish_snapshots
from userrep.workflows.status import status, status_lines

pytestmark = pytest.mark.default

DAYS = [AS_OF + timedelta(days=k) for k in (1, 2, 3)]
LATE_DAY = AS_OF - timedelta(days=20)


class Nights:
    """A pipeline's tables, a daily run after it, and what the runs said."""

    def __init__(self, spark: SparkSession, log: Path, root: str, folder: Path) -> None:
        self.spark = spark
        self.log = shutil.copytree(log, folder / "log")
        self.config: Config = pipeline_config(self.log, shutil.copytree(root, folder / "root"))
        self.said: list[str] = []
        self.space = find_space(self.work(AS_OF).tables, None)

    def work(self, as_of: date | None) -> RunContext:
        return RunContext(self.config, self.spark, as_of)

    def snapshots(self) -> list[tuple[date, int]]:
        tables = self.work(AS_OF).tables
        return [(s.as_of, s.revision) for s in list_snapshots(tables, self.space.space_id)]

    def add_late_events(self, num_events: int) -> None:
        """Add events of one day of the past, in a file of their own."""
        like = pq.read_schema(next((self.log / "events").rglob("*.parquet")))
        rows = [
            {
                "event_id": f"late-{k}", "user_id": f"u{k % 50:07d}", "item_id": "i00001",
                "event_at": datetime(LATE_DAY.year, LATE_DAY.month, LATE_DAY.day, 12), "event_type": "play",
                "weight": 1.0, "device": "tv",
            }
            for k in range(num_events)
        ]  # fmt: skip
        file = self.log / "events" / f"ingest_date={AS_OF}" / "late.parquet"
        file.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=like), file)


@pytest.fixture(scope="module")
def nights(
    spark: SparkSession, log: Path, done: tuple[RunContext, Config], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nights]:
    root = done[1].root
    assert root is not None
    nights = Nights(spark, log, root, tmp_path_factory.mktemp("nights"))
    with messages_to(nights.said.append):
        yield nights


def test_a_night_publishes_one_snapshot_without_training(nights: Nights) -> None:
    spaces = nights.work(AS_OF).tables.read(schemas.REGISTRY).count()
    for day, before in zip(DAYS[:2], (AS_OF, DAYS[0]), strict=True):
        work = nights.work(day)
        assert daily(work, on_time=True) == [nights.space]
        assert [run.stage for run in work.runs.stages] == [
            "take_inventory", "build_activity_tiles", "train_item_vectors", "refresh_user_features", "embed_users",
            "monitor_drift", "publish_snapshot",
        ]  # fmt: skip
        assert f"updated from the sums of {before}" in work.runs.stages[3].reason
    assert nights.snapshots()[-2:] == [(DAYS[0], 1), (DAYS[1], 1)]
    assert nights.work(AS_OF).tables.read(schemas.REGISTRY).count() == spaces
    again = nights.work(DAYS[1])
    daily(again, on_time=True)
    assert {run.outcome for run in again.runs.stages[1:]} == {"skipped"}


def test_a_snapshot_that_has_moved_too_far_is_not_published(nights: Nights) -> None:
    strict = pipeline_config(nights.log, Path(str(nights.config.root)), drift={"fail": {"neighbours_lost": 0}})
    before = nights.snapshots()
    for _ in range(2):  # nor is it by running again
        with pytest.raises(GateRefusedError, match=r"drift: .+ above the limits in drift\.fail: .*neighbours_lost 0\."):
            daily(RunContext(strict, nights.spark, DAYS[2]), on_time=True)
    with pytest.raises(GateRefusedError, match=r"drift: \S+: above the limits in drift\.fail: neighbours_lost 0\."):
        backfill(RunContext(strict, nights.spark, None), [DAYS[2]])  # nor by another command
    assert nights.snapshots() == before


def test_late_data_makes_dates_stale_which_status_lists_and_backfill_rebuilds(nights: Nights) -> None:
    tables, space = nights.work(AS_OF).tables, nights.space
    assert stale_dates(tables, nights.config) == {space.space_id: []}
    before = join_at(nights, "2024-03-16 12:00:00")
    nights.add_late_events(40)
    daily(nights.work(DAYS[1]), on_time=True)
    assert any("run `userrep backfill --stale` to rebuild them" in line for line in nights.said)
    stale = stale_dates(tables, nights.config)[space.space_id]
    assert AS_OF in stale
    assert DAYS[0] in stale
    assert DAYS[1] not in stale
    assert all(LATE_DAY < day <= LATE_DAY + timedelta(days=28) for day in stale)
    found = status(tables, nights.config)
    assert found["spaces"][0]["stale"] == stale
    assert any("stale after changes in the log" in line for line in status_lines(found))
    backfill_stale(nights.work(None))
    assert stale_dates(tables, nights.config) == {space.space_id: []}
    assert {(day, 2) for day in (AS_OF, *DAYS[:2])} <= set(nights.snapshots())
    assert join_at(nights, "2024-03-16 12:00:00") == before
    backfill_stale(nights.work(None))
    assert nights.said[-1] == f"space {space.space_id} has no stale snapshot"


def join_at(nights: Nights, when: str) -> list[tuple[object, ...]]:
    """What a label of that time may see."""
    users = "'u0000001'), ('u0000002'), ('u0000003'), ('u0000004'"
    labels = nights.spark.sql(
        f"SELECT u AS user_id, timestamp'{when}' AS label_at, 1.0 AS label FROM VALUES ({users}) t(u)"
    )
    rows = join_embeddings(labels, tables=nights.work(AS_OF).tables, space=nights.space).orderBy("user_id").collect()
    return [tuple(row) for row in rows]


def test_a_backfill_builds_what_is_missing_and_goes_on_where_it_was_killed(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("userrep.workflows.daily.DATES_PER_GROUP", 1)
    dates = dates_between(AS_OF - timedelta(days=9), AS_OF - timedelta(days=3), 3)
    publish = publish_snapshots
    calls = []

    def killed(*args: object, **more: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        publish(*args, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("userrep.workflows.space_stages.publish_snapshots", killed)
        with pytest.raises(KeyboardInterrupt):
            backfill(nights.work(dates[-1]), dates)
    work = nights.work(dates[-1])
    backfill(work, dates)
    built = [run for run in work.runs.stages if run.stage == "build_user_features" and run.outcome == "done"]
    assert len(built) == 1  # the first was published, the second built
    assert {day for day, _ in nights.snapshots()} >= set(dates)
    assert f"{len(dates)} of {len(dates)} as-of dates" in nights.said[-1]


def test_a_range_of_dates_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="--every: must be at least 1 day, got 0"):
        dates_between(AS_OF, AS_OF, 0)
    with pytest.raises(UsageError, match="is after --to"):
        dates_between(DAYS[1], DAYS[0], 1)
    assert dates_between(DAYS[0], DAYS[2], 2) == [DAYS[0], DAYS[2]]


def with_copy_of_the_space(nights: Nights, space_id: str, *, lineage_id: str) -> None:
    """Register a ready space with the artifact of the one that serves: a training that costs nothing."""
    tables, like = nights.work(AS_OF).tables, nights.space
    copy = artifact_folder(tables, replace(like, space_id=space_id))
    shutil.copytree(artifact_folder(tables, like), copy)
    add_candidate(
        tables,
        space_id=space_id,
        lineage_id=lineage_id,
        trained_until=like.trained_until,
        content_hash=like.content_hash,
    )
    mark_ready(tables, find_space(tables, space_id))


def test_a_night_refreshes_every_space_in_use_and_names_those_it_cannot(nights: Nights) -> None:
    tables, day = nights.work(AS_OF).tables, DAYS[2]
    for space_id in ("s002-new", "s003-gone"):
        with_copy_of_the_space(nights, space_id, lineage_id=nights.space.lineage_id)
    with_copy_of_the_space(nights, "s004-other", lineage_id="lother")
    retire(tables, find_space(tables, "s003-gone"))
    spaces = daily(nights.work(day), on_time=True)
    assert [space.space_id for space in spaces] == [nights.space.space_id, "s002-new"]
    assert {s: dates_of(nights, s)[-1:] for s in ("s002-new", "s003-gone", "s004-other")} == {
        "s002-new": [day], "s003-gone": [], "s004-other": [],
    }  # fmt: skip
    assert any(
        line.startswith("space s004-other (waits to serve) is not refreshed: it uses item") for line in nights.said
    )
    lines = status_lines(status(tables, nights.config))
    assert f"space {nights.space.space_id}: serving, trained on data until 2024-02-25; embedded daily: serving" in lines
    assert f"consumer return_propensity of userrep: uses the serving space, ready for {nights.space.space_id}" in lines


@pytest.mark.parametrize("error", [GateRefusedError, UserrepError])
def test_a_space_that_fails_keeps_no_other_from_being_published(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, error: type[UserrepError]
) -> None:
    publish, day = publish_snapshots, DAYS[2] + timedelta(days=1)

    def refusing(work: RunContext, space: Space, *args: object, **more: object) -> None:
        if space.space_id == nights.space.space_id:
            raise error("not published: snapshot x: it has no rows.")
        publish(work, space, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("userrep.workflows.space_stages.publish_snapshots", refusing)
    with pytest.raises(error, match=r"not published: snapshot x: it has no rows\."):
        daily(nights.work(day), on_time=True)
    assert dates_of(nights, "s002-new")[-1] == day
    assert dates_of(nights, nights.space.space_id)[-1] == DAYS[2]


def dates_of(nights: Nights, space_id: str) -> list[date]:
    return [s.as_of for s in list_snapshots(nights.work(AS_OF).tables, space_id)]


def test_a_night_ends_with_what_need_not_be_kept_being_deleted(nights: Nights) -> None:
    few = {"keep_daily": "1d", "keep_weekly": "0d", "history_dates": 4}
    config = pipeline_config(nights.log, Path(str(nights.config.root)), snapshots=few)
    work = RunContext(config, nights.spark, DAYS[1])
    there = {day for day, _ in nights.snapshots()}
    daily(work, on_time=True)
    ledger = {s.snapshot_id: s.as_of for s in list_snapshots(work.tables, nights.space.space_id)}
    pinned = {ledger[name] for found in list_training_sets(work.tables) for name in found.snapshot_ids}
    needed = {*work.schedule.history_dates(nights.space)} & there
    assert set(ledger.values()) == {DAYS[1], max(there)} | needed | pinned
    assert DAYS[0] in there - set(ledger.values())
    assert any(re.search(rf"space {nights.space.space_id}: \d+ snapshots expired, ", line) for line in nights.said)
