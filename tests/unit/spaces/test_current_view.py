"""The view of current vectors in a catalog follows new snapshots, their availability and promotions."""

import uuid
from datetime import date, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.support.embedding_tables import add_spaces, publish, snapshot
from userrep.spaces.current_view import NAME, keep_current_view
from userrep.spaces.registry import find_space, mark_ready, promote
from userrep.store.file_tables import FileTables
from userrep.store.spark_tables import SparkTables

pytestmark = pytest.mark.default

OLD, NEW = "s001-a", "s002-b"


@pytest.mark.full
def test_it_shows_the_newest_available_snapshot_of_the_serving_space(spark: SparkSession, tmp_path: Path) -> None:
    schema = f"s{uuid.uuid4().hex[:8]}"
    spark.sql(f"CREATE SCHEMA {schema} LOCATION '{tmp_path}/{schema}'")
    tables = SparkTables(spark, schema=f"`spark_catalog`.`{schema}`", artifacts=str(tmp_path / "artifacts"))

    def current() -> list[tuple[str, str, list[float]]]:
        rows = spark.sql(f"SELECT user_id, snapshot_id, embedding FROM {schema}.{NAME} ORDER BY user_id").collect()
        return [tuple(row) for row in rows]

    add_spaces(tables, OLD, NEW)
    publish(
        tables,
        {
            snapshot(date(2024, 5, 1)): {"u1": [1.0], "u2": [2.0]},
            snapshot(date(2024, 5, 2)): {"u1": [3.0]},
            snapshot(date(2024, 5, 2), 2): {"u1": [4.0], "u3": [5.0]},
            snapshot(date(2024, 5, 3), at=datetime(2999, 1, 1)): {"u1": [6.0]},
            snapshot(date(2024, 5, 4), state="refused"): {"u1": [7.0]},
            snapshot(date(2024, 5, 4), space=NEW): {"u1": [8.0]},
        },
    )
    keep_current_view(tables)
    assert current() == []  # nothing serves
    for space_id in (OLD, NEW):
        mark_ready(tables, find_space(tables, space_id))
    promote(tables, find_space(tables, OLD))
    assert current() == [("u1", "s001-a-20240502-r2", [4.0]), ("u3", "s001-a-20240502-r2", [5.0])]
    promote(tables, find_space(tables, NEW))
    keep_current_view(tables)  # it is there
    assert current() == [("u1", "s002-b-20240504-r1", [8.0])]
    spark.sql(f"DROP SCHEMA {schema} CASCADE")


def test_a_root_of_files_has_no_view(tmp_path: Path) -> None:
    keep_current_view(FileTables(None, str(tmp_path)))
    assert not list(tmp_path.iterdir())
