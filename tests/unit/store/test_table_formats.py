"""What another release or another program has written is refused by name, before anything is read of it or added."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from userrep.errors import UsageError, UserrepError
from userrep.store.file_tables import FileTables
from userrep.store.schemas import EXPORTS
from userrep.store.spark_tables import SparkTables
from userrep.store.table_formats import FORMAT
from userrep.store.tables import Tables

pytestmark = pytest.mark.default

ROW = {"path": "p", "what": "features", "as_of": None, "exported_at": None}
Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """A table with a row, without Spark."""
    tables = FileTables(None, str(tmp_path))
    tables.add(EXPORTS, [ROW])
    return tables


def rewrite(tables: Tables, change: Change) -> Tables:
    """Change the first commit's actions; return the tables as the next run opens them."""
    log = Path(tables.uri(EXPORTS)) / "_delta_log" / f"{0:020}.json"
    log.write_text("\n".join(map(json.dumps, change(list(map(json.loads, log.read_text().splitlines()))))))
    return FileTables(None, str(Path(tables.uri(EXPORTS)).parents[1]))


def with_property(value: str | None) -> Change:
    def change(actions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for action in actions:
            if "metaData" in action:
                del action["metaData"]["configuration"]["userrep.format"]
                action["metaData"]["configuration"] |= {} if value is None else {"userrep.format": value}
        return actions

    return change


def with_protocol(**protocol: Any) -> Change:
    return lambda actions: [{"protocol": protocol} if "protocol" in action else action for action in actions]


def test_tables_name_their_format(tables: Tables) -> None:
    assert DeltaTable(tables.uri(EXPORTS)).metadata().configuration["userrep.format"] == str(FORMAT)


@pytest.mark.parametrize("value", [str(FORMAT + 1), "x\ny", None])
def test_a_table_of_another_format_is_refused_by_name_and_left_as_it_is(tables: Tables, value: str | None) -> None:
    newer = rewrite(tables, with_property(value))
    for act in (lambda: newer.ledger(EXPORTS), lambda: newer.add(EXPORTS, [ROW])):
        with pytest.raises(
            UsageError,
            match=r"tables/exports` has format ('x\\ny'|2|none), but this release reads format 1\. Use the rel",
        ):
            act()
    assert DeltaTable(tables.uri(EXPORTS)).version() == 1


@pytest.mark.parametrize(
    "change",
    [
        with_protocol(minReaderVersion=99, minWriterVersion=99),
        with_protocol(minReaderVersion=3, minWriterVersion=7, readerFeatures=["zigzag"], writerFeatures=["zigzag"]),
        lambda actions: [{"metaData": 3}],
    ],
)
def test_a_table_that_cannot_be_read_is_refused_by_name(tables: Tables, change: Change) -> None:
    with pytest.raises(
        UserrepError, match=r"table .*/exports is not readable \(DeltaError: Kernel error: .* Restore it"
    ):
        rewrite(tables, change).ledger(EXPORTS)


def test_spark_refuses_another_format_where_it_alone_reads(spark: SparkSession, tmp_path: Path) -> None:
    spark.sql("CREATE SCHEMA IF NOT EXISTS formats LOCATION '" + str(tmp_path) + "'")
    try:
        SparkTables(spark, schema="`formats`", artifacts=str(tmp_path)).create(EXPORTS)
        spark.sql("ALTER TABLE formats.exports SET TBLPROPERTIES ('userrep.format' = '2')")
        with pytest.raises(
            UsageError, match=r"table `formats`.`exports` has format 2, but this release reads format 1"
        ):
            SparkTables(spark, schema="`formats`", artifacts=str(tmp_path)).create(EXPORTS)
    finally:
        spark.sql("DROP SCHEMA formats CASCADE")
