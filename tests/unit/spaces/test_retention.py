"""Retention of snapshots: what is kept, and that a deletion which is killed ends the same."""

import random
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tests.support.builders import interrupted_at, left_to_spark
from tests.support.embedding_tables import add_spaces, publish, snapshot
from userrep.config import Snapshots
from userrep.errors import UserrepError
from userrep.joins import training_sets
from userrep.joins.join import join_embeddings
from userrep.joins.training_sets import create_training_set, read_training_set, training_set_id
from userrep.spaces import retention
from userrep.spaces.registry import find_space, retire
from userrep.spaces.retention import expire_snapshots, snapshots_to_expire
from userrep.spaces.snapshots import EXPIRED, PUBLISHED, list_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.schemas import SNAPSHOTS, USER_EMBEDDINGS
from userrep.store.tables import Tables

pytestmark = pytest.mark.default

TODAY = date(2024, 5, 15)  # a Wednesday
FEW = Snapshots(keep_daily=timedelta(days=2), keep_weekly=timedelta(weeks=2))


@pytest.fixture
def tables(spark: SparkSession, tmp_path: Path) -> Tables:
    tables = FileTables(spark, str(tmp_path))
    add_spaces(tables, "s001-a", "s002-b")
    for space in ("s001-a", "s002-b"):
        publish(tables, {snapshot(TODAY - timedelta(days=k), space=space): {"u": [float(k)]} for k in range(20)})
    return tables


def test_daily_snapshots_are_kept_for_two_weeks_and_weekly_ones_for_half_a_year() -> None:
    chance, settings = random.Random(5), Snapshots()
    for _ in range(200):
        days = [TODAY - timedelta(days=k) for k in range(-3, 400) if chance.random() < chance.choice([0.1, 0.9])]
        made = [snapshot(day, revision) for day in days for revision in range(1, chance.randint(1, 2) + 1)]
        pinned = {s.snapshot_id for s in made if chance.random() < 0.02}
        needed = {day for day in days if chance.random() < 0.02}
        keep_newest = chance.random() < 0.5
        gone = snapshots_to_expire(
            chance.sample(made, len(made)), settings, today=TODAY, needed=needed, pinned=pinned, keep_newest=keep_newest
        )
        for s in made:
            age = (TODAY - s.as_of).days
            monday = s.as_of - timedelta(days=s.as_of.weekday())
            kept = age < 14
            kept |= age < 26 * 7 and not any(monday <= day < s.as_of for day in days)
            kept |= s.snapshot_id in pinned or s.as_of in needed
            kept |= keep_newest and (s.as_of, s.revision) == max((m.as_of, m.revision) for m in made)
            assert (s in gone) != kept, s
        again = [s for s in made if s not in gone]
        same = {"needed": needed, "pinned": pinned, "keep_newest": keep_newest}
        assert snapshots_to_expire(again, settings, today=TODAY, **same) == []  # type: ignore[arg-type]


def states(tables: Tables, space_id: str = "s001-a") -> dict[int, str]:
    """Return each snapshot's state by how many days old it is."""
    found = list_snapshots(tables, space_id, states=(PUBLISHED, EXPIRED))
    return {(TODAY - s.as_of).days: s.state for s in found}


def days_with_rows(tables: Tables, space_id: str = "s001-a") -> set[int]:
    return {
        (TODAY - f.values["as_of"]).days for f in tables.files(USER_EMBEDDINGS, lambda of: of["space_id"] == space_id)
    }


def expire(tables: Tables) -> None:
    space = find_space(tables, "s001-a")
    expire_snapshots(tables, space, FEW, today=TODAY, needed=[TODAY - timedelta(days=5)])


def test_a_deletion_that_is_killed_ends_the_same_when_it_is_run_again(
    tables: Tables, spark: SparkSession, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    at = datetime(2024, 5, 4, 12)  # resolves to the snapshot of that day, 11 days old
    labels = spark.createDataFrame([("u", at)], "user_id STRING, label_at TIMESTAMP")
    pinned = create_training_set(labels, tables=tables, name="pins", space="s001-a")
    other = spark.createDataFrame([("u", at + timedelta(days=k)) for k in range(11)], labels.schema)
    begun = join_embeddings(other, tables=tables, space="s001-a")
    with interrupted_at(FileTables, "drop_partitions"):
        expire(tables)
    # of two days: today and yesterday; first of a week: this Monday, last week's, none of the 26th of April's week
    kept = {0, 1, 2, 9, 5, 11}
    assert {age for age, state in states(tables).items() if state == PUBLISHED} == kept
    assert days_with_rows(tables) == set(range(20))
    lines.clear()
    for _ in range(2):
        expire(tables)
        assert days_with_rows(tables) == kept
        assert {age for age, state in states(tables).items() if state == PUBLISHED} == kept
    assert lines == []
    assert days_with_rows(tables, "s002-b") == set(range(20))
    assert [row.embedding_status for row in begun.collect()] == ["found"] * 11
    rows = join_embeddings(other, tables=tables, space="s001-a").collect()
    by_age = {(TODAY - row.label_at.date()).days: (row.embedding_status, row.embedding) for row in rows}
    assert by_age == {k: ("found", [float(k)]) if k in kept else ("expired", None) for k in range(1, 12)}
    again = read_training_set(labels, training_set_id(pinned), tables=tables)
    assert [row.embedding for row in again.collect()] == [[11.0]]


def once_before(function: Callable[..., Any], act: Callable[[], object]) -> Callable[..., Any]:
    """Return a function that first acts as another run, in its first call only."""
    acts = [act]

    def after_another_run(*arguments: Any, **options: Any) -> Any:
        while acts:
            acts.pop()()
        return function(*arguments, **options)

    return after_another_run


def test_an_expiry_keeps_what_an_erasure_counts_meanwhile(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    def recount() -> None:
        tables.change(SNAPSHOTS, lambda rows: [row.asDict() | {"num_users": 7} for row in rows])

    monkeypatch.setattr(retention, "snapshots_to_expire", once_before(snapshots_to_expire, recount))
    expire(tables)
    assert EXPIRED in states(tables).values()
    assert {row.num_users for row in tables.ledger(SNAPSHOTS)} == {7}


def test_an_expiry_keeps_snapshots_of_a_training_set_that_is_created_meanwhile(
    tables: Tables, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = spark.createDataFrame([("u", datetime(2024, 5, 4, 12))], "user_id STRING, label_at TIMESTAMP")
    made = []

    def create() -> None:
        made.append(training_set_id(create_training_set(labels, tables=tables, name="pins", space="s001-a")))

    monkeypatch.setattr(retention, "snapshots_to_expire", once_before(snapshots_to_expire, create))
    expire(tables)
    assert states(tables)[11] == PUBLISHED
    assert states(tables)[12] == EXPIRED
    assert [row.embedding for row in read_training_set(labels, made[0], tables=tables).collect()] == [[11.0]]


def test_a_training_set_whose_snapshot_expires_while_it_is_created_is_refused(
    tables: Tables, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = spark.createDataFrame([("u", datetime(2024, 5, 4, 12))], "user_id STRING, label_at TIMESTAMP")
    report = once_before(training_sets.report_in_sample, lambda: expire(tables))
    monkeypatch.setattr(training_sets, "report_in_sample", report)
    with pytest.raises(UserrepError, match="snapshots: another run has changed the same rows meanwhile"):
        create_training_set(labels, tables=tables, name="pins", space="s001-a")


def test_of_a_retired_space_nothing_is_kept_for_being_the_newest(tables: Tables, lines: list[str]) -> None:
    retire(tables, find_space(tables, "s001-a"))
    expire_snapshots(tables, find_space(tables, "s001-a"), FEW, today=TODAY + timedelta(days=40), needed=[])
    assert set(states(tables).values()) == {EXPIRED}
    assert days_with_rows(tables) == set()
    assert lines == ["space s001-a: 20 snapshots expired, 2024-04-26 to 2024-05-15; 0 kept"]


def test_partitions_are_dropped_by_sql_where_files_are_left_to_spark(tables: Tables) -> None:
    keys = [{"space_id": "s001-a", "as_of": TODAY - timedelta(days=k), "revision": 1} for k in (0, 3)]
    left_to_spark(tables).drop_partitions(USER_EMBEDDINGS, keys)
    assert days_with_rows(tables) == set(range(20)) - {0, 3}
    assert days_with_rows(tables, "s002-b") == set(range(20))
