"""Training sets: what is recorded, that the same rows are returned again, and the errors if they cannot be."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from tests.support.builders import session_in
from tests.support.embedding_tables import Update, add_spaces, add_updates, publish, snapshot
from userrep.errors import UsageError, UserrepError
from userrep.joins.join import join_embeddings
from userrep.joins.options import JoinOptions
from userrep.joins.training_sets import (
    create_training_set,
    list_training_sets,
    read_training_set,
    training_set_id,
)
from userrep.spaces.consumers import register_consumer
from userrep.spaces.registry import find_space, mark_ready, promote, read_registry, retire
from userrep.spaces.snapshots import EXPIRED, record_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.tables import Tables

pytestmark = pytest.mark.default

DAYS = [date(2024, 5, 1) + timedelta(days=k) for k in range(5)]
NOON = [datetime(2024, 5, 1, 12) + timedelta(days=k) for k in range(5)]


@pytest.fixture
def tables(spark: SparkSession, tmp_path: Path) -> Tables:
    """Return tables with four daily snapshots of one space, the third one expired."""
    tables = FileTables(spark, str(tmp_path))
    add_spaces(tables, "s001-a")
    made = [snapshot(day, state=EXPIRED if day == DAYS[2] else "published") for day in DAYS[:4]]
    publish(tables, {s: {"u": [float(k)]} for k, s in enumerate(made)})
    return tables


def labels_of(spark: SparkSession, *times: datetime | None) -> DataFrame:
    return spark.createDataFrame([("u", at) for at in times], "user_id STRING, label_at TIMESTAMP")


def vectors_of(rows: DataFrame) -> list[tuple[object, ...]]:
    return sorted((r.label_at, r.snapshot_id, r.embedding) for r in rows.collect())


@pytest.fixture
def in_berlin(spark: SparkSession) -> Iterator[None]:
    """Let the session run in another time zone than UTC."""
    with session_in(spark, "Europe/Berlin"):
        yield


@pytest.mark.usefixtures("in_berlin")
def test_a_training_set_comes_again_from_its_snapshots_whatever_came_since(tables: Tables, spark: SparkSession) -> None:
    labels = labels_of(spark, NOON[0], NOON[1], NOON[1], NOON[3])
    options = JoinOptions(availability="as_of", updates=True)
    made = create_training_set(labels, tables=tables, name="churn", space="s001-a", options=options)
    before = vectors_of(made)
    (record,) = list_training_sets(tables)
    assert record.training_set_id == training_set_id(made)
    assert (record.name, record.space_id) == ("churn", "s001-a")
    assert record.snapshot_ids == ["s001-a-20240501-r1", "s001-a-20240502-r1", "s001-a-20240504-r1"]
    assert (record.first_label_at, record.last_label_at) == (NOON[0], NOON[3])
    create_training_set(labels, tables=tables, name="churn", space="s001-a", options=options)
    assert list_training_sets(tables) == [record]
    publish(tables, {snapshot(DAYS[1], 2): {"u": [99.0]}})
    add_updates(tables, [Update(DAYS[4], "u", datetime(2200, 1, 1), [98.0])])
    assert vectors_of(join_embeddings(labels, tables=tables, space="s001-a", options=options)) != before
    retire(tables, find_space(tables, "s001-a"))
    assert vectors_of(read_training_set(labels, record.training_set_id, tables=tables)) == before


def test_a_training_set_without_its_snapshot_names_the_snapshot(tables: Tables, spark: SparkSession) -> None:
    labels = labels_of(spark, NOON[0], NOON[1])
    made = training_set_id(create_training_set(labels, tables=tables, name="churn", space="s001-a"))
    record_snapshots(tables, [snapshot(DAYS[1], state=EXPIRED)])
    with pytest.raises(
        UserrepError, match=r"are missing: s001-a-20240502-r1 \(expired\)\. The training set cannot be read"
    ):
        read_training_set(labels, made, tables=tables)
    record_snapshots(tables, [replace(snapshot(DAYS[0]), state="refused")])
    with pytest.raises(UserrepError, match=r"s001-a-20240501-r1 \(not in the ledger\), s001-a-20240502-r1 \(expired\)"):
        read_training_set(labels, made, tables=tables)


@pytest.mark.usefixtures("in_berlin")
def test_other_labels_than_a_training_sets_fail_the_job(tables: Tables, spark: SparkSession) -> None:
    made = training_set_id(
        create_training_set(labels_of(spark, NOON[1], None), tables=tables, name="churn", space="s001-a")
    )
    assert len(read_training_set(labels_of(spark, None, NOON[1]), made, tables=tables).collect()) == 2
    other = read_training_set(labels_of(spark, NOON[1], NOON[3]), made, tables=tables)
    with pytest.raises(
        PySparkException,
        match=r"a time outside .* span, 2024-05-02 12:00:00 to 2024-05-02 12:00:00 UTC, got 2024-05-04 12:00:00\.",
    ):
        other.collect()


def test_labels_of_expired_snapshots_or_of_none_make_no_training_set(tables: Tables, spark: SparkSession) -> None:
    with pytest.raises(UsageError, match=r"expired snapshots, .* s001-a-20240503-r1\. Leave out the labels"):
        create_training_set(labels_of(spark, NOON[1], NOON[2]), tables=tables, name="churn", space="s001-a")
    for without_time in (labels_of(spark, None), labels_of(spark, NOON[1]).limit(0)):
        with pytest.raises(UsageError, match=r"no row has a time in label_at\. Pass at least one label"):
            create_training_set(without_time, tables=tables, name="churn", space="s001-a")
    early = labels_of(spark, NOON[0] - timedelta(days=2), None)
    with pytest.raises(
        UsageError,
        match="none has a snapshot, because the first one of space s001-a is available from 2024-05-01 06:00",
    ):
        create_training_set(early, tables=tables, name="churn", space="s001-a")
    assert list_training_sets(tables) == []


def test_names_and_ids_of_training_sets_are_checked(tables: Tables, spark: SparkSession) -> None:
    labels = labels_of(spark, NOON[1])
    with pytest.raises(UsageError, match=r"training set '\.\./churn' is not a valid name"):
        create_training_set(labels, tables=tables, name="../churn", space="s001-a")
    with pytest.raises(UsageError, match=r"training set churn-1: not in the ledger\. The newest training sets: none"):
        read_training_set(labels, "churn-1", tables=tables)
    with pytest.raises(UsageError, match="these rows belong to no training set"):
        training_set_id(labels)


def test_a_consumer_s_training_set_is_of_its_space_and_named_in_the_registry(
    tables: Tables, spark: SparkSession
) -> None:
    labels = labels_of(spark, NOON[0], NOON[1])
    with pytest.raises(UsageError, match="churn-model"):
        create_training_set(labels, tables=tables, name="churn", consumer="churn-model")
    mark_ready(tables, find_space(tables, "s001-a"))
    promote(tables, find_space(tables, "s001-a"))
    register_consumer(tables, "churn-model", owner="team", pin="s001-a")
    made = training_set_id(create_training_set(labels, tables=tables, name="churn", consumer="churn-model"))
    (record,) = list_training_sets(tables)
    assert (record.consumer, record.space_id) == ("churn-model", "s001-a")
    consumer = read_registry(tables).consumer("churn-model")
    assert (consumer.training_set_id, list(consumer.snapshot_ids)) == (made, record.snapshot_ids)
