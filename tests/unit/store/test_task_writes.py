"""Files that Spark's tasks write for a table: the rows of the frame, each file of one partition."""

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from userrep.store.file_tables import FileTables
from userrep.store.schemas import TableSchema
from userrep.store.tables import Tables
from userrep.store.task_writes import write_files

pytestmark = pytest.mark.default

KINDS = TableSchema(
    "kinds",
    "one row per row",
    """day DATE, part INT, user_bucket INT, name STRING, at TIMESTAMP, size DECIMAL(38,0), counts MAP<STRING,BIGINT>,
    vector ARRAY<FLOAT>, content BINARY""",
    ("day", "part"),
    (("delta.dataSkippingStatsColumns", "user_bucket"),),
)
D1, D2 = date(2024, 5, 1), date(2024, 5, 2)
ROWS = [
    (D1, 1, 7, "a", datetime(2024, 5, 1, 23, 59, 59, 1), Decimal(2**70), {"tv": 1}, [0.5, -1.0], b"\x00"),
    (D2, 1, 3, "b", datetime(1999, 1, 1), Decimal(0), {}, [], b""),
    (D1, 1, 5, None, None, None, None, None, None),
    (None, 2, 9, "c", datetime(2024, 5, 1), Decimal(-1), {"web": 2}, [1.0], b"x"),
]


@pytest.fixture
def tables(spark: SparkSession, tmp_path: Path) -> Tables:
    return FileTables(spark, str(tmp_path))


def test_rows_come_back_as_they_were(spark: SparkSession, tables: Tables) -> None:
    frame = spark.createDataFrame(ROWS, KINDS.fields())
    tables.append(frame.coalesce(1), KINDS)
    found = tables.read(KINDS).collect()
    assert sorted(map(str, found)) == sorted(map(str, frame.collect()))


def test_a_read_of_arrays_does_not_rebuild_each_of_them(spark: SparkSession, tables: Tables) -> None:
    tables.append(spark.createDataFrame(ROWS, KINDS.fields()).coalesce(1), KINDS)
    plan = tables.read(KINDS)._jdf.queryExecution().executedPlan().toString()  # type: ignore[operator]
    assert "FileScan parquet" in plan
    assert "transform" not in plan  # several times as slow for vectors of 120 numbers


def test_each_file_is_of_one_partition_and_knows_its_buckets(spark: SparkSession, tables: Tables) -> None:
    frame = spark.createDataFrame(ROWS, KINDS.fields()).coalesce(1)
    files = write_files(frame, tables.target(KINDS))
    facts = {(file.values["day"], file.values["part"]): (file.num_rows, file.buckets) for file in files}
    assert facts == {(str(D1), 1): (2, (5, 7)), (str(D2), 1): (1, (3, 3)), (None, 2): (1, (9, 9))}
    for file in files:
        assert Path(f"{tables.uri(KINDS)}/{file.path}").stat().st_size == file.size
    assert tables.read(KINDS).count() == 0  # the files are not committed


def test_rows_keep_their_order_within_a_partition(spark: SparkSession, tables: Tables) -> None:
    frame = spark.range(100).selectExpr(
        "DATE'2024-05-01' AS day", "CAST(id % 3 AS INT) AS part", "CAST(id AS INT) AS user_bucket", "'x' AS name",
        "CAST(NULL AS TIMESTAMP) AS at", "CAST(NULL AS DECIMAL(38,0)) AS size",
        "CAST(NULL AS MAP<STRING,BIGINT>) AS counts", "CAST(NULL AS ARRAY<FLOAT>) AS vector",
        "CAST('' AS BINARY) AS content",
    )  # fmt: skip
    for file in write_files(frame.coalesce(1).sortWithinPartitions("user_bucket"), tables.target(KINDS)):
        buckets = pq.ParquetFile(f"{tables.uri(KINDS)}/{file.path}").read(["user_bucket"])["user_bucket"].to_pylist()
        assert buckets == list(range(file.values["part"], 100, 3))


def test_of_two_replacements_from_one_version_the_second_is_refused(spark: SparkSession, tables: Tables) -> None:
    one, other = (spark.createDataFrame(ROWS[k : k + 1], KINDS.fields()) for k in (0, 2))
    since = tables.version(KINDS)
    tables.replace(one, KINDS, [{"part": 1}], since=since)
    with pytest.raises(Exception, match="another run has changed the same rows meanwhile"):
        tables.replace(other, KINDS, [{"part": 1}], since=since)
    tables.replace(other.limit(0), KINDS, [{"part": 2}], since=since)  # another partition
    assert [row.name for row in tables.read(KINDS).collect()] == ["a"]
