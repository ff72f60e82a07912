"""Columns of an items table as text, read by Spark: those of the same table in a file, without deleted rows."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from tests.support.item_texts import IDS, items_file, texts_of
from userrep.config import Source

pytestmark = pytest.mark.default


@pytest.mark.parametrize("ids", IDS, ids=str)
def test_a_table_of_a_catalog_has_the_same_texts(spark: SparkSession, tmp_path: Path, ids: pa.DataType) -> None:
    items = items_file(tmp_path, ids)
    spark.read.parquet(str(items)).createOrReplaceTempView("shop_items")
    table = Source(path="shop_items", format="table")
    for most_rows in (9, 2):
        assert texts_of(table, spark, most_rows) == texts_of(Source(path=str(items)), None, most_rows)


def test_rows_that_deletion_vectors_hide_are_not_read(spark: SparkSession, tmp_path: Path) -> None:
    items, table = items_file(tmp_path), str(tmp_path / "delta")
    writer = spark.read.parquet(str(items)).coalesce(1).write.format("delta")
    writer.option("delta.enableDeletionVectors", "true").save(table)
    source = Source(path=table, format="delta")
    assert texts_of(source, None) == texts_of(Source(path=str(items)))
    spark.sql(f"DELETE FROM delta.`{table}` WHERE title = 'mug'")
    assert texts_of(source, spark) == [row for row in texts_of(Source(path=str(items))) if row[1] != "mug"]
