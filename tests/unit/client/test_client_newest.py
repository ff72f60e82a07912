"""The newest snapshot of a space, read with and without Spark."""

from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from tests.support.builders import left_to_spark
from tests.support.embedding_tables import add_spaces, publish, snapshot
from tests.unit.joins.test_join import written_by_tasks
from userrep.client.frames import newest_frame, newest_table
from userrep.errors import UsageError
from userrep.spaces.registry import find_space, mark_ready, promote
from userrep.spaces.snapshots import EXPIRED
from userrep.store.file_tables import FileTables

pytestmark = pytest.mark.default

DAY, LATER = date(2024, 5, 1), date(2024, 5, 2)


@pytest.fixture
def tables(spark: SparkSession, tmp_path: Path) -> FileTables:
    tables = FileTables(spark, str(tmp_path))
    add_spaces(tables, "s001-a")
    mark_ready(tables, find_space(tables, "s001-a"))
    promote(tables, find_space(tables, "s001-a"))
    return tables


@pytest.mark.parametrize("reader", ["files", "spark", "catalog"])
def test_every_user_of_the_newest_published_snapshot_is_there_once(tables: FileTables, reader: str) -> None:
    publish(tables, {snapshot(DAY): {"u1": [0.0], "gone": [0.0]}, snapshot(LATER, 1): {"u1": [1.0, 1.5]}})
    publish(tables, {snapshot(LATER + timedelta(days=1), state=EXPIRED): {}})
    vectors = written_by_tasks(tables, snapshot(LATER, 2), 50, in_order=True)
    if reader == "spark":
        found = newest_frame(tables, "serving").toArrow()
    else:
        found = newest_table(tables if reader == "files" else left_to_spark(tables), "serving")
    assert found.column_names == ["user_id", "snapshot_id", "as_of", "embedding"]
    assert found.schema.field("embedding").type.value_type == pa.float32()
    assert dict(zip(found["user_id"].to_pylist(), found["embedding"].to_pylist(), strict=True)) == vectors
    assert (set(found["snapshot_id"].to_pylist()), set(found["as_of"].to_pylist())) == (
        {"s001-a-20240502-r2"},
        {LATER},
    )
    assert len(found) == len(vectors)


def test_a_space_without_a_snapshot_is_refused(tables: FileTables) -> None:
    for newest in (newest_frame, newest_table):
        with pytest.raises(UsageError, match="s001-a has no published snapshot"):
            newest(tables, "serving")
