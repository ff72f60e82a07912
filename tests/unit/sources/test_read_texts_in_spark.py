"""Columns of an items table in a catalog as text: those of the same table in a file."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.support.item_texts import items_file, texts_of
from userrep.config import Source

pytestmark = pytest.mark.default


def test_a_table_of_a_catalog_has_the_same_texts(spark: SparkSession, tmp_path: Path) -> None:
    items = items_file(tmp_path)
    spark.read.parquet(str(items)).createOrReplaceTempView("shop_items")
    table = Source(path="shop_items", format="table")
    for most_rows in (9, 2):
        assert texts_of(table, spark, most_rows) == texts_of(Source(path=str(items)), None, most_rows)
