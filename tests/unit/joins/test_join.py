"""Point-in-time joins: what a label may see, against brute force in two time zones, and what is refused."""

import random
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tests.support.builders import left_to_spark, session_in
from tests.support.embedding_tables import (
    Oracle,
    Update,
    Vector,
    add_spaces,
    add_updates,
    publish,
    snapshot,
)
from userrep.errors import UsageError
from userrep.joins import join, read_vectors
from userrep.joins.join import join_embeddings
from userrep.joins.ledger import steps_of, with_snapshot
from userrep.joins.options import InSampleWarning, JoinOptions, prepared
from userrep.joins.read_vectors import with_vectors
from userrep.joins.statuses import SPACE_ID
from userrep.joins.training_sets import create_training_set, read_training_set, training_set_id
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import EXPIRED, REFUSED, STAGED, Snapshot, record_snapshots
from userrep.store.arrow import listed
from userrep.store.bucket_reader import BucketFiles
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import TableWriter
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.tables import Tables
from userrep.store.xxhash import bucket_of

pytestmark = pytest.mark.default

DAY, NOON = date(2024, 5, 1), datetime(2024, 5, 1, 12)
HOUR, START = timedelta(hours=1), datetime(2024, 5, 1)
LABELS = "n INT, user_id STRING, label_at TIMESTAMP"


@pytest.fixture
def tables(spark: SparkSession, tmp_path: Path) -> Tables:
    return FileTables(spark, str(tmp_path))


@pytest.fixture(params=["UTC", "Europe/Berlin"])
def zone(request: pytest.FixtureRequest, spark: SparkSession) -> Iterator[str]:
    """The time zone of the session: each of two, in turn."""
    with session_in(spark, request.param):
        yield request.param


def labels_of(spark: SparkSession, rows: list[tuple[Any, ...]], columns: str = LABELS) -> DataFrame:
    return spark.createDataFrame(rows, columns)


def num_by_status(joined: DataFrame) -> dict[str, int]:
    return {row["embedding_status"]: row["count"] for row in joined.groupBy("embedding_status").count().collect()}


def random_ledger(chance: random.Random) -> dict[Snapshot, dict[str, Vector]]:
    """Draw snapshots of some days: revisions, late ones, ties, some expired; users come and go."""
    vectors = {}
    for day in range(6):
        for revision in range(1, chance.randint(0, 3) + 1):
            as_of, delay = START + timedelta(days=day), chance.choice([0, 6, 6, chance.randint(0, 96)])
            made = snapshot(
                as_of.date(), revision, as_of + delay * HOUR, state=chance.choice(["published"] * 4 + [EXPIRED])
            )
            vectors[made] = {
                f"u{k}": [float(day), float(revision), float(k)] for k in range(5) if chance.random() < 0.7
            }
    vectors[snapshot(START.date() + timedelta(days=6), 1)] = {"u0": [6.0, 1.0, 0.0]}
    return vectors


def random_updates(chance: random.Random) -> list[Update]:
    """Draw updates, of as-of date D+1 during day D and sometimes late; some come twice."""
    updates = []
    for k in range(25):
        at = START + chance.randint(-24, 160) * HOUR
        as_of = at.date() + timedelta(days=1 - chance.choice([0, 0, 1]))
        updates.append(Update(as_of, f"u{chance.randint(0, 6)}", at, [100.0, float(k), 0.0]))
    by_key = {(u.as_of, u.user, u.computed_at): u for u in updates}  # a stream has one vector of a user at a time
    return list(by_key.values())


@pytest.mark.parametrize(
    ("reader", "seed", "zone"),
    [
        ("tasks", 0, "UTC"),
        ("tasks", 1, "Europe/Berlin"),
        ("spark", 0, "UTC"),
        pytest.param("spark", 1, "Europe/Berlin", marks=pytest.mark.full),
    ],
    indirect=["zone"],
)
@pytest.mark.usefixtures("zone")
def test_a_join_gives_what_brute_force_gives_with_every_reader_of_vectors(
    tables: Tables, spark: SparkSession, seed: int, reader: str
) -> None:
    tables = left_to_spark(tables) if reader == "spark" else tables
    chance = random.Random(seed)
    vectors, updates = random_ledger(chance), random_updates(chance)
    add_spaces(tables, "s001-a")
    publish(tables, vectors)
    record_snapshots(tables, [snapshot(DAY, 8, state=STAGED), snapshot(DAY, 9, state=REFUSED)])
    add_updates(tables, [*updates, *updates[:5], Update(DAY, "u1", NOON, [7.0, 7.0, 7.0], space="s002-b")])
    times = [START + chance.randint(-30, 200) * HOUR for _ in range(40)] + [None]
    times += [s.available_at for s in vectors] + [u.computed_at for u in updates]  # ties
    users = [*(f"u{k}" for k in range(8)), None]
    rows = [(n, chance.choice(users), at) for n, at in enumerate(times)]
    rows += rows[:10]  # repeats are kept
    labels = labels_of(spark, rows).repartition(3)
    for k, (availability, max_age_days) in enumerate([("ledger", None), ("as_of", None), ("ledger", 1), ("as_of", 0)]):
        with_updates = (seed + k) % 2 == 0
        options = JoinOptions(availability=availability, max_age_days=max_age_days, updates=with_updates)  # type: ignore[arg-type]
        oracle = Oracle(vectors, updates if with_updates else (), availability, max_age_days)
        found = join_embeddings(labels, tables=tables, space="s001-a", options=options).collect()
        told = sorted((r.n, (r.embedding_status, r.snapshot_id, r.embedding)) for r in found)
        assert told == sorted((n, oracle(user, at)) for n, user, at in rows)


@pytest.mark.usefixtures("zone")
def test_a_ledger_is_looked_up_by_the_microsecond(spark: SparkSession) -> None:
    chance = random.Random(3)
    vectors = random_ledger(chance)
    edges = [s.available_at for s in vectors if s.available_at]
    times = [edge + k * timedelta.resolution for edge in edges for k in (-1, 0, 1)]
    times += [
        datetime(1970, 1, 1),
        datetime(2024, 5, 1),
        datetime(2200, 1, 1),
        datetime(2024, 5, 4, 23, 59, 59, 999999),
    ]
    labels = labels_of(spark, [(n, "u", at) for n, at in enumerate(times)])
    found = with_snapshot(labels, steps_of(list(vectors), "ledger"), time="label_at").collect()
    oracle = Oracle(vectors)
    assert {row.n: row["__snapshot_id"] for row in found} == {n: oracle("u", at)[1] for n, at in enumerate(times)}
    assert len(found) == len(times)


def test_joined_labels_are_counted_by_status(tables: Tables, spark: SparkSession) -> None:
    add_spaces(tables, "s001-a")
    publish(tables, {snapshot(DAY, 1, NOON): {"u1": [0.5]}})
    rows = [(1, "u1", NOON), (2, "u1", NOON - timedelta(seconds=1)), (4, "new", NOON), (5, None, NOON), (6, "u1", None),
            (1, "u1", NOON)]  # fmt: skip
    found = join_embeddings(labels_of(spark, rows), tables=tables, space=find_space(tables, "s001-a"))
    assert num_by_status(found) == {
        "found": 2, "no_snapshot_yet": 1, "not_in_snapshot": 1, "null_user": 1, "null_time": 1,
    }  # fmt: skip


def test_labels_of_in_sample_snapshots_are_marked_warned_of_and_refused_on_request(
    tables: Tables, spark: SparkSession
) -> None:
    add_spaces(tables, "s001-a")
    for day, in_sample in ((DAY, True), (DAY + timedelta(days=1), False)):
        publish(tables, {snapshot(day, in_sample=in_sample): {"u1": [1.0]}})
    labels = labels_of(spark, [(1, "u1", NOON), (2, "u2", NOON), (3, "u1", NOON + 24 * HOUR)])
    wanted = "labels: the vectors of 2024-05-01 are in-sample: space s001-a was trained on what users did"
    with pytest.warns(InSampleWarning, match=re.escape(wanted)) as warned:
        found = join_embeddings(labels, tables=tables, space="s001-a")
    assert [row.filename for row in warned] == [__file__]
    assert num_by_status(found) == {"in_sample": 1, "not_in_snapshot": 1, "found": 1}
    assert {row.n: row.embedding for row in found.collect()} == {1: [1.0], 2: None, 3: [1.0]}
    refuse = JoinOptions(in_sample="refuse")
    for join_labels in (join_embeddings, partial(create_training_set, name="t")):
        with pytest.raises(UsageError, match=re.escape(wanted)):
            join_labels(labels, tables=tables, space="s001-a", options=refuse)
    with warnings.catch_warnings(action="error"):
        later = join_embeddings(labels.where("n = 3"), tables=tables, space="s001-a", options=refuse)
    assert num_by_status(later) == {"found": 1}


def test_other_names_of_columns_and_vectors_for_spark_ml(tables: Tables, spark: SparkSession) -> None:
    add_spaces(tables, "s001-a")
    publish(tables, {snapshot(DAY): {"u1": [0.5, 2.0]}})
    labels = labels_of(spark, [("u1", NOON, 1), ("u2", NOON, 2)], "`the.user` STRING, `when` TIMESTAMP, `odd name` INT")
    options = JoinOptions(user="the.user", time="when", output="taste", vectors="vector", updates=True)
    found = join_embeddings(labels, tables=tables, space="s001-a", options=options)
    assert found.columns == ["the.user", "when", "odd name", "snapshot_id", "as_of", "taste", "taste_status"]
    assert found.schema["taste"].dataType.typeName() == "vectorudt"
    assert found.schema["taste"].metadata == {SPACE_ID: "s001-a"}
    one, two = found.orderBy("`odd name`").collect()
    assert one.taste.toArray().tolist() == [0.5, 2.0]
    assert (two.taste, two.taste_status) == (None, "not_in_snapshot")


def test_a_join_refuses_wrong_types_and_a_space_without_snapshots(tables: Tables, spark: SparkSession) -> None:
    add_spaces(tables, "s001-a")
    wrong = labels_of(spark, [(1.0, "2024-05-01", "x")], "user_id DOUBLE, label_at STRING, embedding STRING")
    with pytest.raises(UsageError, match=r"'user_id' must be of type string, got double\. Cast whole num") as caught:
        join_embeddings(wrong, tables=tables, space="s001-a")
    assert len(caught.value.faults) == 3
    assert "'embedding' already exists, and the join adds" in caught.value.faults[2]
    assert (
        caught.value.faults[1]
        == "labels: column 'label_at' must be of type timestamp, got string. Cast it to timestamp."
    )
    good = labels_of(spark, [(1, "u", NOON)])
    with pytest.raises(UsageError, match=r"'time' of type timestamp is missing\. The columns are n, user_id, label_at"):
        join_embeddings(good, tables=tables, space="s001-a", options=JoinOptions(time="time"))
    with pytest.raises(UsageError, match="no published snapshot"):
        join_embeddings(good, tables=tables, space="s001-a")
    with pytest.raises(UsageError, match="space s009: not in the registry"):
        join_embeddings(good, tables=tables, space="s009")
    with pytest.raises(UsageError, match="no space is serving"):
        join_embeddings(good, tables=tables)


@pytest.mark.usefixtures("zone")
def test_dates_times_without_a_zone_and_numbers_are_cast_with_one_warning_each(spark: SparkSession) -> None:
    at = [
        datetime(2024, 10, 27, 0, 30, 0, 7),  # in Berlin, these two are the same time of day
        datetime(2024, 10, 27, 1, 30),
        datetime(2024, 3, 31, 2, 30),  # a time of day that Berlin does not have
        datetime(1900, 1, 1),
        None,
    ]
    micros = F.unix_micros("`the time`").alias("us")
    for kind, meaning in (("TIMESTAMP_NTZ", "times without a zone, which are UTC"), ("DATE", "dates, which are their")):
        days = [None if when is None else datetime.combine(when, time()) for when in at]
        wanted = days if kind == "DATE" else at
        given = [(k, when.date() if when and kind == "DATE" else when) for k, when in enumerate(at)]
        labels = labels_of(spark, given, f"`the.user` BIGINT, `the time` {kind}")
        with pytest.warns(UserWarning, match="labels: column") as warned:
            found = prepared(labels, JoinOptions(user="the.user", time="the time"))
        assert [str(row.message) for row in warned] == [
            "labels: column 'the.user' has whole numbers, which are cast to string.",
            f"labels: column 'the time' has {meaning}{' 00:00 UTC' if kind == 'DATE' else ''}.",
        ]
        assert {row.filename for row in warned} == {__file__}
        assert found.columns == labels.columns
        rows = found.select("`the.user`", micros).collect()
        assert {row["the.user"]: row.us for row in rows} == {
            str(k): when and (when - datetime(1970, 1, 1)) // timedelta.resolution for k, when in enumerate(wanted)
        }


def test_dates_and_numbers_are_joined_as_the_times_and_texts_that_they_are_cast_to(
    tables: Tables, spark: SparkSession
) -> None:
    add_spaces(tables, "s001-a")
    publish(tables, {snapshot(DAY, 1, START): {"7": [0.5]}})
    labels = labels_of(spark, [(7, DAY), (7, DAY - timedelta(days=1)), (8, DAY)], "user_id INT, label_at DATE")
    with warnings.catch_warnings(action="ignore"):
        found = join_embeddings(labels, tables=tables, space="s001-a")
        rows = create_training_set(labels, tables=tables, name="t", space="s001-a")
        again = read_training_set(labels, training_set_id(rows), tables=tables)
    for joined in (found, rows, again):
        assert num_by_status(joined) == {"found": 1, "no_snapshot_yet": 1, "not_in_snapshot": 1}


def test_options_that_there_are_not_are_refused_all_at_once() -> None:
    with pytest.raises(UsageError, match="missing: expected one of null, new_user, drop, got 'zero'") as caught:
        JoinOptions(missing="zero", availability="now", vectors="udt", max_age_days=-1)  # type: ignore[arg-type]
    assert len(caught.value.faults) == 4


def ledger_with_a_step_that_never_counts(tables: Tables) -> None:
    add_spaces(tables, "s001-a", "s002-b")
    publish(
        tables,
        {
            snapshot(DAY, 1, NOON + 20 * HOUR): {"u": [1.0]},  # never counts: the next is newer, and was there before
            snapshot(DAY, 2, NOON): {"u": [2.0]},
            snapshot(DAY + timedelta(days=1), 1): {"u": [3.0]},
            snapshot(DAY, 1, space="s002-b"): {"u": [4.0]},
        },
    )


def test_in_a_catalog_only_partitions_that_can_count_are_read_and_vectors_are_shuffled_once(
    tables: Tables, spark: SparkSession
) -> None:
    ledger_with_a_step_that_never_counts(tables)
    found = join_embeddings(labels_of(spark, [(1, "u", NOON)]), tables=left_to_spark(tables), space="s001-a")
    plan = found._jdf.queryExecution().executedPlan().toString()
    assert plan.count("Exchange hashpartitioning") <= 2
    read = [unquote(file).split("user_embeddings/")[1].rpartition("/")[0] for file in found.inputFiles()]
    assert sorted(read) == [
        "space_id=s001-a/as_of=2024-05-01/revision=2",
        "space_id=s001-a/as_of=2024-05-02/revision=1",
    ]


def test_only_files_that_can_count_are_listed_and_only_labels_are_shuffled(
    tables: Tables, spark: SparkSession, monkeypatch: pytest.MonkeyPatch, shuffle_into: Callable[[int], None]
) -> None:
    shuffle_into(2)
    ledger_with_a_step_that_never_counts(tables)
    folders: list[list[str]] = []

    def with_listed(labels: DataFrame, snapshots: list[BucketFiles], **more: Any) -> DataFrame:
        folders.extend(
            [uri.split("user_embeddings/")[1].rpartition("/")[0] for uri in files.uris] for files in snapshots
        )
        return with_vectors(labels, snapshots, **more)

    monkeypatch.setattr(join, "with_vectors", with_listed)
    found = join_embeddings(labels_of(spark, [(1, "u", NOON)]), tables=tables, space="s001-a")
    assert [row.embedding for row in found.collect()] == [[2.0]]
    plan = found._jdf.queryExecution().executedPlan().toString().partition("== Initial Plan ==")[0]
    assert re.findall(r"(?<!Broadcast)(?<!Reused)Exchange (\w+)", plan) == ["shufflepartitionidpassthrough"]
    assert folders == [
        ["space_id=s001-a/as_of=2024-05-01/revision=2"],
        ["space_id=s001-a/as_of=2024-05-02/revision=1"],
    ]


def written_by_tasks(tables: Tables, snapshot: Snapshot, num_users: int, *, in_order: bool) -> dict[str, Vector]:
    """Write a snapshot's rows as tasks do, in two files of small row groups; return them."""
    users = pa.array([f"u{k}" for k in range(num_users)])
    bucket_B = bucket_of(users)
    order = np.argsort(bucket_B, kind="stable") if in_order else np.random.default_rng(0).permutation(num_users)
    values = {"space_id": snapshot.space_id, "as_of": snapshot.as_of, "revision": snapshot.revision}
    target = replace(tables.target(USER_EMBEDDINGS), properties=(("parquet.block.size", "800"),))
    files, since = [], tables.version(USER_EMBEDDINGS)
    for mine in np.array_split(order, 2):
        writer = TableWriter(target)
        vectors = listed(np.stack([mine, mine + 0.5], axis=1).astype(np.float32))
        rows = {"user_bucket": bucket_B[mine], "user_id": users.take(pa.array(mine)), "embedding": vectors}
        writer.write(pa.table(rows), values)
        files += writer.close()
    tables.commit(USER_EMBEDDINGS, files, replacing=lambda _: False, since=since)
    record_snapshots(tables, [snapshot])
    return {f"u{k}": [float(k), k + 0.5] for k in range(num_users)}


@pytest.mark.parametrize("in_order", [True, False])
def test_vectors_are_found_in_any_of_many_row_groups_by_any_number_of_tasks(
    tables: Tables, spark: SparkSession, monkeypatch: pytest.MonkeyPatch, in_order: bool
) -> None:
    monkeypatch.setattr(read_vectors, "_MOST_USERS", 60)  # five tasks
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "37")
    add_spaces(tables, "s001-a")
    made = snapshot(DAY)
    vectors = written_by_tasks(tables, made, 300, in_order=in_order)
    groups = [pq.read_metadata(f"{tables.uri(USER_EMBEDDINGS)}/{file.path}").num_row_groups
              for file in tables.files(USER_EMBEDDINGS, lambda _: True)]  # fmt: skip
    assert min(groups) > 3
    chance = random.Random(1)
    rows = [(n, chance.choice([f"u{chance.randint(0, 330)}", None, "u7"]), NOON) for n in range(500)]
    try:
        found = join_embeddings(labels_of(spark, rows).repartition(3), tables=tables, space="s001-a").collect()
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
    assert {row.n: row.embedding for row in found} == {n: vectors.get(user or "") for n, user, _ in rows}
    assert len(found) == len(rows)


@pytest.mark.parametrize("where", ["embedding IS NOT NULL", "embedding_status = 'found'", None])
def test_a_filter_on_what_was_found_loses_no_label(tables: Tables, spark: SparkSession, where: str | None) -> None:
    add_spaces(tables, "s001-a")
    vectors = written_by_tasks(tables, snapshot(DAY), 300, in_order=True)
    chance = random.Random(5)
    rows = [(n, f"u{chance.randint(0, 330)}", NOON) for n in range(200)]
    options = JoinOptions(missing="null" if where else "drop")
    found = join_embeddings(labels_of(spark, rows), tables=tables, space="s001-a", options=options)
    found = found.where(where) if where else found
    assert sorted(row.n for row in found.collect()) == [n for n, user, _ in rows if user in vectors]


def test_a_task_reads_the_row_groups_of_its_labels_alone_and_each_once(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_spaces(tables, "s001-a")
    vectors = written_by_tasks(tables, snapshot(DAY), 300, in_order=True)
    read: list[tuple[str, int]] = []

    def counted(uri: str, group: int) -> pa.Table:
        read.append((uri, group))
        return read_group(uri, group)

    read_group = read_vectors._read
    monkeypatch.setattr(read_vectors, "_read", counted)
    files = BucketFiles.of(tables.files(USER_EMBEDDINGS))
    users = pa.array(sorted(vectors, key=lambda user: bucket_of(pa.array([user]))[0]))[40:80]
    batches = [
        (users[k : k + 10], pa.array([0] * 10, pa.int32()), pa.array(bucket_of(users[k : k + 10])))
        for k in range(0, 40, 10)
    ]
    found = [vector for part in read_vectors.look_up([files])(iter(batches)) for vector in part.to_pylist()]
    assert found == [vectors[user] for user in users.to_pylist()]
    assert len(read) == len(set(read)) < 10
