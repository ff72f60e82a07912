"""Delta tables without Spark: ledgers, files that tasks write, and their commits, as Spark sees them."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from tests.support.builders import EVENT_COLUMNS, config_of
from tests.support.small_row_groups import SHARES
from userrep.errors import UserrepError
from userrep.features.spec import FeatureSpec
from userrep.store import delta_commits
from userrep.store.data_dictionary import described
from userrep.store.data_files import TableFile
from userrep.store.delta_commits import DeltaCommits
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import TableWriter
from userrep.store.schemas import ALL, TableSchema, user_features
from userrep.store.sql import sql_any
from userrep.store.tables import Tables

pytestmark = pytest.mark.default

LEDGER = TableSchema(
    "ledger", "one row per test", "name STRING, day DATE, num BIGINT, cells MAP<INT,BIGINT>, at TIMESTAMP"
)
COLUMNS = EVENT_COLUMNS | {"context": ["device"]}
ROWS = [
    {"name": "a", "day": date(2024, 5, 1), "num": 1, "cells": {3: 4, 1: 2}, "at": datetime(2024, 5, 1, 12, 0, 0, 7)},
    {"name": "b", "day": None, "num": None, "cells": None, "at": None},
]


@pytest.fixture
def tables(spark: SparkSession, tmp_path: Path) -> Tables:
    return FileTables(spark, str(tmp_path / "a b"))


def bucketed(num: int) -> pa.Table:
    return pa.table(
        {
            "x": pa.array([[0.5, k] for k in range(num)], pa.list_(pa.float32())),
            "user_id": [f"u{k}" for k in range(num)],
            "user_bucket": pa.array(range(num), pa.int32()),
        }
    )


def written(tables: Tables, day: date, rows: pa.Table) -> list[TableFile]:
    writer = TableWriter(tables.target(SHARES))
    writer.write(rows.slice(0, 10), {"day": day, "user_slice": "0-of-1"})
    writer.write(rows.slice(10), {"day": day, "user_slice": "0-of-1"})
    return writer.close()


def test_a_ledger_has_the_same_rows_with_spark_and_without(tables: Tables) -> None:
    tables.add(LEDGER, ROWS)
    beside = tables.ledger(LEDGER)
    assert [row.asDict() for row in beside] == ROWS
    assert [row.asDict() for row in tables.read(LEDGER).orderBy("name").collect()] == ROWS
    assert [row.num for row in tables.ledger(LEDGER, ("name", "num"), name="a")] == [1]
    assert dict(tables.counts(LEDGER, ("day", "num"))) == {(ROWS[0]["day"], 1): 1, (None, None): 1}
    assert tables.fields(LEDGER) == tables.read(LEDGER).schema == described(LEDGER)
    tables.append(tables.read(LEDGER).where("name = 'a'"), LEDGER)
    assert sorted(row.name for row in tables.ledger(LEDGER)) == ["a", "a", "b"]


def test_columns_are_read_without_a_session_as_spark_reads_them(spark: SparkSession, tmp_path: Path) -> None:
    features = user_features("l1", FeatureSpec.of(config_of(tmp_path, events={"columns": COLUMNS})).ddl())
    for table in (*ALL, features):
        assert table.fields() == StructType.fromDDL(table.columns)


def test_rows_of_a_ledger_take_the_place_of_others_in_one_commit(tables: Tables) -> None:
    tables.add(LEDGER, ROWS)
    before = tables.version(LEDGER)
    tables.add(LEDGER, [ROWS[0] | {"num": 2}], replacing="name IN ('a')")
    assert tables.version(LEDGER) == before + 1
    assert {row.name: row.num for row in tables.read(LEDGER).collect()} == {"a": 2, "b": None}


def test_what_tasks_write_counts_once_it_is_committed_and_takes_the_place_of_what_was_there(tables: Tables) -> None:
    first, second = date(2024, 5, 1), date(2024, 5, 2)
    files = written(tables, first, bucketed(2000)) + written(tables, second, bucketed(3))
    assert tables.read(SHARES).count() == 0
    tables.commit(SHARES, files, replacing=lambda _: False, since=0)
    assert {row.day: row["count"] for row in tables.read(SHARES).groupBy("day").count().collect()} == {
        first: 2000, second: 3,
    }  # fmt: skip
    tables.commit(SHARES, written(tables, first, bucketed(7)), replacing=lambda of: of["day"] == first, since=1)
    rows = tables.read(SHARES).where(f"day = DATE'{first}'").orderBy("user_bucket").collect()
    assert [(row.user_id, row.x) for row in rows] == [(f"u{k}", [0.5, k]) for k in range(7)]
    assert [file.num_rows for file in tables.files(SHARES, lambda of: of["day"] == second)] == [3]


def test_a_commit_that_comes_second_is_made_again_on_the_newest_version(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, real, calls = written(tables, date(2024, 5, 1), bucketed(3)), delta_commits.files_of, []
    other = tables.spark.createDataFrame([(date(2024, 6, 1), "0-of-1", 1, "u", [0.5])], tables.read(SHARES).schema)

    def overtaken(table: DeltaTable, table_uri: str = "") -> list[TableFile]:
        if len(calls) < 2:
            tables.append(other, SHARES)
        calls.append(table)
        return real(table, table_uri)

    monkeypatch.setattr(delta_commits, "files_of", overtaken)
    tables.commit(SHARES, files, replacing=lambda _: False, since=0)
    assert len(calls) == 3
    assert tables.read(SHARES).where("day < DATE'2024-06-01'").count() == 3


def test_a_table_that_many_make_at_once_is_there_for_all(tmp_path: Path) -> None:
    schema = json.dumps(SHARES.fields().jsonValue())

    def made(k: int) -> list[str]:
        begin.wait()
        DeltaCommits(f"{tmp_path}/{k}").create(schema, SHARES.partition_by, {})
        return [field.name for field in DeltaTable(f"{tmp_path}/{k}").schema().fields]

    begin = Barrier(6)  # for each six
    with ThreadPoolExecutor(6) as pool:
        for k in range(30):
            assert list(pool.map(made, [k] * 6)) == [SHARES.fields().names] * 6


def test_files_that_are_added_bring_a_writer_s_transaction(tables: Tables) -> None:
    tables.create(SHARES)
    for number, day in enumerate((date(2024, 5, 1), date(2024, 5, 2))):
        tables.add_files(SHARES, written(tables, day, bucketed(30)), transaction=("writer", number))
    tables.add_files(SHARES, [], transaction=("writer", 9))
    assert tables.last_transaction(SHARES, "writer") == 1
    rows = tables.read(SHARES)
    assert {row.day: row["count"] for row in rows.groupBy("day").count().collect()} == {
        date(2024, 5, 1): 30, date(2024, 5, 2): 30,
    }  # fmt: skip
    tables.append(rows.where("false"), SHARES, transaction=("writer", 1))  # Spark reads the same record
    assert tables.last_transaction(SHARES, "writer") == 1


def test_many_files_are_read_by_delta_with_the_same_rows_as_few(tables: Tables) -> None:
    (file, *_), first = written(tables, date(2024, 5, 1), bucketed(3)), date(2024, 5, 1)
    folder, copies = Path(tables.uri(SHARES)), []
    for k in range(1001):
        day = first + timedelta(days=k)
        path = f"day={day}/user_slice=0-of-1/{k}.parquet"
        copies.append(file._replace(path=path, values=file.values | {"day": day}))
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).hardlink_to(folder / file.path)
    tables.add_files(SHARES, copies)
    assert tables.read(SHARES).count() == 3003
    few = tables.read(SHARES, [{"day": first}, {"day": first + timedelta(days=7)}])
    many = tables.read(SHARES).where("day IN (DATE'2024-05-01', DATE'2024-05-08')")
    assert few.schema == many.schema
    assert sorted(few.collect()) == sorted(many.collect()) != []


def test_a_frame_has_the_rows_of_the_moment_at_which_it_was_read(tables: Tables) -> None:
    tables.commit(SHARES, written(tables, date(2024, 5, 1), bucketed(3)), replacing=lambda _: False, since=0)
    rows, day = tables.read(SHARES), date(2024, 5, 2)
    tables.commit(SHARES, written(tables, day, bucketed(4)), replacing=lambda _: False, since=1)
    assert (rows.count(), tables.read(SHARES).count()) == (3, 7)
    assert (tables.read(SHARES, [{"day": day}], version=1).count(), tables.read(SHARES, [{"day": day}]).count()) == (
        0,
        4,
    )


def test_files_outside_of_partition_folders_are_read_by_delta(tables: Tables) -> None:
    day = date(2024, 5, 1)
    (file,) = written(tables, day, bucketed(3))
    folder = Path(tables.uri(SHARES))
    (folder / "Xy").mkdir()
    (folder / file.path).rename(folder / "Xy" / "1.parquet")
    tables.add_files(SHARES, [file._replace(path="Xy/1.parquet")])
    assert {(row.day, row.user_slice, row.user_id) for row in tables.read(SHARES, [{"day": day}]).collect()} == {
        (day, "0-of-1", f"u{k}") for k in range(3)
    }


@pytest.mark.parametrize(
    ("setting", "feature"),
    [("enableDeletionVectors' = 'true", "deletionVectors"), ("columnMapping.mode' = 'name", "columnMapping")],
)
def test_a_table_whose_files_are_not_its_rows_is_refused(
    spark: SparkSession, tmp_path: Path, setting: str, feature: str
) -> None:
    tables = FileTables(spark, str(tmp_path))
    tables.add(LEDGER, ROWS)
    spark.sql(f"ALTER TABLE {tables.name(LEDGER)} SET TBLPROPERTIES ('delta.{setting}')")
    with pytest.raises(UserrepError, match=f"has the Delta feature {feature}"):
        FileTables(spark, str(tmp_path)).read(LEDGER)


def test_delta_rs_reads_the_predicate_of_thousands_of_keys(tables: Tables) -> None:
    tables.add(LEDGER, ROWS)
    keys = [{"day": date(2000, 1, 1) + timedelta(days=k), "num": k} for k in range(3000)]
    tables.add(LEDGER, [], replacing=sql_any([*keys, {"name": "a"}]))
    assert [row.name for row in tables.ledger(LEDGER)] == ["b"]
