"""Commits to a table in S3 that another driver precedes, or whose answer is lost: nothing is undone, nothing twice."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from tests.system.s3.conftest import Bucket
from userrep.errors import UserrepError
from userrep.spaces.registry import add_candidate, read_registry
from userrep.store.delta_commits import DeltaCommits
from userrep.store.file_tables import FileTables
from userrep.store.schemas import EXPORTS, REGISTRY, REJECTED_EVENTS, TableSchema
from userrep.store.tables import Tables

pytestmark = pytest.mark.default

ROW = {"path": "p", "what": "features", "as_of": date(2024, 5, 1), "exported_at": None}


@pytest.fixture
def tables(spark: SparkSession, bucket: Bucket, request: pytest.FixtureRequest) -> Tables:
    """Tables below a root of the test's own."""
    tables = FileTables(spark, f"{bucket.uri}/{abs(hash(request.node.name))}")
    tables.add(EXPORTS, [ROW])
    return tables


def next_commit(tables: Tables, table: TableSchema, ahead: int = 1) -> str:
    """Return how the key of a commit to come ends."""
    return f"{tables.uri(table).split('/', 3)[3]}/_delta_log/{tables.version(table) + ahead:020}.json"


def by(tables: Tables, table: TableSchema = EXPORTS) -> list[str]:
    """Return the operation of each commit, the oldest first: WRITE for all writers."""
    done = [commit["operation"] for commit in reversed(DeltaTable(tables.uri(table)).history())]
    return ["WRITE" if what.startswith("Write") else what for what in done]


def row_of(tables: Tables) -> DataFrame:
    return tables.read(EXPORTS).limit(1)


WAYS: dict[str, tuple[Callable[[Tables], Any], int]] = {
    "spark appends": (lambda tables: tables.append(row_of(tables), EXPORTS), 2),
    "spark replaces": (lambda tables: tables.replace(row_of(tables), EXPORTS, [{}]), 1),
    "a ledger grows": (lambda tables: tables.add(EXPORTS, [ROW]), 2),
    "a ledger's rows change": (lambda tables: tables.add(EXPORTS, [ROW], replacing="path = 'p'"), 1),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_second_of_two_commits_is_repeated_and_undoes_nothing(tables: Tables, bucket: Bucket, way: str) -> None:
    commit, num_rows = WAYS[way]
    bucket.store.overtake(next_commit(tables, EXPORTS))
    commit(tables)
    assert by(tables) == ["CREATE TABLE", "WRITE", "RIVAL", "WRITE"]
    assert len(tables.ledger(EXPORTS)) == num_rows


@pytest.mark.full
@pytest.mark.parametrize("way", WAYS)
def test_a_commit_whose_answer_is_lost_is_made_once(tables: Tables, bucket: Bucket, way: str) -> None:
    commit, num_rows = WAYS[way]
    bucket.store.take_counts()
    bucket.store.lose_answer(next_commit(tables, EXPORTS))
    commit(tables)
    assert bucket.store.take_counts()["failed"] == {"lost": 1}
    assert by(tables) == ["CREATE TABLE", "WRITE", "WRITE"]
    assert len(tables.ledger(EXPORTS)) == num_rows


@pytest.mark.full
def test_a_change_of_the_registry_whose_answer_is_lost_counts(tables: Tables, bucket: Bucket) -> None:
    tables.create(REGISTRY)
    bucket.store.lose_answer(next_commit(tables, REGISTRY))
    add_candidate(tables, space_id="s1", lineage_id="l1", trained_until=date(2024, 5, 1), content_hash="x")
    assert [space.space_id for space in read_registry(tables).spaces] == ["s1"]
    assert len(by(tables, REGISTRY)) == 2


@pytest.mark.full
def test_a_driver_that_comes_second_on_the_same_rows_fails_with_an_error(tables: Tables, bucket: Bucket) -> None:
    rows, replace = row_of(tables), DeltaCommits.swap

    def overtaken(self: DeltaCommits, *args: Any, **more: Any) -> None:
        FileTables(None, tables.artifacts_root).add(EXPORTS, [ROW])
        replace(self, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DeltaCommits, "swap", overtaken)
        with pytest.raises(
            UserrepError, match=r"tables/exports: another run has changed the same rows meanwhile\. Run"
        ):
            tables.replace(rows, EXPORTS, [{}])
    assert len(tables.ledger(EXPORTS)) == 2


@pytest.mark.full
def test_a_condition_on_partitions_takes_the_place_of_those_alone(tables: Tables) -> None:
    days = [date(2024, 5, day) for day in (1, 2, 3)]
    rows = [{"event_date": day, "revision": k, "reason": "r", "row": str(k)} for day in days for k in (1, 2)]
    tables.add(REJECTED_EVENTS, rows)
    new = tables.spark.createDataFrame([(days[1], 2, "r", "new")], tables.read(REJECTED_EVENTS).schema)
    tables.replace(new, REJECTED_EVENTS, [{"revision": 2, "event_date": day} for day in days[1:]])
    found = sorted((row.event_date.day, row.row) for row in tables.ledger(REJECTED_EVENTS))
    assert found == [(1, "1"), (1, "2"), (2, "1"), (2, "new"), (3, "1")]
    assert tables.read(REJECTED_EVENTS).where("revision = 2").count() == 2
    tables.append(new, REJECTED_EVENTS, transaction=("writer", 3))
    tables.append(new, REJECTED_EVENTS, transaction=("writer", 3))
    assert (tables.last_transaction(REJECTED_EVENTS, "writer"), len(tables.ledger(REJECTED_EVENTS))) == (3, 6)
