"""The benchmark of a stream that is killed: nothing is lost, and what would be is counted."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from benchmarks import stream_kills
from benchmarks.stream_kills import KillSize
from tests.support.benchmark_lines import check_line
from userrep.store.file_tables import FileTables
from userrep.store.schemas import EMBEDDING_UPDATES
from userrep.store.tables import Tables

pytestmark = pytest.mark.full


def test_a_stream_that_is_killed_once_loses_no_row(spark: SparkSession, tmp_path: Path) -> None:
    line = stream_kills.measure(spark, KillSize(batches=4, kills=1, seed=1), tmp_path, 1)
    assert {name: line[name] for name in ("lost", "duplicated", "unequal", "unequal_to_batch", "value")} == {
        "lost": 0, "duplicated": 0, "unequal": 0, "unequal_to_batch": 0, "value": 0,
    }  # fmt: skip
    assert line["size"]["rows"] > 100
    check_line(line | {"value": 1}, "stream_kills", ("batches", "kills", "seed", "rows"), tmp_path)


def test_rows_that_are_lost_doubled_or_different_are_counted(spark: SparkSession, tmp_path: Path) -> None:
    right = [update("a", 0), update("b", 0), update("a", 1), update("c", 1), update("a", 2)]
    undisturbed = tables_of(spark, tmp_path / "undisturbed", right)
    counts = {"rows": 5, "lost": 0, "duplicated": 0, "unequal": 0}
    for name, rows, changed in (
        ("same", right[::-1], {}),
        ("lost", right[1:], {"lost": 1}),
        ("doubled", [*right, right[3], right[3]], {"duplicated": 2}),
        ("unknown", [*right, update("d", 1)], {"duplicated": 1}),
        ("different", [*right[:4], update("a", 2, vector=[1.0, 2.5])], {"unequal": 1}),
    ):
        killed = tables_of(spark, tmp_path / name, rows)
        assert stream_kills.compare(undisturbed, killed, [0, 1, 2]) == counts | changed, name


def test_of_two_batches_that_became_one_the_last_row_of_a_user_counts(spark: SparkSession, tmp_path: Path) -> None:
    first, last = update("a", 0, vector=[1.0, 2.0]), update("a", 1, vector=[3.0, 4.0])
    undisturbed = tables_of(spark, tmp_path / "undisturbed", [first, update("b", 0), last])
    for name, kept, num_unequal in (("last", last, 0), ("first", first, 1)):
        killed = tables_of(spark, tmp_path / name, [kept | {"batch_id": 1}, update("b", 1)])
        counted = stream_kills.compare(undisturbed, killed, [1, 1])
        assert counted == {"rows": 2, "lost": 0, "duplicated": 0, "unequal": num_unequal}


def update(user: str, batch: int, *, vector: list[float] | None = None) -> dict[str, Any]:
    return {
        "space_id": "s1", "as_of": date(2024, 3, 15), "user_id": user, "event_at": datetime(2024, 3, 15, 9),
        "computed_at": datetime(2024, 3, 15, 10), "query_id": "q", "batch_id": batch, "is_new": False,
        "embedding": vector or [1.0, 2.0],
    }  # fmt: skip


def tables_of(spark: SparkSession, root: Path, rows: list[dict[str, Any]]) -> Tables:
    tables = FileTables(spark, str(root))
    tables.add(EMBEDDING_UPDATES, rows)
    return tables
