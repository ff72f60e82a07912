"""Writers at once, below a root and in a catalog: a compare-and-swap lets exactly one of them win."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from userrep.schemas import TableSchema
from userrep.tables import Tables

pytestmark = pytest.mark.default

NOTES = TableSchema("notes", "one row per note", "writer STRING, number INT")
WRITERS = 3


@pytest.fixture(params=["root", "catalog"])
def tables(spark: SparkSession, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tables]:
    """Tables below a root, whose commits are delta-rs's, and in a schema of a catalog, whose commits are Spark's."""
    if request.param == "root":
        yield Tables(spark, root=str(tmp_path))
        return
    schema = f"at_once_{uuid.uuid4().hex[:8]}"
    spark.sql(f"CREATE SCHEMA {schema} LOCATION '{tmp_path}'")
    yield Tables(spark, schema=schema)
    spark.sql(f"DROP SCHEMA {schema} CASCADE")


def appended(tables: Tables, writer: str, since: int) -> bool:
    return tables.append(tables.spark.createDataFrame([(writer, 0)], NOTES.fields()), NOTES, since=since)


def added(tables: Tables, writer: str, since: int) -> bool:
    return tables.add(NOTES, [{"writer": writer, "number": 0}], since=since)


Write = Callable[[Tables, str, int], bool]


@pytest.mark.parametrize("write", [appended, added])
def test_rows_are_added_only_onto_the_version_that_they_were_made_from(tables: Tables, write: Write) -> None:
    since = tables.version(NOTES)
    assert write(tables, "first", since)
    assert not write(tables, "late", since)
    assert write(tables, "second", tables.version(NOTES))
    assert sorted(row.writer for row in tables.ledger(NOTES)) == ["first", "second"]


@pytest.mark.parametrize("write", [appended, added])
def test_of_writers_at_once_exactly_one_wins(tables: Tables, write: Write) -> None:
    since = tables.version(NOTES)
    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(lambda k: write(tables, str(k), since), range(WRITERS)))
    assert sum(won) == 1
    assert [row.writer for row in tables.ledger(NOTES)] == [str(won.index(True))]


def test_no_two_writers_get_the_same_number(tables: Tables) -> None:
    tables.create(NOTES)
    with ThreadPoolExecutor(WRITERS) as pool:
        numbers = list(pool.map(lambda _: tables.reserve(NOTES, "build", first=5), range(WRITERS)))
    assert sorted(numbers) == [5, 6, 7]
    assert tables.reserve(NOTES, "build", first=5) == 8
    assert tables.reserve(NOTES, "another counter") == 1
    assert tables.ledger(NOTES) == []
