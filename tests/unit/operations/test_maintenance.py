"""Maintenance joins small files, removes old ones, and changes no row that counts."""

import os
import time
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake.exceptions import CommitFailedError
from pyspark.sql import SparkSession

from tests.support.builders import config_of
from tests.support.embedding_tables import Update, add_spaces, add_updates, publish, snapshot
from userrep.errors import UserrepError
from userrep.operations import maintenance
from userrep.operations.maintenance import maintain_tables
from userrep.spaces.snapshots import BEGUN, REFUSED, STAGED, record_snapshots
from userrep.store import delta_commits
from userrep.store.file_tables import FileTables
from userrep.store.schemas import (
    ALL,
    EMBEDDING_UPDATES,
    FEATURE_SETS,
    JOB_RUNS,
    LEASES,
    LEDGERS,
    OPENINGS,
    REGISTRY,
    REJECTED_EVENTS,
    SNAPSHOTS,
    SUM_GENERATIONS,
    TILE_DAYS,
    TRAINING_ROWS,
    TRAINING_SETS,
    USER_EMBEDDINGS,
    USER_ITEM_DAYS,
    USER_OPENINGS,
    user_features,
)
from userrep.store.sql import sql_date
from userrep.store.tables import RETENTION, Tables
from userrep.utc import utc_now

pytestmark = pytest.mark.default

D1, D2 = date(2024, 5, 1), date(2024, 5, 2)
NOON = datetime(2024, 5, 1, 12)
CONFIG = config_of(Path("nowhere"))


@pytest.fixture
def tables(spark: SparkSession, tmp_path: Path) -> Tables:
    return FileTables(spark, str(tmp_path / "root"))


def maintain(tables: Tables) -> dict[str, Any]:
    return maintain_tables(tables, CONFIG)


def num_files(tables: Tables, table: Any, **values: Any) -> int:
    return len(tables.files(table, lambda of: all(of[name] == value for name, value in values.items())))


def test_every_table_is_a_ledger_or_is_written_in_its_layout() -> None:
    assert set(LEDGERS) < set(ALL)
    assert {table.name for table in ALL if not table.partition_by} - {table.name for table in LEDGERS} == {
        "leases",
        "registry",
    }


def test_tables_that_each_change_rewrites_are_one_file_and_are_not_joined(tables: Tables) -> None:
    for table in (REGISTRY, LEASES):
        for k in range(maintenance._MANY):
            tables.add(table, [{"change_id": str(k)}])
        before = tables.version(table)
        assert maintain(tables)["joined"] == {}
        assert (num_files(tables, table), tables.version(table)) == (maintenance._MANY, before)
        tables.change(table, lambda rows: [row.asDict() for row in rows])
        assert num_files(tables, table) == 1


def test_small_files_are_joined_and_rows_stay(tables: Tables) -> None:
    for k in range(20):
        tables.add(JOB_RUNS, [{"run_id": f"r{k:02d}", "stage": "s"}])
        add_updates(tables, [Update(D1, f"u{k}", NOON, [1.0])])
        tables.add(REJECTED_EVENTS, [{"event_date": D1, "revision": k % 2, "reason": "r", "row": str(k)}])
    add_updates(tables, [Update(D2, "u", NOON, [1.0])])
    for k in range(8):
        tables.add(REJECTED_EVENTS, [{"event_date": D1, "revision": 0, "reason": "r", "row": f"more {k}"}])
    kept = {table: sorted(map(str, tables.read(table).collect())) for table in (EMBEDDING_UPDATES, REJECTED_EVENTS)}
    done = maintain(tables)
    assert done["joined"] == {"job_runs": 20, "embedding_updates": 1, "rejected_events": 1}
    assert sorted(row.run_id for row in tables.ledger(JOB_RUNS)) == [f"r{k:02d}" for k in range(20)]
    assert num_files(tables, JOB_RUNS) == 1
    assert (num_files(tables, EMBEDDING_UPDATES, as_of=D1), num_files(tables, EMBEDDING_UPDATES, as_of=D2)) == (1, 1)
    assert (num_files(tables, REJECTED_EVENTS, revision=0), num_files(tables, REJECTED_EVENTS, revision=1)) == (1, 10)
    assert kept == {table: sorted(map(str, tables.read(table).collect())) for table in kept}
    assert maintain(tables)["joined"] == {}


def test_old_files_go_and_what_may_still_be_read_stays(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = {"lineage_id": "l1", "as_of": D1, "user_slice": "0-of-1", "user_bucket": 1, "user_id": "u", "sums": b""}
    for _ in range(3):
        tables.add(USER_OPENINGS, [opening], replacing="true")
    for version, built_at in ((2, NOON), (1, NOON - timedelta(hours=1))):
        row = {"lineage_id": "l1", "as_of": D1, "table_version": version, "built_at": built_at}
        tables.add(OPENINGS, [row])
    with monkeypatch.context() as patched:
        patched.setattr(maintenance, "RETENTION", timedelta(0))
        maintain(tables)
    rows = tables.read(USER_OPENINGS, version=2)
    assert rows.count() == 1
    folder = tmp_path / "root" / "tables" / "user_openings"
    assert len(list(folder.rglob("*.parquet"))) == 2  # of the versions 2 and 3

    add_updates(tables, [Update(D1, "u", NOON, [1.0])])
    orphans = [tmp_path / "root" / "tables" / "embedding_updates" / f"part-{k}.parquet" for k in range(2)]
    staged = [tmp_path / "root" / "artifacts" / "spaces" / f".s00{k}-abc" for k in range(2)]
    for old, young in (orphans, staged):
        for path in (old, young):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        long_ago = time.time() - RETENTION.total_seconds() - 3600
        os.utime(old, (long_ago, long_ago))
    assert maintain(tables)["orphans"] == 1
    assert [path.exists() for path in (*orphans, *staged)] == [False, True, False, True]
    assert tables.read(EMBEDDING_UPDATES).count() == 1
    assert rows.count() == 1


def test_rows_of_snapshots_that_were_refused_go_after_a_week(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tables, {snapshot(D1): {"u": [1.0]}, snapshot(D2, state=REFUSED): {"u": [1.0]}})
    monkeypatch.setattr(maintenance, "utc_now", lambda: datetime.combine(D2, datetime.min.time()) + RETENTION)
    assert maintain(tables)["unpublished_snapshots"] == 0
    monkeypatch.setattr(maintenance, "utc_now", lambda: datetime.combine(D2, datetime.max.time()) + RETENTION)
    assert maintain(tables)["unpublished_snapshots"] == 1
    assert [row.as_of for row in tables.read(USER_EMBEDDINGS).collect()] == [D1]
    assert {row.state for row in tables.ledger(SNAPSHOTS)} == {"published", "refused"}


def test_snapshots_that_were_not_published_go_after_a_week(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    held_back, begun = snapshot(D2, state=STAGED), replace(snapshot(D2, revision=2, state=BEGUN), begun_by="a run")
    publish(tables, {snapshot(D1): {"u": [1.0]}, held_back: {"u": [1.0]}, begun: {"u": [1.0]}})
    monkeypatch.setattr(maintenance, "utc_now", lambda: datetime.combine(D2, datetime.min.time()) + RETENTION)
    assert maintain(tables)["unpublished_snapshots"] == 0
    monkeypatch.setattr(maintenance, "utc_now", lambda: datetime.combine(D2, datetime.max.time()) + RETENTION)
    assert maintain(tables)["unpublished_snapshots"] == 2
    assert [row.as_of for row in tables.read(USER_EMBEDDINGS).collect()] == [D1]
    assert {row.state for row in tables.ledger(SNAPSHOTS)} == {"published"}, "a later run builds the date again"


def test_rows_and_checkpoints_of_trainings_go_after_a_week(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_spaces(tables, "s001-a")
    for space_id in ("s001-a", "s002-b"):
        tables.add(TRAINING_ROWS, [{"space_id": space_id, "split": "train", "shard": 0, "row_key": 1, "x": b""}])
        step = tmp_path / "root" / "artifacts" / "training" / space_id / "checkpoints" / "step-000000001"
        step.mkdir(parents=True)
        (step / "manifest.json").write_bytes(b"x")
    assert maintain(tables)["trainings"] == 0
    monkeypatch.setattr(maintenance, "utc_now", lambda: utc_now() + RETENTION + timedelta(minutes=1))
    assert maintain(tables)["trainings"] == 2
    assert tables.read(TRAINING_ROWS).count() == 0
    assert not list((tmp_path / "root" / "artifacts" / "training").iterdir())


def test_a_ledger_that_others_commit_to_is_left_and_they_are_not_stopped(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that replaces rows of a ledger just when its files are joined does it again."""
    for day in (D1, D2):
        publish(tables, {snapshot(day): {"u": [1.0]}})
    write, calls = delta_commits.write_deltalake, []

    def after_a_join(*arguments: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            assert tables.compact(SNAPSHOTS, at_least=2) == 2
        write(*arguments, **options)

    monkeypatch.setattr(delta_commits, "write_deltalake", after_a_join)
    changed = replace(snapshot(D1), num_users=7)
    tables.add(SNAPSHOTS, [vars(changed)], replacing=f"as_of = {sql_date(D1)}")
    assert sorted((row.as_of, row.num_users) for row in tables.ledger(SNAPSHOTS)) == [(D1, 7), (D2, 2)]

    def never(*_: Any, **__: Any) -> None:
        raise CommitFailedError("another")

    monkeypatch.setattr(delta_commits, "write_deltalake", never)
    with pytest.raises(UserrepError, match="other runs keep committing"):
        tables.add(SNAPSHOTS, [vars(changed)], replacing="true")


def test_tiles_go_that_are_old_and_that_neither_ledger_nor_sums_refer_to(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*keys: tuple[date, int]) -> None:
        rows = [
            {"event_date": day, "revision": revision, "user_slice": "0-of-1", "user_bucket": 1}
            for day, revision in keys
        ]
        tables.add(USER_ITEM_DAYS, rows)

    def left() -> set[tuple[date, int]]:
        return {
            (file.values["event_date"], file.values["revision"])
            for file in tables.files(USER_ITEM_DAYS, lambda _: True)
        }

    write((D1, 1), (D1, 2), (D1, 3), (D2, 1), (D2, 4))
    day = {
        "fingerprint": "f",
        "content": "c",
        "num_events": 1,
        "num_tiles": 1,
        "num_rejected": 0,
        "built_at": utc_now(),
    }
    tables.add(TILE_DAYS, [
        day | {"event_date": event_date, "revision": number}
        for event_date, number in ((D1, 1), (D1, 2), (D1, 3), (D2, 1))
    ])  # fmt: skip
    generation = {"lineage_id": "l1", "as_of": D2}
    included: list[dict[date, int]] = [{D1: 1}, {D1: 2}, {}]  # of the first one no rows are left
    tables.add(SUM_GENERATIONS, [
        generation | {"generation": k, "revision_by_day": days} for k, days in enumerate(included, 1)
    ])  # fmt: skip
    assert maintain(tables)["superseded_tiles"] == 0  # they were written just now
    monkeypatch.setattr(maintenance, "utc_now", lambda: utc_now() + RETENTION + timedelta(minutes=1))
    assert maintain(tables)["superseded_tiles"] == 2
    assert left() == {(D1, 2), (D1, 3), (D2, 1)}  # in the sums, and the newest of their days


def test_tiles_stay_for_seven_days_after_another_revision_of_their_day(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, superseded = utc_now(), utc_now() + timedelta(days=30)
    for number, built_at in ((1, written), (2, superseded)):
        rows = {"event_date": D1, "revision": number, "user_slice": "0-of-1", "user_bucket": 1}
        tables.add(USER_ITEM_DAYS, [rows])
        tables.add(TILE_DAYS, [{"event_date": D1, "revision": number, "content": f"{number}", "built_at": built_at}])

    for later, num in ((RETENTION, 0), (RETENTION + timedelta(microseconds=1), 1)):
        monkeypatch.setattr(maintenance, "utc_now", lambda later=later: superseded + later)
        assert maintain(tables)["superseded_tiles"] == num, "a run that began before may still read them"


def test_features_go_that_no_snapshot_and_no_training_needs(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    add_spaces(tables, "s001-a")
    table = user_features("l1", "n INT")
    days = [D2 - timedelta(days=back) for back in (0, 100, 300, 301, 302, 303)]
    tables.add(table, [{"as_of": day, "user_id": "u", "n": 1} for day in days])
    built = {"lineage_id": "l1", "num_users": 1, "built_at": NOON}
    tables.add(FEATURE_SETS, [built | {"as_of": day} for day in (*days[:4], days[5])])
    tables.add(SUM_GENERATIONS, [{"lineage_id": "l1", "generation": 1, "as_of": days[5], "revision_by_day": {}}])
    tables.add(FEATURE_SETS, [{"lineage_id": "l1", "as_of": days[4], "begun_by": "a build"}])
    publish(tables, {snapshot(days[2]): {"u": [1.0]}})
    monkeypatch.setattr(maintenance, "utc_now", lambda: NOON + RETENTION)
    assert maintain(tables)["features"] == 0
    monkeypatch.setattr(maintenance, "utc_now", lambda: NOON + RETENTION + timedelta(seconds=1))
    assert maintain(tables)["features"] == 1
    left = {*days} - {days[3]}
    assert {row.as_of for row in tables.ledger(FEATURE_SETS)} == left
    assert {file.values["as_of"] for file in tables.files(table, lambda _: True)} == left


def test_features_go_that_an_interrupted_maintenance_left(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    add_spaces(tables, "s001-a")
    table = user_features("l1", "n INT")
    tables.add(table, [{"as_of": day, "user_id": "u", "n": 1} for day in (D1, D2)])
    tables.add(FEATURE_SETS, [{"lineage_id": "l1", "as_of": D2, "num_users": 1, "built_at": utc_now()}])
    for later, left in ((timedelta(), {D1, D2}), (RETENTION + timedelta(minutes=1), {D2})):
        monkeypatch.setattr(maintenance, "utc_now", lambda later=later: utc_now() + later)
        maintain(tables)
        assert {file.values["as_of"] for file in tables.files(table, lambda _: True)} == left


def test_streamed_updates_go_as_daily_snapshots_do_but_for_those_that_a_training_set_took(tables: Tables) -> None:
    add_spaces(tables, "s001-a", "s002-b")
    days = [D2 - timedelta(days=back) for back in (0, 13, 14, 20, 21)]
    add_updates(tables, [Update(day, "u", NOON, [1.0]) for day in days])
    add_updates(tables, [Update(days[4], "u", NOON, [1.0], space="s002-b")])  # which has no snapshot
    publish(tables, {snapshot(D2): {"u": [1.0]}})
    at = datetime.combine(days[3], datetime.min.time())
    taken = {"training_set_id": "t", "space_id": "s001-a", "first_label_at": at, "last_label_at": at}
    tables.add(TRAINING_SETS, [taken | {"options": '{"updates": true}', "snapshot_ids": []}])
    assert maintain(tables)["updates"] == 2
    earlier = snapshot(days[4])
    record_snapshots(tables, [earlier])
    add_updates(tables, [Update(days[4], "u", NOON, [1.0])])  # a label of days[3] may have taken it
    named = {"options": '{"updates": true}', "snapshot_ids": [earlier.snapshot_id], "training_set_id": "t2"}
    tables.add(TRAINING_SETS, [taken | named])
    assert maintain(tables)["updates"] == 0
    tables.drop_partitions(EMBEDDING_UPDATES, [{"space_id": "s001-a", "as_of": days[4]}])
    left = {(file.values["space_id"], file.values["as_of"]) for file in tables.files(EMBEDDING_UPDATES, lambda _: True)}
    assert left == {("s001-a", day) for day in (days[0], days[1], days[3])} | {("s002-b", days[4])}
